// SHA-256, MD5 and HMAC-SHA-256 by libcrypto, for request signatures and body checks only.
import CLibcrypto
import Diagnostics

enum Digest {
  static func sha256(_ bytes: [UInt8]) throws(TidemarkError) -> [UInt8] { try sha256([bytes]) }
  static func sha256(_ pieces: [[UInt8]]) throws(TidemarkError) -> [UInt8] { try digest(pieces, EVP_sha256(), 32) }

  /// Content-MD5 (RFC 1864): a check against accidents, which every store verifies. Nothing rests on its strength.
  static func md5(_ pieces: [[UInt8]]) throws(TidemarkError) -> [UInt8] { try digest(pieces, EVP_md5(), 16) }

  /// RFC 2104.
  static func hmacSHA256(key: [UInt8], _ message: [UInt8]) throws(TidemarkError) -> [UInt8] {
    var block = key.count > 64 ? try sha256(key) : key
    block += [UInt8](repeating: 0, count: 64 - block.count)
    let inner = try sha256(block.map { $0 ^ 0x36 } + message)
    return try sha256(block.map { $0 ^ 0x5C } + inner)
  }

  private static func digest(
    _ pieces: [[UInt8]], _ algorithm: OpaquePointer?, _ length: Int
  ) throws(TidemarkError) -> [UInt8] {
    var output = [UInt8](repeating: 0, count: length)
    let context = EVP_MD_CTX_new()
    defer { EVP_MD_CTX_free(context) }
    // Without a context the first call fails.
    let isDone =
      EVP_DigestInit_ex(context, algorithm, nil) == 1
      && pieces.allSatisfy { piece in
        piece.withUnsafeBytes { EVP_DigestUpdate(context, $0.baseAddress, $0.count) } == 1
      } && EVP_DigestFinal_ex(context, &output, nil) == 1
    guard isDone else { throw TidemarkError(.internalFault, "libcrypto can't compute a digest") }
    return output
  }
}

extension [UInt8] {
  /// Lower-case hexadecimal digits.
  var hexadecimal: String {
    let digits = Array<UInt8>("0123456789abcdef".utf8)
    var text: [UInt8] = []
    text.reserveCapacity(count * 2)
    for byte in self {
      text.append(digits[Int(byte >> 4)])
      text.append(digits[Int(byte & 15)])
    }
    return String(decoding: text, as: UTF8.self)
  }

  /// RFC 4648 §4, with padding.
  var base64: String {
    let digits = Array<UInt8>("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
    var text: [UInt8] = []
    for start in stride(from: 0, to: count, by: 3) {
      let group = self[start..<Swift.min(start + 3, count)]
      let bits = group.enumerated().reduce(UInt32(0)) { $0 | UInt32($1.element) << UInt32(16 - 8 * $1.offset) }
      for position in 0..<4 {
        let padding = UInt8(ascii: "=")
        text.append(position <= group.count ? digits[Int(bits >> UInt32(18 - 6 * position)) & 63] : padding)
      }
    }
    return String(decoding: text, as: UTF8.self)
  }
}
