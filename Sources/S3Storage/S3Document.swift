// The XML that S3 answers with, read strictly: well-formed elements and text within limits, or an error. No document
// type, no entities but the five of XML and character references, so nothing can expand.
// Why not FoundationXML: docs/decisions/2026-11-24-s3-answers.md.
import Diagnostics

/// An element with its children, or with its text.
package struct S3Element {
  /// Without a namespace prefix.
  var name: String
  /// The text of the element, that of its children left out.
  var text = ""
  var children: [S3Element] = []

  subscript(name: String) -> S3Element? { children.first { $0.name == name } }
  func all(_ name: String) -> [S3Element] { children.filter { $0.name == name } }
  /// The trimmed text of the child `name`.
  func value(_ name: String) -> String? { self[name].map { $0.text.trimmingBlanks } }
}

package struct S3Document {
  private static let depthMax = 16
  /// A page of 1000 keys has some 8 elements each.
  private static let elementCountMax = 50_000

  private var bytes: ArraySlice<UInt8>
  private var elementCount = 0

  /// The root element of `document`; `nil` when it isn't well-formed XML within the limits.
  package static func root(of document: [UInt8]) -> S3Element? {
    var reader = S3Document(bytes: document[...])
    if document.starts(with: [0xEF, 0xBB, 0xBF]) { reader.bytes = document.dropFirst(3) }
    guard reader.skipMiscellany(), let root = reader.element(depth: 0), reader.skipMiscellany(),
      reader.bytes.isEmpty
    else { return nil }
    return root
  }

  /// The root element's name alone: a cheap look at what an answer is.
  static func rootName(of document: [UInt8]) -> String? {
    var reader = S3Document(bytes: document[...])
    if document.starts(with: [0xEF, 0xBB, 0xBF]) { reader.bytes = document.dropFirst(3) }
    guard reader.skipMiscellany(), reader.take("<"), let tag = reader.name() else { return nil }
    return local(tag)
  }

  /// Blanks, comments and processing instructions (the XML declaration among them).
  private mutating func skipMiscellany() -> Bool {
    while true {
      skipBlanks()
      if bytes.starts(with: "<?".utf8) {
        guard skip(past: "?>") else { return false }
      } else if bytes.starts(with: "<!--".utf8) {
        guard skip(past: "-->") else { return false }
      } else {
        return true
      }
    }
  }

  private mutating func element(depth: Int) -> S3Element? {
    elementCount += 1
    guard depth < Self.depthMax, elementCount <= Self.elementCountMax, take("<"), let tag = name() else { return nil }
    var element = S3Element(name: Self.local(tag))
    guard let isEmpty = attributes() else { return nil }
    if isEmpty { return element }
    var text: [UInt8] = []
    while let byte = bytes.first {
      if byte != UInt8(ascii: "<") {
        guard let run = characters() else { return nil }
        text += run
      } else if take("</") {
        guard name() == tag else { return nil }
        skipBlanks()
        guard take(">") else { return nil }
        element.text = String(decoding: text, as: UTF8.self)
        return element
      } else if take("<![CDATA[") {
        let start = bytes
        guard skip(past: "]]>") else { return nil }
        text += start[start.startIndex..<bytes.startIndex - 3]
      } else if bytes.starts(with: "<!--".utf8) {
        guard skip(past: "-->") else { return nil }
      } else if bytes.starts(with: "<?".utf8) {
        guard skip(past: "?>") else { return nil }
      } else {
        guard let child = self.element(depth: depth + 1) else { return nil }
        element.children.append(child)
      }
    }
    return nil
  }

  /// Skips the attributes and the tag's end. Returns whether the element is empty (`/>`).
  private mutating func attributes() -> Bool? {
    while true {
      let hadBlank = skipBlanks()
      if take("/>") { return true }
      if take(">") { return false }
      guard hadBlank, name() != nil else { return nil }
      skipBlanks()
      guard take("=") else { return nil }
      skipBlanks()
      guard let quote = bytes.popFirst(), quote == UInt8(ascii: "\"") || quote == UInt8(ascii: "'"),
        let end = bytes.firstIndex(of: quote)
      else { return nil }
      bytes = bytes[(end + 1)...]
    }
  }

  private mutating func name() -> [UInt8]? {
    let name = bytes.prefix { byte in
      switch byte {
      case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"),
        UInt8(ascii: ":"), 0x80...0xFF:
        true
      default: false
      }
    }
    guard !name.isEmpty else { return nil }
    bytes = bytes[name.endIndex...]
    return Array(name)
  }

  /// Text up to the next `<`, with references replaced.
  private mutating func characters() -> [UInt8]? {
    var run = bytes.prefix { $0 != UInt8(ascii: "<") }
    bytes = bytes[run.endIndex...]
    guard run.contains(UInt8(ascii: "&")) else { return Array(run) }
    var text: [UInt8] = []
    while let byte = run.popFirst() {
      guard byte == UInt8(ascii: "&") else {
        text.append(byte)
        continue
      }
      guard let end = run.prefix(12).firstIndex(of: UInt8(ascii: ";")),
        let character = Self.reference(String(decoding: run[run.startIndex..<end], as: UTF8.self))
      else { return nil }
      text += Array(String(character).utf8)
      run = run[(end + 1)...]
    }
    return text
  }

  private static func reference(_ name: String) -> Unicode.Scalar? {
    switch name {
    case "amp": return "&"
    case "lt": return "<"
    case "gt": return ">"
    case "quot": return "\""
    case "apos": return "'"
    default:
      guard name.hasPrefix("#") else { return nil }
      let digits = name.dropFirst()
      let value = digits.hasPrefix("x") ? UInt32(digits.dropFirst(), radix: 16) : UInt32(digits)
      return value.flatMap { $0 == 0 ? nil : Unicode.Scalar($0) }
    }
  }

  private static func local(_ tag: [UInt8]) -> String {
    let name = tag.lastIndex(of: UInt8(ascii: ":")).map { tag[($0 + 1)...] } ?? tag[...]
    return String(decoding: name, as: UTF8.self)
  }

  private mutating func take(_ text: StaticString) -> Bool {
    text.withUTF8Buffer { expected in
      guard bytes.starts(with: expected) else { return false }
      bytes = bytes.dropFirst(expected.count)
      return true
    }
  }

  @discardableResult
  private mutating func skipBlanks() -> Bool {
    let rest = bytes.drop { $0 == 0x20 || $0 == 0x09 || $0 == 0x0A || $0 == 0x0D }
    defer { bytes = rest }
    return rest.count < bytes.count
  }

  private mutating func skip(past text: StaticString) -> Bool {
    while !bytes.isEmpty {
      if take(text) { return true }
      bytes = bytes.dropFirst()
    }
    return false
  }
}

extension String {
  fileprivate var trimmingBlanks: String {
    let isBlank = { (character: Character) in character == " " || character.isNewline || character == "\t" }
    var rest = drop(while: isBlank)
    while let last = rest.last, isBlank(last) { rest.removeLast() }
    return String(rest)
  }
}
