// How keys are written: a prefix that says what it is, and base32 (RFC 4648, lower case, no padding) of the 32 bytes and
// a checksum, so that a typing error is found.
import Diagnostics

enum KeyText {
  private static let alphabet = Array("abcdefghijklmnopqrstuvwxyz234567".utf8)
  private static let checksumByteCount = 4
  /// 36 bytes in base32.
  private static let characterCount = 58

  static func encode(_ prefix: String, _ key: [UInt8]) -> String {
    precondition(key.count == 32)
    let bytes = key + checksum(prefix, key)
    var text: [UInt8] = []
    var buffer: UInt32 = 0
    var bits = 0
    for byte in bytes {
      buffer = buffer << 8 | UInt32(byte)
      bits += 8
      while bits >= 5 {
        bits -= 5
        text.append(alphabet[Int(buffer >> UInt32(bits)) & 31])
      }
    }
    if bits > 0 { text.append(alphabet[Int(buffer << UInt32(5 - bits)) & 31]) }
    return prefix + String(decoding: text, as: UTF8.self)
  }

  /// The 32 bytes of a key of the kind that `prefix` names.
  /// - Throws: `key-file-invalid`. The text itself is never part of the error: it may be a secret.
  static func decode(_ text: String, prefix: String, what: String) throws(TidemarkError) -> [UInt8] {
    // A writer's secret begins like a writer's public key, so the secrets come first.
    let kinds = [
      (Identity.prefix, "an identity's secret"), (WriterKey.prefix, "a writer's secret"),
      (RecipientPublicKey.prefix, "a recipient's public key"), (WriterPublicKey.prefix, "a writer's public key"),
    ]
    let found = kinds.first { text.hasPrefix($0.0) }
    guard let found, found.0 == prefix else {
      throw TidemarkError(
        .keyFileInvalid, "expected \(what), found \(found?.1 ?? "something else")", next: "it begins with '\(prefix)'")
    }
    guard text.utf8.count == prefix.utf8.count + characterCount else {
      throw TidemarkError(
        .keyFileInvalid, "\(what) has a wrong length",
        cause: "\(text.utf8.count - prefix.utf8.count) characters after the prefix, expected \(characterCount)")
    }
    var bytes: [UInt8] = []
    var buffer: UInt32 = 0
    var bits = 0
    for character in text.utf8.dropFirst(prefix.utf8.count) {
      guard let value = alphabet.firstIndex(of: character) else {
        throw TidemarkError(.keyFileInvalid, "\(what) has a character that no key has")
      }
      buffer = (buffer << 5 | UInt32(value)) & 0xFFFF
      bits += 5
      if bits >= 8 {
        bits -= 8
        bytes.append(UInt8(truncatingIfNeeded: buffer >> UInt32(bits)))
      }
    }
    let key = Array(bytes.prefix(32))
    // The last character has two bits that mean nothing: one key has one text.
    guard buffer & (1 << UInt32(bits) - 1) == 0, Array(bytes.suffix(checksumByteCount)) == checksum(prefix, key) else {
      throw TidemarkError(.keyFileInvalid, "\(what) has a typing error: its checksum doesn't fit")
    }
    return key
  }

  private static func checksum(_ prefix: String, _ key: [UInt8]) -> [UInt8] {
    Array(SHA256Digest.of(Array(prefix.utf8) + key).bytes.prefix(checksumByteCount))
  }
}
