// Finds the key that was probably meant when an unknown one was written.

/// The nearest of the known keys.
enum NearestKey {
  /// The key of `known` with the smallest edit distance to `key`, upper and lower case and `_` and `-` being alike.
  static func find(_ key: String, in known: [String]) -> String? {
    known.min { distance(normalised(key), normalised($0)) < distance(normalised(key), normalised($1)) }
  }

  static func normalised(_ key: String) -> [UInt8] {
    key.lowercased().utf8.map { $0 == UInt8(ascii: "_") ? UInt8(ascii: "-") : $0 }
  }

  /// Levenshtein's distance: insertions, deletions and replacements, one row of the table at a time.
  static func distance(_ left: [UInt8], _ right: [UInt8]) -> Int {
    var row = Array(0...right.count)
    for (i, leftByte) in left.enumerated() {
      var diagonal = row[0]
      row[0] = i + 1
      for (j, rightByte) in right.enumerated() {
        let replaced = diagonal + (leftByte == rightByte ? 0 : 1)
        diagonal = row[j + 1]
        row[j + 1] = min(replaced, row[j + 1] + 1, row[j] + 1)
      }
    }
    return row[right.count]
  }
}
