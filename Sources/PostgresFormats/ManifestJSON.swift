// The JSON of a backup manifest's lines: flat objects of strings and whole numbers, which is all that the server
// writes (src/backend/backup/backup_manifest.c). Everything else of JSON is refused, and so is a repeated key.

/// One line of a backup manifest, an object without nested values.
struct ManifestJSON {
  enum Value: Equatable {
    /// The bytes of a string, unescaped. Not always UTF-8.
    case string([UInt8])
    /// A whole number's digits.
    case number(UInt64)
  }

  /// A handful of keys: a search beats a dictionary.
  private var members: [(key: [UInt8], value: Value)] = []

  var keys: [String] { members.map { String(decoding: $0.key, as: UTF8.self) } }

  subscript(key: String) -> Value? { members.first { $0.key.elementsEqual(key.utf8) }?.value }

  func string(_ key: String) -> [UInt8]? { if case .string(let bytes)? = self[key] { bytes } else { nil } }
  func number(_ key: String) -> UInt64? { if case .number(let value)? = self[key] { value } else { nil } }

  /// Parses `{ "key": value, … }` and nothing after it; nil for anything else.
  init?(object text: ArraySlice<UInt8>) {
    var cursor = Cursor(text)
    guard cursor.take("{") else { return nil }
    if !cursor.take("}") {
      repeat {
        guard let member = cursor.member(), self[utf8: member.key] == nil else { return nil }
        members.append(member)
      } while cursor.take(",")
      guard cursor.take("}") else { return nil }
    }
    guard cursor.isAtEnd else { return nil }
  }

  /// Parses `"key": value` and nothing after it; nil for anything else.
  static func member(_ text: ArraySlice<UInt8>) -> (key: [UInt8], value: Value)? {
    var cursor = Cursor(text)
    guard let member = cursor.member(), cursor.isAtEnd else { return nil }
    return member
  }

  private subscript(utf8 key: [UInt8]) -> Value? { members.first { $0.key == key }?.value }
}

extension ManifestJSON {
  /// A position in the text.
  private struct Cursor {
    private var rest: ArraySlice<UInt8>

    init(_ text: ArraySlice<UInt8>) { rest = text }

    private mutating func skipBlanks() {
      rest = rest.drop { $0 == 0x20 || $0 == 0x09 || $0 == 0x0A || $0 == 0x0D }
    }

    var isAtEnd: Bool { rest.allSatisfy { $0 == 0x20 || $0 == 0x09 || $0 == 0x0A || $0 == 0x0D } }

    mutating func take(_ symbol: Unicode.Scalar) -> Bool {
      skipBlanks()
      guard rest.first == UInt8(ascii: symbol) else { return false }
      rest.removeFirst()
      return true
    }

    mutating func member() -> (key: [UInt8], value: Value)? {
      guard let key = string(), take(":"), let value = value() else { return nil }
      return (key, value)
    }

    private mutating func value() -> Value? {
      skipBlanks()
      if rest.first == UInt8(ascii: "\"") { return string().map { .string($0) } }
      let digits = rest.prefix { $0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9") }
      guard let number: UInt64 = decimalNumber(digits) else { return nil }
      rest = rest.dropFirst(digits.count)
      return .number(number)
    }

    /// A string with the escapes of RFC 8259, section 7.
    private mutating func string() -> [UInt8]? {
      guard take("\"") else { return nil }
      var bytes: [UInt8] = []
      while let byte = rest.popFirst() {
        switch byte {
        case UInt8(ascii: "\""): return bytes
        case 0..<0x20: return nil
        case UInt8(ascii: "\\"):
          guard let escaped = rest.popFirst(), append(escaped, to: &bytes) else { return nil }
        default: bytes.append(byte)
        }
      }
      return nil
    }

    private mutating func append(_ escaped: UInt8, to bytes: inout [UInt8]) -> Bool {
      switch escaped {
      case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): bytes.append(escaped)
      case UInt8(ascii: "b"): bytes.append(0x08)
      case UInt8(ascii: "f"): bytes.append(0x0C)
      case UInt8(ascii: "n"): bytes.append(0x0A)
      case UInt8(ascii: "r"): bytes.append(0x0D)
      case UInt8(ascii: "t"): bytes.append(0x09)
      case UInt8(ascii: "u"):
        guard let scalar = unicodeScalar() else { return false }
        bytes.append(contentsOf: UTF8.encode(scalar)!)  // A Unicode.Scalar always has a UTF-8 form.
      default: return false
      }
      return true
    }

    private mutating func unicodeScalar() -> Unicode.Scalar? {
      guard let first = codeUnit() else { return nil }
      guard (0xD800..<0xE000).contains(first) else { return Unicode.Scalar(first) }
      guard first < 0xDC00, rest.popFirst() == UInt8(ascii: "\\"), rest.popFirst() == UInt8(ascii: "u"),
        let second = codeUnit(), (0xDC00..<0xE000).contains(second)
      else { return nil }
      return Unicode.Scalar(0x10000 + (first - 0xD800) << 10 + (second - 0xDC00))
    }

    private mutating func codeUnit() -> UInt32? {
      let digits = rest.prefix(4)
      guard digits.count == 4, let unit = hexadecimalNumber(digits) else { return nil }
      rest = rest.dropFirst(4)
      return unit
    }
  }
}
