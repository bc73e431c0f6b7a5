// Builds one sealed object in memory, frame by frame.
import Diagnostics

package struct SealedObjectWriter: ~Copyable {
  private let writer: WriterKey
  private let signedHeader: [UInt8]
  private let headerDigest: SHA256Digest
  private let kind: ObjectKind
  private let cipher: FrameCipher
  private var bytes: [UInt8]
  private var frames: [FrameDescription] = []

  /// - Parameter reservedByteCount: the memory to set aside at once.
  package init(
    kind: ObjectKind, name: String, created: Int64, recipients: [RecipientPublicKey], writer: WriterKey,
    attributes: SealedAttributes = SealedAttributes(), reservedByteCount: Int
  ) throws(TidemarkError) {
    guard !recipients.isEmpty else {
      throw TidemarkError(
        .configurationInvalid, "there is no recipient to seal to", next: "set encryption.recipients")
    }
    let signed = SealedHeader.signedBytes(
      kind: kind, name: name, created: created, writer: writer.publicKey.id, attributes: attributes)
    let digest = SHA256Digest.of(signed)
    let key = DataKey()
    var wrapped: [WrappedKey] = []
    for recipient in recipients { wrapped.append(try key.wrap(for: recipient, headerDigest: digest)) }
    let sealer = try FrameCipher(key: key.bytes, sealing: true)
    self.kind = kind
    self.writer = writer
    signedHeader = signed
    headerDigest = digest
    cipher = sealer
    bytes = []
    bytes.reserveCapacity(reservedByteCount)
    bytes += SealedHeader.encode(signedBytes: signed, wrappedKeys: wrapped)
  }

  /// Bytes so far, without the footer.
  package var storedByteCount: Int { bytes.count }
  package var frameCount: Int { frames.count }

  /// Seals the next frame and returns its number.
  /// - Parameters:
  ///   - content: the frame's plaintext as `codec` made it.
  ///   - plaintextByteCount: 1…``SealedObject/framePlaintextByteCountMax``.
  package mutating func appendFrame(
    codec: FrameCodec, _ content: UnsafeRawBufferPointer, plaintextByteCount: Int
  ) throws(TidemarkError) -> Int {
    precondition((1...SealedObject.framePlaintextByteCountMax).contains(plaintextByteCount))
    precondition(frames.count < SealedFooter.frameCountMax)
    let number = frames.count
    let offset = bytes.count
    bytes.append(contentsOf: content)
    for _ in 0..<FrameCipher.tagByteCount { bytes.append(0) }
    let associated = SealedObject.associatedData(kind, frame: number, codec, headerDigest)
    var failure: TidemarkError?
    let digest: SHA256Digest? = bytes.withUnsafeMutableBytes { buffer in
      let stored = UnsafeMutableRawBufferPointer(rebasing: buffer[offset...])
      let body = UnsafeMutableRawBufferPointer(rebasing: stored[..<content.count])
      let tag = UnsafeMutableRawBufferPointer(rebasing: stored[content.count...])
      do throws(TidemarkError) {
        try cipher.seal(UInt64(number), associated, inPlace: body, tag: tag)
      } catch {
        failure = error
        return nil
      }
      return SHA256Digest.of(UnsafeRawBufferPointer(stored))
    }
    guard let digest else { throw failure ?? TidemarkError(.internalFault, "cannot seal a frame") }
    frames.append(
      FrameDescription(
        codec: codec, offset: offset, storedByteCount: bytes.count - offset, plaintextByteCount: plaintextByteCount,
        digest: digest))
    return number
  }

  /// The finished object.
  package consuming func finish() throws(TidemarkError) -> [UInt8] {
    let footer = SealedFooter.encode(frames)
    let signature = try writer.sign(SealedFooter.message(header: signedHeader, footer: footer))
    bytes += footer
    bytes += signature
    bytes.append(bigEndian: UInt32(footer.count + signature.count + SealedFooter.trailerByteCount))
    bytes += SealedFooter.magic
    return bytes
  }
}
