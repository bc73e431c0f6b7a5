// Opens frames of sealed objects: the stored bytes' digest against the signed footer, then the tag, then the exact
// length. Nothing reaches the caller that didn't pass; after a refusal the output holds nothing of the frame.
import CLibcrypto
import Diagnostics

/// Contexts and a buffer for opening frames, reused for any number of frames and objects. One for each thread.
package struct FrameOpener: ~Copyable {
  private let cipher: FrameCipher
  private var decompressor: FrameDecompressor
  private let scratch: UnsafeMutableRawBufferPointer

  package init() throws(TidemarkError) {
    // Both first: a value that can't be copied must be whole or not at all when this throws.
    let cipher = try FrameCipher()
    let decompressor = try FrameDecompressor()
    self.cipher = cipher
    self.decompressor = decompressor
    scratch = .allocate(byteCount: SealedObject.framePlaintextByteCountMax, alignment: 64)
  }

  deinit { scratch.deallocate() }

  /// Fills `output`, which has the frame's plaintext length, with frame `index` of `object`.
  /// - Parameter stored: the frame's stored bytes with the tag, ``VerifiedObject/storedRange(frame:)`` of the object.
  /// - Throws: `object-damaged`.
  package mutating func open(
    _ object: UnlockedObject, frame index: Int, stored: UnsafeRawBufferPointer,
    into output: UnsafeMutableRawBufferPointer
  ) throws(TidemarkError) {
    let head = object.verified
    let frame = try head.frame(index)
    guard output.count == frame.plaintextByteCount else {
      throw TidemarkError(
        .objectDamaged, "frame \(index) hasn't the length that was expected", object: head.header.name,
        cause: "\(frame.plaintextByteCount) bytes, expected \(output.count)")
    }
    try head.check(frame: index, stored: stored)
    let count = stored.count - FrameCipher.tagByteCount
    let associated = SealedObject.associatedData(
      head.header.kind, frame: index, frame.codec, headerDigest: head.headerDigest)
    // The footer's parser lets no frame be longer than its plaintext, so a stored one fits `output` exactly and a
    // compressed one fits the scratch.
    let target = frame.codec == .stored ? output : UnsafeMutableRawBufferPointer(rebasing: scratch[..<count])
    let fits = try cipher.open(
      object.key, nonce: FrameCipher.nonce(index), associated: associated,
      UnsafeRawBufferPointer(rebasing: stored[..<count]), tag: UnsafeRawBufferPointer(rebasing: stored[count...]),
      into: target)
    guard fits else {
      throw TidemarkError(.objectDamaged, "frame \(index) doesn't open", object: head.header.name)
    }
    guard frame.codec == .zstd else { return }
    do throws(TidemarkError) { try decompressor.decompress(UnsafeRawBufferPointer(target), into: output) } catch {
      if let start = output.baseAddress { OPENSSL_cleanse(start, output.count) }
      throw error.with(object: head.header.name)
    }
  }
}
