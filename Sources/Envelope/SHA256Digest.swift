// SHA-256 (FIPS 180-4) through libcrypto, which uses the CPU's instructions.
import CLibcrypto
import Diagnostics

/// 32 bytes of SHA-256.
package struct SHA256Digest: Hashable, Sendable {
  package let bytes: [UInt8]

  /// - Throws: `object-damaged` unless there are 32 bytes.
  package init(_ bytes: [UInt8]) throws(TidemarkError) {
    guard bytes.count == 32 else { throw TidemarkError(.objectDamaged, "a digest of \(bytes.count) bytes") }
    self.bytes = bytes
  }

  fileprivate init(unchecked bytes: [UInt8]) { self.bytes = bytes }

  package static func of(_ bytes: [UInt8]) -> SHA256Digest { bytes.withUnsafeBytes(of) }

  package static func of(_ bytes: UnsafeRawBufferPointer) -> SHA256Digest {
    SHA256Digest(
      unchecked: [UInt8](unsafeUninitializedCapacity: 32) { buffer, count in
        var length: UInt32 = 0
        let status = EVP_Digest(bytes.baseAddress, bytes.count, buffer.baseAddress, &length, EVP_sha256(), nil)
        // libcrypto's one-shot digest fails only when memory is exhausted.
        precondition(status == 1 && length == 32, "SHA-256 failed")
        count = 32
      })
  }

  package var hexadecimal: String { hexadecimalText(bytes) }
}

/// Lower-case hexadecimal digits.
package func hexadecimalText(_ bytes: some Sequence<UInt8>) -> String {
  let digits = Array("0123456789abcdef".utf8)
  var text: [UInt8] = []
  for byte in bytes {
    text.append(digits[Int(byte >> 4)])
    text.append(digits[Int(byte & 15)])
  }
  return String(decoding: text, as: UTF8.self)
}

/// SHA-256 of many buffers with one context.
package struct SHA256Hasher: ~Copyable {
  private let context: OpaquePointer
  private let algorithm: OpaquePointer

  package init() throws(TidemarkError) {
    guard let context = EVP_MD_CTX_new() else { throw cryptoError("cannot make a digest context") }
    // Fetched once: the implicit fetch of EVP_sha256() at each start costs more than a small block's digest.
    guard let algorithm = EVP_MD_fetch(nil, "SHA256", nil) else {
      EVP_MD_CTX_free(context)
      throw cryptoError("cannot find SHA-256")
    }
    self.context = context
    self.algorithm = algorithm
  }

  deinit {
    EVP_MD_CTX_free(context)
    EVP_MD_free(algorithm)
  }

  /// Begins a digest that comes in pieces.
  package mutating func begin() throws(TidemarkError) {
    guard EVP_DigestInit_ex2(context, algorithm, nil) == 1 else { throw cryptoError("cannot digest") }
  }

  package mutating func update(_ bytes: UnsafeRawBufferPointer) throws(TidemarkError) {
    guard EVP_DigestUpdate(context, bytes.baseAddress, bytes.count) == 1 else { throw cryptoError("cannot digest") }
  }

  package mutating func finish() throws(TidemarkError) -> SHA256Digest {
    var digest = [UInt8](repeating: 0, count: 32)
    guard EVP_DigestFinal_ex(context, &digest, nil) == 1 else { throw cryptoError("cannot digest") }
    return SHA256Digest(unchecked: digest)
  }

  /// Appends the first `count` bytes of the digest of `bytes` to `output`.
  package mutating func appendDigest(
    of bytes: UnsafeRawBufferPointer, prefix count: Int, to output: inout [UInt8]
  ) throws(TidemarkError) {
    var digest: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
    let status = withUnsafeMutableBytes(of: &digest) { buffer in
      EVP_DigestInit_ex2(context, algorithm, nil) == 1
        && EVP_DigestUpdate(context, bytes.baseAddress, bytes.count) == 1
        && EVP_DigestFinal_ex(context, buffer.baseAddress?.assumingMemoryBound(to: UInt8.self), nil) == 1
    }
    guard status else { throw cryptoError("cannot digest") }
    withUnsafeBytes(of: &digest) { output.append(contentsOf: $0.prefix(count)) }
  }
}

/// The error for a failed call of libcrypto, with its own words.
func cryptoError(_ doing: String) -> TidemarkError {
  var text = [CChar](repeating: 0, count: 256)
  let code = ERR_get_error()
  ERR_error_string_n(code, &text, text.count)
  ERR_clear_error()
  let words = text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
  return TidemarkError(.internalFault, doing, cause: code == 0 ? nil : String(decoding: words, as: UTF8.self))
}
