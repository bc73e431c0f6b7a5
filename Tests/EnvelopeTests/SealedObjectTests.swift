// Round trips of sealed objects, their recipients, and reads of single frames.
import Diagnostics
import TestSupport
import Testing

@testable import Envelope

@Suite("Sealed objects")
struct SealedObjectTests {
  let fixture: SealedFixture

  init() throws { fixture = try SealedFixture() }

  static let mebibyte = SealedObject.framePlaintextByteCountMax

  @Test("any length comes back, compressed or not", arguments: [0, 1, 100, mebibyte - 1, mebibyte, mebibyte + 1])
  func lengths(count: Int) throws {
    var numbers = SeededNumbers(4)
    for plaintext in [numbers.bytes(count), [UInt8](repeating: 65, count: count)] {
      let sealed = try SealedObject.seal(
        kind: .walSegment, name: SealedFixture.name, plaintext: plaintext, recipients: [fixture.identity.recipient],
        writer: fixture.writer, level: 1, created: 5)
      #expect(try fixture.open(sealed) == plaintext)
      let verified = try fixture.verify(sealed)
      #expect(verified.plaintextByteCount == count)
      #expect(verified.footer.frames.count == (count + Self.mebibyte - 1) / Self.mebibyte)
    }
  }

  @Test("many frames of both codecs and of any size come back one by one and in any order")
  func manyFrames() throws {
    var numbers = SeededNumbers(5)
    let frames = (0..<200).map { index in
      let count = Int.random(in: 1...3000, using: &numbers)
      return index % 2 == 0 ? numbers.bytes(count) : [UInt8](repeating: UInt8(index), count: count)
    }
    let sealed = try fixture.seal(frames)
    #expect(try fixture.open(sealed) == frames.flatMap { $0 })
    let object = try SealedObject.open(
      sealed, expectedName: SealedFixture.name, expectedKind: .walSegment, trustedWriters: [fixture.writer.publicKey],
      identities: [fixture.identity])
    #expect(Set(object.footer.frames.map(\.codec)) == [.stored, .zstd])
    var reader = try OpenedObject.FrameReader(object)
    for index in frames.indices.shuffled(using: &numbers) {
      var output = [UInt8](repeating: 0, count: frames[index].count)
      try output.withUnsafeMutableBytes { try reader.read(index, into: $0) }
      #expect(output == frames[index])
    }
  }

  @Test("a frame that doesn't exist, or a buffer of another length, is an error and no crash")
  func wrongFrame() throws {
    let object = try SealedObject.open(
      try fixture.seal([[1, 2, 3]]), expectedName: SealedFixture.name, expectedKind: .walSegment,
      trustedWriters: [fixture.writer.publicKey], identities: [fixture.identity])
    var reader = try OpenedObject.FrameReader(object)
    for (index, count) in [(1, 3), (-1, 3), (Int.max, 3), (0, 2), (0, 4)] {
      var output = [UInt8](repeating: 0, count: count)
      #expect(throws: TidemarkError.self) { try output.withUnsafeMutableBytes { try reader.read(index, into: $0) } }
    }
  }

  @Test("the header says in clear what was put there, and nothing of the plaintext shows")
  func header() throws {
    var attributes = SealedAttributes()
    let plaintext = Array("the quick brown fox".utf8)
    attributes.plaintextDigest = SHA256Digest.of(plaintext)
    attributes.plaintextByteCount = 19
    attributes.latestCommit = 1_700_000_000_000_001
    attributes.earliestCommit = -1
    attributes.unknown = [200: [1, 2, 3]]
    let sealed = try fixture.seal([plaintext], kind: .walTail, attributes: attributes)
    let header = try SealedHeader.parse(sealed)
    #expect(header.kind == .walTail)
    #expect(header.name == SealedFixture.name)
    #expect(header.created == 1_700_000_000_000_000)
    #expect(header.writer == fixture.writer.publicKey.id)
    #expect(header.recipients == [fixture.identity.recipient.id])
    #expect(header.attributes == attributes)
    #expect(try SealedHeader.byteCount(beginningWith: Array(sealed.prefix(20))) == header.byteCount)
    #expect(try fixture.open(sealed, kind: .walTail) == plaintext)
    #expect(!sealed.indices.contains { sealed[$0...].starts(with: "quick".utf8) })
  }

