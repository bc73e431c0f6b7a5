// The format holds: a reader written from docs/repository-format.md alone, on other libraries, opens what is sealed
// here, and an object sealed when the format was made opens for ever.
import Diagnostics
import SystemSupport
import TestSupport
import Testing

@testable import Envelope

@Suite("The format of sealed objects")
struct IndependentReaderTests {
  /// Runs `scripts/open-sealed-object` with the test servers' Python, which has `cryptography`.
  private func open(
    _ sealed: [UInt8], _ secret: String, _ writers: [WriterPublicKey], name: String = SealedFixture.name,
    rewrap: (name: String, bytes: [UInt8])? = nil
  ) throws -> ProgramOutcome {
    let directory = try TemporaryDirectory()
    try DurableFile.write(sealed, to: "\(directory.path)/object")
    try DurableFile.write(Array("# a comment\n\(secret)\n".utf8), to: "\(directory.path)/key")
    if let rewrap { try DurableFile.write(rewrap.bytes, to: "\(directory.path)/rewrap") }
    return try ChildProcess.run(
      try TestTools.program("python"),
      ["\(TestTools.packageRoot)/scripts/open-sealed-object"]
        + (rewrap.map { ["--rewrap", "\(directory.path)/rewrap", $0.name] } ?? [])
        + ["\(directory.path)/object", name, "\(directory.path)/key"]
        + writers.map(\.description), deadline: .after(.seconds(60)))
  }

  @Test("a reader by the document alone opens stored and compressed frames, of all recipients")
  func independentReader() throws {
    let fixture = try SealedFixture()
    var numbers = SeededNumbers(10)
    let frames = [
      numbers.bytes(5000), [UInt8](repeating: 1, count: SealedObject.framePlaintextByteCountMax), numbers.bytes(1),
    ]
    let plaintext = frames.flatMap { $0 }
    var attributes = SealedAttributes()
    attributes.plaintextByteCount = UInt64(plaintext.count)
    attributes.plaintextDigest = SHA256Digest.of(plaintext)
    attributes.latestCommit = 7
    let second = Identity()
    let sealed = try fixture.seal(
      frames, attributes: attributes,
      recipients: [fixture.identity.recipient, second.recipient, fixture.writer.ownRecipient])
    for secret in [fixture.identity.secretText, second.secretText, fixture.writer.secretText] {
      let outcome = try open(sealed, secret, [try WriterKey().publicKey, fixture.writer.publicKey])
      #expect(outcome.succeeded, "\(outcome.errorText)")
      #expect(outcome.output == plaintext)
    }
    // It doesn't just take everything.
    #expect(try !open(sealed, Identity().secretText, [fixture.writer.publicKey]).succeeded)
    #expect(try !open(sealed, second.secretText, [try WriterKey().publicKey]).succeeded)
    #expect(try !open(sealed, second.secretText, [fixture.writer.publicKey], name: "other").succeeded)
  }

  @Test("a reader by the document alone finds a data key that was wrapped anew")
  func rewrapped() throws {
    let fixture = try SealedFixture()
    let sealed = try fixture.seal([[1, 2, 3], [4]])
    let new = Identity()
    let header = try SealedHeader.parse(sealed)
    let name = "crm/7301/rewraps/wal/0000000100000000/00112233445566778899aabbccddeeff"
    let table = DataKeyTable.encode([header.digest: try header.dataKey([fixture.identity])])
    func rewrap(_ kind: ObjectKind, by writer: WriterKey) throws -> [UInt8] {
      try SealedObject.seal(
        kind: kind, name: name, plaintext: table, recipients: [new.recipient], writer: writer, level: 3, created: 0)
    }
    let trusted = [fixture.writer.publicKey]
    let good = try rewrap(.rewrap, by: fixture.writer)
    let outcome = try open(sealed, new.secretText, trusted, rewrap: (name, good))
    #expect(outcome.succeeded, "\(outcome.errorText)")
    #expect(outcome.output == [1, 2, 3, 4])
    #expect(try !open(sealed, new.secretText, trusted).succeeded)
    #expect(try !open(sealed, Identity().secretText, trusted, rewrap: (name, good)).succeeded)
    #expect(try !open(sealed, new.secretText, trusted, rewrap: (name + "0", good)).succeeded)
    #expect(try !open(sealed, new.secretText, trusted, rewrap: (name, rewrap(.report, by: fixture.writer))).succeeded)
    #expect(try !open(sealed, new.secretText, trusted, rewrap: (name, rewrap(.rewrap, by: WriterKey()))).succeeded)
  }

