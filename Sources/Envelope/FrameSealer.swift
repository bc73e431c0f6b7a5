// Seals the frames of one object, on any thread: each into memory of its own, which is sent from there.
import Diagnostics
import SystemSupport

/// A frame as it is stored.
package struct SealedFrame: Sendable {
  let number: Int
  let codec: FrameCodec
  let plaintextByteCount: Int
  /// With the tag.
  let bytes: [UInt8]
  /// Of `bytes`.
  let digest: SHA256Digest
}

/// What binds frames to their object: its kind, its header and its key.
struct FrameSealer: Sendable {
  let kind: ObjectKind
  let headerDigest: SHA256Digest
  let key: DataKey

  /// - Parameters:
  ///   - number: of each number one frame alone is sealed.
  ///   - content: the frame's plaintext as `codec` made it.
  ///   - plaintextByteCount: 1…``SealedObject/framePlaintextByteCountMax``.
  /// - Throws: `internal-fault` from libcrypto.
  func seal(
    _ number: Int, _ codec: FrameCodec, _ content: UnsafeRawBufferPointer, plaintextByteCount: Int,
    with cipher: borrowing FrameCipher
  ) throws(TidemarkError) -> SealedFrame {
    precondition((1...SealedObject.framePlaintextByteCountMax).contains(plaintextByteCount))
    precondition(codec == .stored ? content.count == plaintextByteCount : content.count < plaintextByteCount)
    let associated = SealedObject.associatedData(kind, frame: number, codec, headerDigest: headerDigest)
    let bytes = try [UInt8].populated(content.count + FrameCipher.tagByteCount) { output throws(TidemarkError) in
      try cipher.seal(key, nonce: FrameCipher.nonce(number), associated: associated, content, into: output)
    }
    return SealedFrame(
      number: number, codec: codec, plaintextByteCount: plaintextByteCount, bytes: bytes, digest: SHA256Digest.of(bytes)
    )
  }
}