  @Test("sealing the same twice gives other bytes: data keys are never reused")
  func freshKeys() throws {
    let first = try fixture.seal([[1, 2, 3]])
    let second = try fixture.seal([[1, 2, 3]])
    let frame = try fixture.verify(first).storedRange(frame: 0)
    #expect(first[frame] != second[frame])
  }

  @Test("each of several recipients opens it, nobody else does, and the refusal names whom it is sealed to")
  func recipients() throws {
    let others = [Identity(), Identity()]
    let keys = [fixture.identity] + others
    // A recipient that is configured twice counts once.
    let sealed = try fixture.seal([[42]], recipients: keys.map(\.recipient) + [keys[0].recipient])
    #expect(try SealedHeader.parse(sealed).recipients == keys.map(\.recipient.id))
    func open(_ identities: [Identity]) throws -> [UInt8] {
      try SealedObject.open(
        sealed, expectedName: SealedFixture.name, expectedKind: .walSegment,
        trustedWriters: [fixture.writer.publicKey], identities: identities
      ).readAll(limit: 100)
    }
    for key in keys { #expect(try open([Identity(), key]) == [42]) }
    for identities in [[], [Identity()]] {
      let error = #expect(throws: TidemarkError.self) { try open(identities) }
      #expect(error?.code == .noKeyOpens)
      for key in keys { #expect(error?.cause?.contains(key.recipient.id.description) == true) }
    }
  }

  @Test("no recipient, or more than readers accept, is refused before anything is sealed")
  func recipientCount() throws {
    for count in [0, SealedHeader.recipientCountMax + 1] {
      let recipients = (0..<count).map { _ in Identity().recipient }
      #expect(code { _ = try fixture.seal([[1]], recipients: recipients) } == .configurationInvalid)
    }
    let most = (0..<SealedHeader.recipientCountMax).map { _ in Identity() }
    let sealed = try fixture.seal([[1]], recipients: most.map(\.recipient))
    #expect(try SealedHeader.parse(sealed).byteCount <= SealedHeader.prefixByteCountMax)
  }

  @Test("a writer without an identity opens what is sealed to itself, and no pack")
  func writerAlone() throws {
    let both = [fixture.identity.recipient, fixture.writer.ownRecipient]
    let table = try fixture.seal([[1]], kind: .fileTable, recipients: both)
    let manifest = try fixture.seal([[2]], kind: .manifest, recipients: both)
    let pack = try fixture.seal([[3]], kind: .pack)
    func open(_ sealed: [UInt8], _ kind: ObjectKind, _ identity: Identity) throws -> [UInt8] {
      try SealedObject.open(
        sealed, expectedName: SealedFixture.name, expectedKind: kind, trustedWriters: [fixture.writer.publicKey],
        identities: [identity]
      ).readAll(limit: 100)
    }
    #expect(try open(table, .fileTable, fixture.writer.ownIdentity) == [1])
    #expect(try open(manifest, .manifest, fixture.writer.ownIdentity) == [2])
    #expect(code { _ = try open(pack, .pack, fixture.writer.ownIdentity) } == .noKeyOpens)
    #expect(try open(pack, .pack, fixture.identity) == [3])
  }

  @Test("a reader that knows its limit doesn't take more")
  func limit() throws {
    let object = try SealedObject.open(
      try fixture.seal([[UInt8](repeating: 0, count: 5000)]), expectedName: SealedFixture.name,
      expectedKind: .walSegment, trustedWriters: [fixture.writer.publicKey], identities: [fixture.identity])
    #expect(try object.readAll(limit: 5000).count == 5000)
    #expect(code { _ = try object.readAll(limit: 4999) } == .objectDamaged)
  }

  @Test("pieces come in order; what the sink throws and a wrong digest of the whole end the reading")
  func pieces() throws {
    var numbers = SeededNumbers(7)
    let frames = (0..<64).map { _ in numbers.bytes(Int.random(in: 1...2000, using: &numbers)) }
    let plaintext = frames.flatMap { $0 }
    var attributes = SealedAttributes()
    attributes.plaintextByteCount = UInt64(plaintext.count)
    func object(_ digest: SHA256Digest) throws -> OpenedObject {
      attributes.plaintextDigest = digest
      return try SealedObject.open(
        try fixture.seal(frames, attributes: attributes), expectedName: SealedFixture.name,
        expectedKind: .walSegment, trustedWriters: [fixture.writer.publicKey], identities: [fixture.identity])
    }
    let good = try object(SHA256Digest.of(plaintext))
    var pieces: [[UInt8]] = []
    try good.read(limit: plaintext.count) { pieces.append(Array($0)) }
    #expect(pieces == frames)
    // Threads that are ahead end with the reading.
    var taken = 0
    #expect(
      code {
        try good.read(limit: plaintext.count) { (_) throws(TidemarkError) in
          taken += 1
          if taken == 3 { throw TidemarkError(.localIO, "the disk is full") }
        }
      } == .localIO)
    #expect(taken == 3)
    let bad = try object(SHA256Digest.of([1]))
    #expect(code { try bad.read(limit: plaintext.count) { _ in } } == .objectDamaged)
    #expect(code { _ = try bad.readAll(limit: plaintext.count) } == .objectDamaged)
  }

  @Test("frames are fetched and opened one by one, with head, end and length alone")
  func rangedReads() throws {
    var numbers = SeededNumbers(6)
    let frames = [numbers.bytes(5000), [UInt8](repeating: 1, count: 9000), numbers.bytes(10)]
    let sealed = try fixture.seal(frames)
    let footerByteCount = try SealedFooter.byteCount(endingWith: Array(sealed.suffix(12)))
    func verify(head: Int, tail: Int, byteCount: Int) throws -> VerifiedObject {
      try SealedObject.verify(
        head: Array(sealed.prefix(head)), tail: Array(sealed.suffix(tail)), byteCount: byteCount,
        expectedName: SealedFixture.name, expectedKind: .walSegment, trustedWriters: [fixture.writer.publicKey])
    }
    let headByteCount = try SealedHeader.parse(sealed).byteCount
    let object = try verify(head: headByteCount, tail: footerByteCount, byteCount: sealed.count)
      .unlock([fixture.identity])
    var opener = try FrameOpener()
    for index in [2, 0, 1] {
      let stored = Array(sealed[try object.verified.storedRange(frame: index)])
      var output = [UInt8](repeating: 0, count: frames[index].count)
      try output.withUnsafeMutableBytes { output in
        try stored.withUnsafeBytes { try opener.open(object, frame: index, stored: $0, into: output) }
      }
      #expect(output == frames[index])
      // Another frame's bytes, one byte less, or one that is damaged.
      var damaged = stored
      damaged[damaged.count / 2] ^= 1
      for wrong in [damaged, Array(stored.dropLast()), stored + [0], []] {
        var output = [UInt8](repeating: 0, count: frames[index].count)
        #expect(throws: TidemarkError.self) {
          try output.withUnsafeMutableBytes { output in
            try wrong.withUnsafeBytes { try opener.open(object, frame: index, stored: $0, into: output) }
          }
        }
        #expect(output.allSatisfy { $0 == 0 })
      }
    }
    for (head, tail, byteCount) in [
      (headByteCount - 1, footerByteCount, sealed.count), (headByteCount, footerByteCount - 1, sealed.count),
      (headByteCount, footerByteCount, sealed.count - 1), (headByteCount, footerByteCount, sealed.count + 1),
      (headByteCount, footerByteCount, footerByteCount - 1), (headByteCount, 0, sealed.count),
    ] {
      #expect(code { _ = try verify(head: head, tail: tail, byteCount: byteCount) } == .objectDamaged)
    }
  }
}