  @Test("an empty object and one of a single byte open too", arguments: [[], [0]] as [[UInt8]])
  func small(plaintext: [UInt8]) throws {
    let fixture = try SealedFixture()
    let sealed = try SealedObject.seal(
      kind: .report, name: SealedFixture.name, plaintext: plaintext, recipients: [fixture.identity.recipient],
      writer: fixture.writer, level: 3, created: 0)
    let outcome = try open(sealed, fixture.identity.secretText, [fixture.writer.publicKey])
    #expect(outcome.succeeded, "\(outcome.errorText)")
    #expect(outcome.output == plaintext)
  }

  /// Sealed by the first version of the format. If this must change, the format's version must.
  private static let golden = """
    544944454d41524b010200000000008400000079002e63726d2f373330312f77616c2f30303030303030312f30303030
    303030313030303030303030303030303030413300060a24181e400221fe31dfa154a26101002017e44a403a3033cb9f
    5914e34ea118895b191e156d9390d8d9587d1deef4338f020008000000000000013203000800060a24181e4001040008
    00060a24181e400001bd93754bde3948713e25121e3cd74d364fce242a3091d45d2fb3c417fffc1b46c06703a282eb63
    4b730922536bc9c2b98142d781588ae86f43ec976b160a6a07642c643ef2cf648e83d6637dff392f8bc1ec0e6ce0f308
    661a6dfbf6c9455e0481ac5dd9cf0bbd2b830464f8b4d1e78d08e2e640a3cb8af0113fc9eeb17874431ace62aae8961a
    e0a6a1b0150e2d1dbd302e942631faf363f04c59605646974bb61a72021d64e128f596b26d26b9389391000000020000
    0000160000000650c86cba71e6baaca4a8aff51266dfc2ab7e6d824e63005fdede8fa673fa495301000000230000012c
    8e1876f0f34533b6cd68bfee8bd4ad44abc8ce285efc09080f077211d3a344d1456b323e488b44d9bca0f593a8a7ba7b
    48a4bcb14824fc9fe85921ff4e337667e6a87866fdc5b1e429c4c568b72e170c1cb00912bae0a0e04c3b382a04a65302
    000000a254494445464f4f54
    """

  @Test("an object that was sealed when the format was made opens for ever")
  func golden() throws {
    let identity = try Identity(
      secretText: "tidemark-identity-secret-o4dw2cttdcsx2pawyfzfdmtgiwzjuv5xxhkkbifs6hbllspqu7laf6se7m")
    let writer = try WriterPublicKey(
      text: "tidemark-writer-25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkenpc6gjvy")
    let sealed = bytes(hexadecimal: Self.golden)
    let plaintext = Array("stored".utf8) + [UInt8](repeating: 97, count: 300)
    let object = try SealedObject.open(
      sealed, expectedName: SealedFixture.name, expectedKind: .walSegment, trustedWriters: [writer],
      identities: [identity])
    #expect(try object.readAll(limit: 1000) == plaintext)
    #expect(object.footer.frames.map(\.codec) == [.stored, .zstd])
    #expect(object.header.created == 1_700_000_000_000_002)
    #expect(object.header.attributes.plaintextDigest == SHA256Digest.of(plaintext))
    #expect(object.header.attributes.plaintextByteCount == 306)
    #expect(object.header.attributes.latestCommit == 1_700_000_000_000_001)
    #expect(object.header.attributes.earliestCommit == 1_700_000_000_000_000)
    #expect(try open(sealed, identity.secretText, [writer]).output == plaintext)
  }
}
