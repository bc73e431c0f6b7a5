// Which directories a backup's tablespaces lived in. A restore on the same host must remap every one of them, or it
// would write into the live cluster: asking for a remapping of a location that isn't there is therefore refused.
import Diagnostics

/// `tablespace_map` (`do_pg_backup_start`, xlog.c; `read_tablespace_map`, xlogrecovery.c).
package struct TablespaceMap: Sendable, Hashable {
  package struct Entry: Sendable, Hashable {
    /// The tablespace's OID, the name of its link in `pg_tblspc`.
    package var oid: UInt32
    /// An absolute path without a slash at its end.
    package var location: String

    package init(oid: UInt32, location: String) {
      self.oid = oid
      self.location = location
    }
  }

  package static let byteCountMax = 16 << 20

  package var entries: [Entry]

  package init(entries: [Entry] = []) { self.entries = entries }

  /// Parses lines of OID, blank and location. In a location a backslash stands before each newline, carriage return
  /// and backslash.
  /// - Throws: `stream-invalid` for anything else and for a repeated OID; `path-unsafe` for a location that isn't
  ///   absolute or holds `..`.
  package init(parsing bytes: some Collection<UInt8>) throws(TidemarkError) {
    guard bytes.count <= Self.byteCountMax else { throw Self.invalid("it is too long") }
    entries = []
    var seen: Set<UInt32> = []
    var line: [UInt8] = []
    var isEscaped = false
    for byte in bytes {
      if isEscaped {
        line.append(byte)
        isEscaped = false
      } else if byte == UInt8(ascii: "\\") {
        isEscaped = true
      } else if byte == UInt8(ascii: "\n") || byte == UInt8(ascii: "\r") {
        if line.isEmpty { continue }
        let entry = try Self.entry(line)
        guard seen.insert(entry.oid).inserted else { throw Self.invalid("OID \(entry.oid) stands twice") }
        entries.append(entry)
        line.removeAll(keepingCapacity: true)
      } else {
        line.append(byte)
      }
    }
    guard line.isEmpty, !isEscaped else { throw Self.invalid("its last line is cut off") }
  }

  private static func entry(_ line: [UInt8]) throws(TidemarkError) -> Entry {
    guard let blank = line.firstIndex(of: UInt8(ascii: " ")), let oid: UInt32 = decimalNumber(line[..<blank]), oid != 0
    else { throw invalid("not an OID and a location: \"\(String(decoding: line, as: UTF8.self))\"") }
    return Entry(oid: oid, location: try SafePath.absolute(line[(blank + 1)...]))
  }

  /// The file's bytes, which PostgreSQL reads back as the same entries.
  package var fileBytes: [UInt8] {
    var bytes: [UInt8] = []
    for entry in entries {
      bytes += "\(entry.oid) ".utf8
      for byte in entry.location.utf8 {
        if byte == UInt8(ascii: "\n") || byte == UInt8(ascii: "\r") || byte == UInt8(ascii: "\\") {
          bytes.append(UInt8(ascii: "\\"))
        }
        bytes.append(byte)
      }
      bytes.append(UInt8(ascii: "\n"))
    }
    return bytes
  }

  /// The map with the locations of `replacements` (old to new) replaced; others stay.
  /// - Throws: `usage` where an old location isn't in the map, or two tablespaces would share a location;
  ///   `path-unsafe` for a new location that isn't absolute or holds `..`.
  package func remapped(_ replacements: [(old: String, new: String)]) throws(TidemarkError) -> TablespaceMap {
    var map = self
    for (old, new) in replacements {
      let oldLocation = try SafePath.absolute(old.utf8)
      let newLocation = try SafePath.absolute(new.utf8)
      // Matched against the original locations, so that two tablespaces can swap theirs.
      guard let index = entries.firstIndex(where: { $0.location == oldLocation }) else {
        throw TidemarkError(
          .usage, "the backup has no tablespace at this location", object: old,
          cause: "it has \(entries.isEmpty ? "none" : entries.map(\.location).joined(separator: ", "))")
      }
      map.entries[index].location = newLocation
    }
    guard Set(map.entries.map(\.location)).count == map.entries.count else {
      throw TidemarkError(
        .usage, "two tablespaces would share a location", next: "give each tablespace a directory of its own")
    }
    return map
  }

  private static func invalid(_ cause: String) -> TidemarkError {
    TidemarkError(.streamInvalid, "cannot read the tablespace map", object: "tablespace_map", cause: cause)
  }
}
