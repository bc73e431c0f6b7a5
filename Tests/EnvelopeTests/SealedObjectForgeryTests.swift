// Forgery: whoever can write to the bucket, holds recipients' keys, or even an identity, can't make an object that opens.
import Crypto
import Diagnostics
import Testing

@testable import Envelope

@Suite("Forged objects")
struct SealedObjectForgeryTests {
  let fixture: SealedFixture

  init() throws { fixture = try SealedFixture() }

  /// An object as somebody makes it who knows `key`, with `writer`'s name in the header, signed by `signer`.
  private func forge(
    _ plaintext: [UInt8], header original: [UInt8], key: DataKey, signer: WriterKey
  ) throws -> [UInt8] {
    let header = try SealedHeader.parse(original)
    let sealer = FrameSealer(
      kind: header.kind, headerDigest: SHA256Digest.of(header.signedBytes), key: key)
    let frame = try plaintext.withUnsafeBytes {
      try sealer.seal(0, .stored, $0, plaintextByteCount: $0.count, with: try FrameCipher())
    }
    let footer = SealedFooter.encode([
      FrameDescription(
        codec: .stored, offset: 0, storedByteCount: frame.bytes.count, plaintextByteCount: plaintext.count,
        digest: frame.digest)
    ])
    let signature = try signer.sign(SealedFooter.message(header: header.signedBytes, footer: footer))
    var forged = original[..<header.byteCount] + frame.bytes + footer + signature
    forged.append(contentsOf: [0, 0, 0, UInt8(footer.count + signature.count + 12)])
    return forged + SealedFooter.magic
  }

  @Test("the forgery of these tests is right but for the signer: signed by the writer it opens")
  func forgeryIsWellMade() throws {
    let sealed = try fixture.seal([[1, 2, 3]])
    let key = try fixture.verify(sealed).unlock([fixture.identity]).key
    let made = try forge([9, 9, 9], header: sealed, key: key, signer: fixture.writer)
    #expect(try fixture.open(made) == [9, 9, 9])
  }

  @Test("an identity's thief knows the data key and still can't change a frame")
  func identityThief() throws {
    let sealed = try fixture.seal([[1, 2, 3]])
    let key = try fixture.verify(sealed).unlock([fixture.identity]).key
    let forged = try forge([9, 9, 9], header: sealed, key: key, signer: try WriterKey())
    #expect(code { _ = try fixture.open(forged) } == .signatureInvalid)
    #expect(code { _ = try fixture.verify(forged) } == .signatureInvalid)
    // With the true footer, the frame's digest tells.
    let footer = sealed[try fixture.verify(sealed).storedRange(frame: 0).upperBound...]
    let body = forged[..<(forged.count - footer.count)]
    #expect(code { _ = try fixture.open(Array(body + footer)) } == .objectDamaged)
  }

  @Test("whoever knows the recipients makes objects of their own, and is not trusted")
  func untrustedWriter() throws {
    let stranger = try WriterKey()
    let sealed = try SealedObject.seal(
      kind: .walSegment, name: SealedFixture.name, plaintext: [1], recipients: [fixture.identity.recipient],
      writer: stranger, level: 1, created: 0)
    let error = #expect(throws: TidemarkError.self) { try fixture.open(sealed) }
    #expect(error?.code == .writerNotTrusted)
    #expect(error?.cause?.contains(stranger.publicKey.id.description) == true)
    // Trust is given to keys, one or several, and to nobody by default.
    for (trusted, expected) in [
      ([], ErrorCode.writerNotTrusted), ([fixture.writer.publicKey, stranger.publicKey], nil),
    ] as [([WriterPublicKey], ErrorCode?)] {
      #expect(
        code {
          try SealedObject.verify(sealed, expectedName: SealedFixture.name, trustedWriters: trusted)
        } == expected)
    }
  }

  @Test("a stranger who names a trusted writer in the header is found by the signature")
  func impersonation() throws {
    let stranger = try WriterKey()
    let signed = try SealedHeader.signedBytes(
      kind: .walSegment, name: SealedFixture.name, created: 0, writer: fixture.writer.publicKey.id,
      attributes: SealedAttributes())
    let digest = SHA256Digest.of(signed)
    let key = DataKey()
    let header = try SealedHeader.encode(
      signedBytes: signed, headerDigest: digest,
      wrappedKeys: [try key.wrap(for: fixture.identity.recipient, headerDigest: digest)])
    let forged = try forge([1], header: header, key: key, signer: stranger)
    #expect(code { _ = try fixture.open(forged) } == .signatureInvalid)
  }

  @Test("a wrapped key of one object doesn't open in another")
  func movedWrappedKey() throws {
    let first = try fixture.seal([[1]], name: "crm/7301/wal/first")
    let second = try fixture.seal([[1]], name: "crm/7301/wal/other")
    let digest = SHA256Digest.of(try SealedHeader.parse(second).signedBytes)
    // Even with a list whose own digest fits: what binds the key is HPKE's associated data.
    let header = try SealedHeader.encode(
      signedBytes: try SealedHeader.parse(second).signedBytes, headerDigest: digest,
      wrappedKeys: try SealedHeader.parse(first).wrappedKeys)
    let moved = header + second[try SealedHeader.parse(second).byteCount...]
    let error = #expect(throws: TidemarkError.self) { try fixture.open(moved, name: "crm/7301/wal/other") }
    #expect(error?.summary == "the wrapped data key doesn't open")
  }

  @Test("keys are wrapped anew for another recipient without touching frames or signature")
  func rewrapping() throws {
    let sealed = try fixture.seal([[1, 2, 3]])
    let object = try fixture.verify(sealed).unlock([fixture.identity])
    let successor = Identity()
    let digest = object.verified.headerDigest
    let header = try SealedHeader.encode(
      signedBytes: object.verified.header.signedBytes, headerDigest: digest,
      wrappedKeys: try [fixture.identity, successor, Identity()].map {
        try object.key.wrap(for: $0.recipient, headerDigest: digest)
      })
    let rewrapped = header + sealed[object.verified.header.byteCount...]
    let opened = try SealedObject.open(
      rewrapped, expectedName: SealedFixture.name, expectedKind: .walSegment,
      trustedWriters: [fixture.writer.publicKey], identities: [successor])
    #expect(try opened.readAll(limit: 10) == [1, 2, 3])
  }

  @Test("a list of wrapped keys that rotted is found without an identity")
  func rottenList() throws {
    var sealed = try fixture.seal([[1]], recipients: [fixture.identity.recipient, Identity().recipient])
    sealed[try SealedHeader.parse(sealed).byteCount - 40] ^= 1
    let error = #expect(throws: TidemarkError.self) { try fixture.verify(sealed) }
    #expect(error?.summary == "the list of wrapped keys is damaged")
  }
}
