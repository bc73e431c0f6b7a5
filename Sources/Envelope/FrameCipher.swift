// AES-256-GCM (NIST SP 800-38D) of frames, in place, through libcrypto. A data key seals one object, each frame number
// once, so no nonce is ever used twice.
import CLibcrypto
import Diagnostics

/// Seals and opens the frames of one object.
struct FrameCipher: ~Copyable {
  static let tagByteCount = 16
  private let context: OpaquePointer
  private let sealing: Bool

  /// - Parameter key: 32 bytes.
  init(key: [UInt8], sealing: Bool) throws(TidemarkError) {
    precondition(key.count == 32)
    guard let context = EVP_CIPHER_CTX_new() else { throw cryptoError("cannot make a cipher context") }
    guard EVP_CipherInit_ex(context, EVP_aes_256_gcm(), nil, key, nil, sealing ? 1 : 0) == 1 else {
      EVP_CIPHER_CTX_free(context)
      throw cryptoError("cannot set the data key")
    }
    self.context = context
    self.sealing = sealing
  }

  deinit { EVP_CIPHER_CTX_free(context) }

  /// The nonce of frame `number`: four zero bytes and the number, big-endian.
  private func begin(_ number: UInt64, _ associated: [UInt8]) throws(TidemarkError) {
    var nonce = [UInt8](repeating: 0, count: 12)
    for index in 0..<8 { nonce[4 + index] = UInt8(truncatingIfNeeded: number >> UInt64(56 - index * 8)) }
    var written: Int32 = 0
    guard EVP_CipherInit_ex(context, nil, nil, nil, nonce, sealing ? 1 : 0) == 1,
      EVP_CipherUpdate(context, nil, &written, associated, Int32(associated.count)) == 1
    else { throw cryptoError("cannot begin a frame") }
  }

  /// Encrypts `bytes` in place and writes the tag to `tag`.
  func seal(
    _ number: UInt64, _ associated: [UInt8], inPlace bytes: UnsafeMutableRawBufferPointer,
    tag: UnsafeMutableRawBufferPointer
  ) throws(TidemarkError) {
    precondition(sealing && tag.count == Self.tagByteCount)
    try begin(number, associated)
    let pointer = bytes.baseAddress?.assumingMemoryBound(to: UInt8.self)
    var written: Int32 = 0
    var scratch: [UInt8] = [0]
    guard EVP_CipherUpdate(context, pointer, &written, pointer, Int32(bytes.count)) == 1,
      written == bytes.count, EVP_CipherFinal_ex(context, &scratch, &written) == 1,
      EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, Int32(Self.tagByteCount), tag.baseAddress) == 1
    else { throw cryptoError("cannot seal a frame") }
  }

  /// Decrypts `bytes` into `output`; `false` when the tag doesn't fit, and `output` must then not be used.
  func open(
    _ number: UInt64, _ associated: [UInt8], _ bytes: UnsafeRawBufferPointer, tag: UnsafeRawBufferPointer,
    into output: UnsafeMutableRawBufferPointer
  ) throws(TidemarkError) -> Bool {
    precondition(!sealing && tag.count == Self.tagByteCount && output.count >= bytes.count)
    try begin(number, associated)
    var written: Int32 = 0
    var scratch: [UInt8] = [0]
    guard
      EVP_CipherUpdate(
        context, output.baseAddress?.assumingMemoryBound(to: UInt8.self), &written,
        bytes.baseAddress?.assumingMemoryBound(to: UInt8.self), Int32(bytes.count)) == 1,
      EVP_CIPHER_CTX_ctrl(
        context, EVP_CTRL_AEAD_SET_TAG, Int32(Self.tagByteCount), UnsafeMutableRawPointer(mutating: tag.baseAddress))
        == 1
    else { throw cryptoError("cannot open a frame") }
    let fits = EVP_CipherFinal_ex(context, &scratch, &written) == 1
    ERR_clear_error()
    return fits
  }
}
