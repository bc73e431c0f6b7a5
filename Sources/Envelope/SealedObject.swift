// Sealing and opening whole objects. Opening checks, in this order: structure, kind and name, writer, signature, key,
// and for each frame its digest, its tag and its length. Nothing is handed out that didn't pass.
import Diagnostics

package enum SealedObject {
  package static let framePlaintextByteCountMax = 1 << 20
  /// A compressed frame is never longer than what it was made from.
  static let frameStoredByteCountMax = framePlaintextByteCountMax + FrameCipher.tagByteCount

  static func associatedData(
    _ kind: ObjectKind, frame: Int, _ codec: FrameCodec, _ headerDigest: SHA256Digest
  ) -> [UInt8] {
    var bytes = [kind.rawValue]
    bytes.append(bigEndian: UInt64(frame))
    bytes.append(codec.rawValue)
    return bytes + headerDigest.bytes
  }

  /// Seals `plaintext` as one object.
  package static func seal(
    kind: ObjectKind, name: String, plaintext: [UInt8], recipients: [RecipientPublicKey], writer: WriterKey,
    attributes: SealedAttributes = SealedAttributes(), level: Int, created: Int64
  ) throws(TidemarkError) -> [UInt8] {
    var object = try SealedObjectWriter(
      kind: kind, name: name, created: created, recipients: recipients, writer: writer, attributes: attributes,
      reservedByteCount: plaintext.count / 2 + (64 << 10))
    var compressor = try FrameCompressor()
    let output = UnsafeMutableRawBufferPointer.allocate(
      byteCount: FrameCompressor.outputByteCountMax(min(plaintext.count, framePlaintextByteCountMax)), alignment: 64)
    defer { output.deallocate() }
    var offset = 0
    while offset < plaintext.count {
      let count = min(framePlaintextByteCountMax, plaintext.count - offset)
      var failure: TidemarkError?
      plaintext.withUnsafeBytes { buffer in
        let input = UnsafeRawBufferPointer(rebasing: buffer[offset..<offset + count])
        do throws(TidemarkError) {
          let (codec, size) = try compressor.compress(input, into: output, level: level)
          let content = codec == .stored ? input : UnsafeRawBufferPointer(rebasing: output[..<size])
          _ = try object.appendFrame(codec: codec, content, plaintextByteCount: count)
        } catch { failure = error }
      }
      if let failure { throw failure }
      offset += count
    }
    return try object.finish()
  }

  /// Checks structure, name, writer, signature and every frame's digest: what can be known without an identity.
  /// - Throws: `object-damaged`, `format-version-unknown`, `writer-not-trusted`, `signature-invalid`.
  @discardableResult
  package static func verify(
    _ bytes: [UInt8], expectedName: String, expectedKind: ObjectKind? = nil, trustedWriters: [WriterPublicKey]
  ) throws(TidemarkError) -> (header: SealedHeader, footer: SealedFooter) {
    let (header, footer) = try structure(bytes, expectedName, expectedKind, trustedWriters)
    for index in footer.frames.indices { try checkDigest(bytes, footer, index, expectedName) }
    return (header, footer)
  }

  /// Checks the object and unwraps its key. Frames are checked as they are read.
  /// - Throws: as ``verify(_:expectedName:expectedKind:trustedWriters:)``, and `no-key-opens`.
  package static func open(
    _ bytes: [UInt8], expectedName: String, expectedKind: ObjectKind, trustedWriters: [WriterPublicKey],
    identities: [Identity]
  ) throws(TidemarkError) -> OpenedObject {
    let (header, footer) = try structure(bytes, expectedName, expectedKind, trustedWriters)
    return OpenedObject(bytes: bytes, header: header, footer: footer, key: try DataKey.unwrap(header, identities))
  }

  private static func structure(
    _ bytes: [UInt8], _ name: String, _ kind: ObjectKind?, _ trusted: [WriterPublicKey]
  ) throws(TidemarkError) -> (SealedHeader, SealedFooter) {
    do throws(TidemarkError) {
      let header = try SealedHeader.parse(bytes)
      let footerCount = try SealedFooter.byteCount(endingWith: Array(bytes.suffix(SealedFooter.trailerByteCount)))
      let framesEnd = bytes.count - footerCount
      guard framesEnd >= header.byteCount else { throw TidemarkError(.objectDamaged, "header and footer overlap") }
      let footer = try SealedFooter.parse(bytes[framesEnd...], framesOffset: header.byteCount, framesEnd: framesEnd)
      guard header.name == name else {
        throw TidemarkError(.objectDamaged, "another object stands here", cause: "its header names \(header.name)")
      }
      guard kind == nil || header.kind == kind else {
        throw TidemarkError(.objectDamaged, "an object of another kind stands here", cause: "\(header.kind)")
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
      return (header, footer)
    } catch { throw error.with(object: name) }
  }

  fileprivate static func checkDigest(
    _ bytes: [UInt8], _ footer: SealedFooter, _ index: Int, _ name: String
  ) throws(TidemarkError) {
    let frame = footer.frames[index]
    let digest = bytes.withUnsafeBytes { buffer in
      SHA256Digest.of(
        UnsafeRawBufferPointer(rebasing: buffer[frame.offset..<frame.offset + frame.storedByteCount]))
    }
    guard digest == frame.digest else {
      throw TidemarkError(.objectDamaged, "frame \(index) is damaged", object: name, cause: "its digest is wrong")
    }
  }
}

/// An object whose head, end and signature were checked and whose key is known.
package struct OpenedObject: Sendable {
  private let bytes: [UInt8]
  package let header: SealedHeader
  package let footer: SealedFooter
  private let key: DataKey

  fileprivate init(bytes: [UInt8], header: SealedHeader, footer: SealedFooter, key: DataKey) {
    self.bytes = bytes
    self.header = header
    self.footer = footer
    self.key = key
  }

  package var plaintextByteCount: Int { footer.plaintextByteCount }

  /// All of the plaintext.
  /// - Throws: `object-damaged`, also when there are more than `limit` bytes.
  package func readAll(limit: Int) throws(TidemarkError) -> [UInt8] {
    let total = plaintextByteCount
    guard total <= limit else {
      throw TidemarkError(
        .objectDamaged, "the object is larger than expected", object: header.name, cause: "\(total) bytes")
    }
    var reader = try FrameReader(self)
    var failure: TidemarkError?
    let plaintext = [UInt8](unsafeUninitializedCapacity: total) { buffer, count in
      do throws(TidemarkError) {
        for index in footer.frames.indices {
          let size = footer.frames[index].plaintextByteCount
          try reader.read(
            index,
            into: UnsafeMutableRawBufferPointer(rebasing: UnsafeMutableRawBufferPointer(buffer)[count..<count + size]))
          count += size
        }
      } catch { failure = error }
    }
    if let failure { throw failure }
    return plaintext
  }

  /// Opens the frames of one object, with reused contexts and buffer.
  package struct FrameReader: ~Copyable {
    private let object: OpenedObject
    private let headerDigest: SHA256Digest
    private let cipher: FrameCipher
    private var decompressor: FrameDecompressor
    private let scratch: UnsafeMutableRawBufferPointer

    package init(_ object: OpenedObject) throws(TidemarkError) {
      // Both first: a value that can't be copied must be whole or not at all when this throws.
      let opener = try FrameCipher(key: object.key.bytes, sealing: false)
      let expander = try FrameDecompressor()
      self.object = object
      headerDigest = SHA256Digest.of(object.header.signedBytes)
      cipher = opener
      decompressor = expander
      scratch = .allocate(byteCount: SealedObject.frameStoredByteCountMax, alignment: 64)
    }

    deinit { scratch.deallocate() }

    /// Fills `output`, which has the frame's plaintext length, with frame `index`.
    /// - Throws: `object-damaged`; `output` is then not to be used.
    package mutating func read(
      _ index: Int, into output: UnsafeMutableRawBufferPointer
    ) throws(TidemarkError) {
      let frame = object.footer.frames[index]
      precondition(output.count == frame.plaintextByteCount)
      try SealedObject.checkDigest(object.bytes, object.footer, index, object.header.name)
      let associated = SealedObject.associatedData(object.header.kind, frame: index, frame.codec, headerDigest)
      let count = frame.storedByteCount - FrameCipher.tagByteCount
      let target = frame.codec == .stored ? output : UnsafeMutableRawBufferPointer(rebasing: scratch[..<count])
      var outcome: Result<Bool, TidemarkError> = .success(false)
      object.bytes.withUnsafeBytes { buffer in
        let stored = UnsafeRawBufferPointer(rebasing: buffer[frame.offset..<frame.offset + frame.storedByteCount])
        outcome = Result { () throws(TidemarkError) in
          try cipher.open(
            UInt64(index), associated, UnsafeRawBufferPointer(rebasing: stored[..<count]),
            tag: UnsafeRawBufferPointer(rebasing: stored[count...]), into: target)
        }
      }
      guard try outcome.get() else {
        throw TidemarkError(.objectDamaged, "frame \(index) doesn't open", object: object.header.name)
      }
      if frame.codec == .zstd {
        do throws(TidemarkError) { try decompressor.decompress(UnsafeRawBufferPointer(target), into: output) } catch {
          throw error.with(object: object.header.name)
        }
      }
    }
  }
}
