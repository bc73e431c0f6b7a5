// Builds one sealed object in memory, frame by frame. Compression happens elsewhere, on as many threads as there are; here
// frames are sealed in order. Memory is the object's own bytes, once. It refuses more frames than readers accept.
import Diagnostics
import SystemSupport

package struct SealedObjectWriter: ~Copyable {
  private let writer: WriterKey
  private let signedHeader: [UInt8]
  private let headerDigest: SHA256Digest
  private let kind: ObjectKind
  private let key: DataKey
  private let cipher: FrameCipher
  private var bytes: [UInt8]
  private var frames: [FrameDescription] = []

  /// - Parameters:
  ///   - name: the object's key below the repository's prefix, 1,024 bytes at most.
  ///   - created: Unix microseconds.
  ///   - recipients: who can open it; the same key twice counts once.
  ///   - reservedByteCount: the memory to set aside at once, footer included.
  /// - Throws: `configuration-invalid` unless there are 1 to 64 recipients, `key-file-invalid` for one that is no key.
  package init(
    kind: ObjectKind, name: String, created: Int64, recipients: [RecipientPublicKey], writer: WriterKey,
    attributes: SealedAttributes = SealedAttributes(), reservedByteCount: Int
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
    let cipher = try FrameCipher()
    self.kind = kind
    self.writer = writer
    self.key = key
    self.cipher = cipher
    signedHeader = signed
    headerDigest = digest
    bytes = []
    bytes.reserveCapacity(max(reservedByteCount, header.count))
    bytes += header
  }

  /// Bytes so far, without the footer.
  package var storedByteCount: Int { bytes.count }
  package var frameCount: Int { frames.count }

  /// What came behind the first `count` bytes so far. It doesn't change any more.
  func withBytes(
    after count: Int, _ body: (UnsafeRawBufferPointer) throws(TidemarkError) -> Void
  ) throws(TidemarkError) {
    try bytes.withUnsafeBufferPointer { buffer throws(TidemarkError) in
      try body(UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(buffer)[count...]))
    }
  }

  /// Seals the next frame and returns its number. After an error the object is as before.
  /// - Parameters:
  ///   - content: the frame's plaintext as `codec` made it.
  ///   - plaintextByteCount: 1…``SealedObject/framePlaintextByteCountMax``.
  /// - Throws: `internal-fault` when the object is full, or from libcrypto.
  package mutating func appendFrame(
    codec: FrameCodec, _ content: UnsafeRawBufferPointer, plaintextByteCount: Int
  ) throws(TidemarkError) -> Int {
    precondition((1...SealedObject.framePlaintextByteCountMax).contains(plaintextByteCount))
    precondition(codec == .stored ? content.count == plaintextByteCount : content.count < plaintextByteCount)
    let number = frames.count
    guard number < SealedFooter.frameCountMax else {
      throw TidemarkError(.internalFault, "an object has too many frames", cause: "\(number)")
    }
    let offset = bytes.count
    bytes.populate(content.count + FrameCipher.tagByteCount)
    bytes.append(contentsOf: content)
    for _ in 0..<FrameCipher.tagByteCount { bytes.append(0) }
    let associated = SealedObject.associatedData(kind, frame: number, codec, headerDigest: headerDigest)
    do throws(TidemarkError) {
      let digest = try bytes.withUnsafeMutableBufferPointer { buffer throws(TidemarkError) in
        let stored = UnsafeMutableRawBufferPointer(rebasing: UnsafeMutableRawBufferPointer(buffer)[offset...])
        try cipher.seal(
          key, nonce: FrameCipher.nonce(number), associated: associated,
          inPlace: UnsafeMutableRawBufferPointer(rebasing: stored[..<content.count]),
          tag: UnsafeMutableRawBufferPointer(rebasing: stored[content.count...]))
        return SHA256Digest.of(UnsafeRawBufferPointer(stored))
      }
      frames.append(
        FrameDescription(
          codec: codec, offset: offset, storedByteCount: bytes.count - offset, plaintextByteCount: plaintextByteCount,
          digest: digest))
    } catch {
      bytes.removeLast(bytes.count - offset)
      throw error
    }
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
