// Sealing and opening whole objects. Opening checks, in this order: structure, name and kind, writer, signature, key,
// and for each frame its digest, its tag and its length. Nothing is handed out that didn't pass.
// docs/repository-format.md has the format.
import Diagnostics
import SystemSupport

package enum SealedObject {
  package static let framePlaintextByteCountMax = 1 << 20

  /// What binds a frame to its place: kind, number, codec and the digest of the signed header, which has the name.
  static func associatedData(
    _ kind: ObjectKind, frame: Int, _ codec: FrameCodec, headerDigest: SHA256Digest
  ) -> [UInt8] {
    var bytes = [kind.rawValue]
    bytes.append(bigEndian: UInt64(frame))
    bytes.append(codec.rawValue)
    return bytes + headerDigest.bytes
  }

  /// Seals `plaintext` as one object, in pieces.
  /// - Parameters:
  ///   - level: zstd's.
  ///   - created: Unix microseconds.
  ///   - attributes: found out on this thread while others compress.
  ///   - follow: is given the object's pieces, one after the other, as they are done.
  /// - Throws: also what `attributes` and `follow` throw.
  package static func seal(
    kind: ObjectKind, name: String, plaintext: UnsafeRawBufferPointer, recipients: [RecipientPublicKey],
    writer: WriterKey, level: Int, created: Int64, attributes: () throws(TidemarkError) -> SealedAttributes,
    follow: ([UInt8]) throws(TidemarkError) -> Void = { _ in }
  ) throws(TidemarkError) -> [[UInt8]] {
    var frames = try FramesAhead(plaintext, level: level)
    var object = try SealedObjectWriter(
      kind: kind, name: name, created: created, recipients: recipients, writer: writer, attributes: try attributes())
    frames.seal(with: object.sealer)
    for header in object.pieces { try follow(header) }
    while let frame = try frames.next() {
      try object.append(frame)
      try follow(frame.bytes)
    }
    let pieces = try object.finish()
    for footer in pieces.suffix(1) { try follow(footer) }
    return pieces
  }

  /// Seals `plaintext` as one object whose attributes are known.
  package static func seal(
    kind: ObjectKind, name: String, plaintext: [UInt8], recipients: [RecipientPublicKey], writer: WriterKey,
    attributes: SealedAttributes = SealedAttributes(), level: Int, created: Int64
  ) throws(TidemarkError) -> [UInt8] {
    try plaintext.withUnsafeBufferPointer { buffer throws(TidemarkError) in
      try seal(
        kind: kind, name: name, plaintext: UnsafeRawBufferPointer(buffer), recipients: recipients, writer: writer,
        level: level, created: created, attributes: { () throws(TidemarkError) in attributes }
      ).inOnePiece()
    }
  }

  /// Checks structure, name, writer, signature and every frame's digest: all that can be known without an identity.
  /// - Throws: `object-damaged`, `format-version-unknown`, `writer-not-trusted`, `signature-invalid`.
  @discardableResult
  package static func verify(
    _ bytes: [UInt8], expectedName: String, expectedKind: ObjectKind? = nil, trustedWriters: [WriterPublicKey]
  ) throws(TidemarkError) -> VerifiedObject {
    let verified = try structure(
      head: bytes, tail: bytes[...], byteCount: bytes.count, expectedName, expectedKind, trustedWriters)
    try bytes.withUnsafeBufferPointer { buffer throws(TidemarkError) in
      for index in verified.footer.frames.indices {
        let range = try verified.storedRange(frame: index)
        try verified.check(
          frame: index, stored: UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(buffer)[range]))
      }
    }
    return verified
  }

  /// Checks the object and unwraps its key. Frames are checked as they are read.
  /// - Parameter rewrapped: asked for the key of an object whose header no identity opens; `nil` when it has none.
  /// - Throws: as ``verify(_:expectedName:expectedKind:trustedWriters:)``, `no-key-opens`, and what `rewrapped` throws.
  package static func open(
    _ bytes: [UInt8], expectedName: String, expectedKind: ObjectKind, trustedWriters: [WriterPublicKey],
    identities: [Identity], rewrapped: (SealedHeader) throws(TidemarkError) -> DataKey? = { _ in nil }
  ) throws(TidemarkError) -> OpenedObject {
    let verified = try structure(
      head: bytes, tail: bytes[...], byteCount: bytes.count, expectedName, expectedKind, trustedWriters)
    return OpenedObject(bytes: bytes, unlocked: try verified.unlock(identities, rewrapped: rewrapped))
  }

  /// Checks head and end of an object whose frames are fetched one by one, by ranged reads.
  ///
  /// - Parameters:
  ///   - head: the first bytes, at least the header: ``SealedHeader/prefixByteCountMax`` always suffices.
  ///   - tail: the last bytes, at least the footer: ``SealedFooter/byteCount(endingWith:)`` says how many that are.
  ///   - byteCount: the object's length, as the store tells it; `nil` for what its end says, which then has to prove true
  ///     with the frames.
  /// - Throws: as ``verify(_:expectedName:expectedKind:trustedWriters:)``.
  package static func verify(
    head: [UInt8], tail: [UInt8], byteCount: Int?, expectedName: String, expectedKind: ObjectKind? = nil,
    trustedWriters: [WriterPublicKey]
  ) throws(TidemarkError) -> VerifiedObject {
    try structure(
      head: head, tail: tail[...], byteCount: byteCount, expectedName, expectedKind, trustedWriters)
  }

  private static func structure(
    head: [UInt8], tail: ArraySlice<UInt8>, byteCount: Int?, _ name: String, _ kind: ObjectKind?,
    _ trusted: [WriterPublicKey]
  ) throws(TidemarkError) -> VerifiedObject {
    do throws(TidemarkError) {
      guard head.count <= byteCount ?? head.count, tail.count <= byteCount ?? tail.count else {
        throw TidemarkError(.objectDamaged, "the object is shorter than what was read of it")
      }
      let header = try SealedHeader.parse(head)
      let footerByteCount = try SealedFooter.byteCount(endingWith: Array(tail.suffix(SealedFooter.trailerByteCount)))
      let framesEnd = byteCount.map { $0 - footerByteCount }
      guard framesEnd ?? header.byteCount >= header.byteCount else {
        throw TidemarkError(.objectDamaged, "header and footer overlap")
      }
      guard tail.count >= footerByteCount else { throw TidemarkError(.objectDamaged, "the footer is cut short") }
      let footer = try SealedFooter.parse(
        tail.suffix(footerByteCount), framesOffset: header.byteCount, framesEnd: framesEnd)
      guard header.name == name else {
        throw TidemarkError(.objectDamaged, "another object stands here", cause: "its header names \(header.name)")
      }
      guard kind == nil || header.kind == kind else {
        throw TidemarkError(
          .objectDamaged, "an object of another kind stands here", cause: "its header says \(header.kind)")
      }
      guard let writer = trusted.first(where: { $0.id == header.writer }) else {
        throw TidemarkError(
          .writerNotTrusted, "the object's writer is not trusted", cause: "it is signed by writer \(header.writer)",
          next: "if that writer is yours, add its public key to encryption.trusted-writers")
      }
      let message = SealedFooter.message(header: header.signedBytes, footer: footer.signedBytes)
      guard writer.verifies(footer.signature, message) else {
        throw TidemarkError(.signatureInvalid, "the object's signature is wrong")
      }
      if let said = header.attributes.plaintextByteCount, said != UInt64(footer.plaintextByteCount) {
        throw TidemarkError(
          .objectDamaged, "header and footer disagree about the plaintext's length",
          cause: "\(said) and \(footer.plaintextByteCount) bytes")
      }
      return VerifiedObject(header: header, footer: footer, headerDigest: SHA256Digest.of(header.signedBytes))
    } catch { throw error.with(object: name) }
  }
}
