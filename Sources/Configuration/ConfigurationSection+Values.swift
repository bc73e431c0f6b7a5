// The kinds of values that several keys share: names, paths, numbers, durations and public strings of keys.

extension ConfigurationSection {
  /// A required name that can stand in an object's key: letters, digits, `.`, `_` and `-`, at most 64.
  func name(_ key: String) -> String {
    let text = requiredText(key)
    if has(key), !Self.isKeyComponent(text) || text.utf8.count > 64 {
      refuse(key, "is not a valid name: use letters, digits, '.', '_' and '-' alone, at most 64 of them")
    }
    return text
  }

  func absolutePath(_ key: String) -> String? {
    value(key) { text throws(Refusal) in
      if !text.hasPrefix("/") { throw Refusal("is not an absolute path: begin with '/'") }
      return text
    }
  }

  func absolutePaths(_ key: String) -> [String] {
    texts(key).map { element in
      if !element.text.hasPrefix("/") {
        problems.add(element.path, line: element.line, "is not an absolute path: begin with '/'")
      }
      return element.text
    }
  }

  func number(_ key: String, in range: ClosedRange<Int>) -> Int? {
    value(key) { text throws(Refusal) in
      guard !text.isEmpty, let number = Quantities.wholeNumber(text), range.contains(number) else {
        throw Refusal("is not a whole number from \(range.lowerBound) to \(range.upperBound)")
      }
      return number
    }
  }

  func flag(_ key: String) -> Bool? {
    value(key) { text throws(Refusal) in
      switch text {
      case "true": return true
      case "false": return false
      default: throw Refusal("is neither true nor false")
      }
    }
  }

  /// A duration of at least one millisecond.
  func positiveDuration(_ key: String) -> Duration? {
    value(key) { text throws(Refusal) in
      let duration = try Quantities.duration(text)
      if duration == .zero { throw Refusal("must be longer than nothing") }
      return duration
    }
  }

  /// A list of the public halves of keys. What isn't one isn't repeated: it could be the private half.
  func publicStrings(_ key: String, prefix: String) -> [String] {
    texts(key).map { element in
      if element.text.contains("-secret-") {
        problems.add(
          element.path, line: element.line,
          "is a private key: remove it here, keep it in a file of mode 0600, and consider it known to others")
      } else if !element.text.hasPrefix(prefix) {
        problems.add(element.path, line: element.line, "is not a public string: it must begin with '\(prefix)'")
      }
      return element.text
    }
  }

  /// The rule of `ObjectKey` for one component.
  static func isKeyComponent(_ text: some StringProtocol) -> Bool {
    !text.isEmpty && text != "." && text != ".."
      && text.utf8.allSatisfy { byte in
        (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte) || byte == 0x2E
          || byte == 0x5F || byte == 0x2D
      }
  }
}
