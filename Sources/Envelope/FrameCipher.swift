// AES-256-GCM (NIST SP 800-38D) through libcrypto. A data key seals one object, each frame number once, so no nonce is ever
// used twice. Plaintext whose tag doesn't fit is wiped before anybody sees it.
import CLibcrypto
import Diagnostics
import Glibc

/// One cipher context, reused for many frames and keys.
struct FrameCipher: ~Copyable {
  static let keyByteCount = 32
  static let nonceByteCount = 12
  static let tagByteCount = 16
  private let context: OpaquePointer

  init() throws(TidemarkError) {
    guard let context = EVP_CIPHER_CTX_new() else { throw cryptoError("cannot make a cipher context") }
    self.context = context
  }

  // EVP_CIPHER_CTX_free wipes the key schedule.
  deinit { EVP_CIPHER_CTX_free(context) }

  /// The nonce of frame `number`: four zero bytes and the number, big-endian.
  static func nonce(_ number: Int) -> [UInt8] {
    var nonce: [UInt8] = [0, 0, 0, 0]
    nonce.append(bigEndian: UInt64(number))
    return nonce
  }

  /// Encrypts `bytes` into `output`, which has room for the tag behind them and no more.
  func seal(
    _ key: DataKey, nonce: [UInt8], associated: [UInt8], _ bytes: UnsafeRawBufferPointer,
    into output: UnsafeMutableRawBufferPointer
  ) throws(TidemarkError) {
    precondition(output.count == bytes.count + Self.tagByteCount)
    let tag = UnsafeMutableRawBufferPointer(rebasing: output[bytes.count...])
    try begin(key, nonce, associated, sealing: true)
    try update(bytes, into: UnsafeMutableRawBufferPointer(rebasing: output[..<bytes.count]))
    guard try finish(),
      EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, Int32(Self.tagByteCount), tag.baseAddress) == 1
    else { throw cryptoError("cannot seal a frame") }
  }

  /// Decrypts `bytes` into as many bytes of `output`. Returns `false` when the tag doesn't fit; `output` is then zeroes.
  func open(
    _ key: DataKey, nonce: [UInt8], associated: [UInt8], _ bytes: UnsafeRawBufferPointer, tag: UnsafeRawBufferPointer,
    into output: UnsafeMutableRawBufferPointer
  ) throws(TidemarkError) -> Bool {
    precondition(tag.count == Self.tagByteCount && output.count == bytes.count)
    try begin(key, nonce, associated, sealing: false)
    try update(bytes, into: output)
    // The control takes a mutable pointer for both directions; it only reads the tag when setting it.
    let set = UnsafeMutableRawPointer(mutating: tag.baseAddress)
    guard EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, Int32(Self.tagByteCount), set) == 1 else {
      throw cryptoError("cannot open a frame")
    }
    let fits = try finish()
    if !fits, let start = output.baseAddress { OPENSSL_cleanse(start, output.count) }
    return fits
  }

  private func begin(
    _ key: DataKey, _ nonce: [UInt8], _ associated: [UInt8], sealing: Bool
  ) throws(TidemarkError) {
    precondition(nonce.count == Self.nonceByteCount)
    let status = key.withUnsafeBytes { key in
      EVP_CipherInit_ex(
        context, EVP_aes_256_gcm(), nil, key.baseAddress?.assumingMemoryBound(to: UInt8.self), nonce, sealing ? 1 : 0)
    }
    var written: Int32 = 0
    guard status == 1, EVP_CipherUpdate(context, nil, &written, associated, Int32(associated.count)) == 1 else {
      throw cryptoError("cannot begin a frame")
    }
  }

  private func update(
    _ input: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer
  ) throws(TidemarkError) {
    guard !input.isEmpty else { return }
    var written: Int32 = 0
    let status = EVP_CipherUpdate(
      context, output.baseAddress?.assumingMemoryBound(to: UInt8.self), &written,
      input.baseAddress?.assumingMemoryBound(to: UInt8.self), Int32(input.count))
    guard status == 1, written == input.count else { throw cryptoError("cannot encrypt or decrypt a frame") }
  }

  /// Whether the tag fits; always `true` when sealing. GCM writes nothing here, but libcrypto wants a buffer.
  private func finish() throws(TidemarkError) -> Bool {
    var block: (UInt64, UInt64) = (0, 0)
    var written: Int32 = 0
    let status = withUnsafeMutableBytes(of: &block) {
      EVP_CipherFinal_ex(context, $0.baseAddress?.assumingMemoryBound(to: UInt8.self), &written)
    }
    ERR_clear_error()
    return status == 1
  }
}
