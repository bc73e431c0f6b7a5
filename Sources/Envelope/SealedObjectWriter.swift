// Builds one sealed object in memory, frame by frame. Compression happens elsewhere, on as many threads as there are, and
// sealing wherever it fits; here frames are put in order. Memory is the object's own bytes, once, each frame's where it was
// sealed. It refuses more frames than readers accept.
import Diagnostics
import SystemSupport

package struct SealedObjectWriter: ~Copyable {
  /// Seals this object's frames.
  let sealer: FrameSealer
  private let writer: WriterKey
  private let signedHeader: [UInt8]
  private let cipher: FrameCipher
  /// The header and the frames.
  private(set) var pieces: [[UInt8]]
  private var frames: [FrameDescription] = []
  /// Bytes so far, without the footer.
  package private(set) var storedByteCount: Int

  /// - Parameters:
  ///   - name: the object's key below the repository's prefix, 1,024 bytes at most.
  ///   - created: Unix microseconds.
  ///   - recipients: who can open it; the same key twice counts once.
  /// - Throws: `configuration-invalid` unless there are 1 to 64 recipients, `key-file-invalid` for one that is no key.
  package init(
    kind: ObjectKind, name: String, created: Int64, recipients: [RecipientPublicKey], writer: WriterKey,
    attributes: SealedAttributes = SealedAttributes()
  ) throws(TidemarkError) {
    let signed = try SealedHeader.signedBytes(
      kind: kind, name: name, created: created, writer: writer.publicKey.id, attributes: attributes)
    let digest = SHA256Digest.of(signed)
    let key = DataKey()
    var wrapped: [WrappedKey] = []
    for recipient in recipients where !wrapped.contains(where: { $0.recipient == recipient.id }) {
      wrapped.append(try key.wrap(for: recipient, headerDigest: digest))
    }
    let header = try SealedHeader.encode(signedBytes: signed, headerDigest: digest, wrappedKeys: wrapped)
    cipher = try FrameCipher()
    sealer = FrameSealer(kind: kind, headerDigest: digest, key: key)
    self.writer = writer
    signedHeader = signed
    pieces = [header]
    storedByteCount = header.count
  }

  package var frameCount: Int { frames.count }

  /// Seals the next frame and returns its number. After an error the object is as before.
  /// - Parameters: as of ``FrameSealer/seal(_:_:_:plaintextByteCount:with:)``.
  /// - Throws: `internal-fault` when the object is full, or from libcrypto.
  package mutating func appendFrame(
    codec: FrameCodec, _ content: UnsafeRawBufferPointer, plaintextByteCount: Int
  ) throws(TidemarkError) -> Int {
    let number = frames.count
    try append(sealer.seal(number, codec, content, plaintextByteCount: plaintextByteCount, with: cipher))
    return number
  }

  /// Takes the next frame, which ``sealer`` sealed.
  /// - Throws: `internal-fault` when the object is full.
  mutating func append(_ frame: SealedFrame) throws(TidemarkError) {
    precondition(frame.number == frames.count)
    guard frames.count < SealedFooter.frameCountMax else {
      throw TidemarkError(.internalFault, "an object has too many frames", cause: "\(frames.count)")
    }
    frames.append(
      FrameDescription(
        codec: frame.codec, offset: storedByteCount, storedByteCount: frame.bytes.count,
        plaintextByteCount: frame.plaintextByteCount, digest: frame.digest))
    pieces.append(frame.bytes)
    storedByteCount += frame.bytes.count
  }

  /// The finished object: the header, the frames and the footer, one after the other.
  package consuming func finish() throws(TidemarkError) -> [[UInt8]] {
    var footer = SealedFooter.encode(frames)
    let signature = try writer.sign(SealedFooter.message(header: signedHeader, footer: footer))
    let byteCount = footer.count + signature.count + SealedFooter.trailerByteCount
    footer += signature
    footer.append(bigEndian: UInt32(byteCount))
    footer += SealedFooter.magic
    return pieces + [footer]
  }
}
