// Tables of data keys that were wrapped anew, and the format version that their objects brought.
import Diagnostics
import Testing

@testable import Envelope

@Suite("Data keys that are wrapped anew")
struct DataKeyTableTests {
  @Test("a table gives each object its own key, and no other object any", arguments: [1, 2, 3, 500])
  func round(count: Int) throws {
    let keys = Dictionary(
      uniqueKeysWithValues: (0..<count).map { (SHA256Digest.of(Array("\($0)".utf8)), DataKey()) })
    let table = try DataKeyTable(decoding: DataKeyTable.encode(keys))
    #expect(table.count == count)
    for (digest, key) in keys {
      let found = try #require(table[digest])
      #expect(found.withUnsafeBytes(Array.init) == key.withUnsafeBytes(Array.init))
    }
    #expect(table[SHA256Digest.of([])] == nil)
  }

  @Test("what isn't a table is refused")
  func refusals() throws {
    let row = [UInt8](repeating: 7, count: 64)
    let later = [UInt8](repeating: 8, count: 64)
    #expect(try DataKeyTable(decoding: [1] + row + later).count == 2)
    for bytes in [[], [1], [1] + row.dropLast(), [1] + row + [0], [1] + later + row, [1] + row + row] as [[UInt8]] {
      #expect(code(of: { _ = try DataKeyTable(decoding: bytes) }) == .objectDamaged, "\(bytes.count)")
    }
    #expect(code(of: { _ = try DataKeyTable(decoding: [2] + row) }) == .formatVersionUnknown)
  }

  @Test("an object opens with a key that is handed in, only when no identity opens it, and not with a false one")
  func handedIn() throws {
    let fixture = try SealedFixture()
    let sealed = try fixture.seal([[1, 2, 3]])
    let header = try SealedHeader.parse(sealed)
    let key = try header.dataKey([fixture.identity])
    func open(_ identities: [Identity], _ key: DataKey?) throws -> [UInt8] {
      try SealedObject.open(
        sealed, expectedName: SealedFixture.name, expectedKind: .walSegment,
        trustedWriters: [fixture.writer.publicKey], identities: identities
      ) { asked throws(TidemarkError) in
        #expect(asked.digest == header.digest && identities.isEmpty)
        return key
      }.readAll(limit: 100)
    }
    #expect(try open([], key) == [1, 2, 3])
    #expect(try open([fixture.identity], nil) == [1, 2, 3])
    #expect(code(of: { _ = try open([], nil) }) == .noKeyOpens)
    #expect(code(of: { _ = try open([], DataKey()) }) == .objectDamaged)
  }

  @Test("re-wraps are of version 2 and everything else of version 1: no other pair is read")
  func versions() throws {
    let fixture = try SealedFixture()
    for kind in ObjectKind.allCases {
      var sealed = try fixture.seal([[1]], kind: kind)
      #expect(sealed[8] == (kind == .rewrap ? 2 : 1))
      #expect(try SealedHeader.parse(sealed).kind == kind)
      sealed[8] = 3 - sealed[8]
      #expect(code(of: { _ = try SealedHeader.parse(sealed) }) == .objectDamaged)
      sealed[8] = 3
      #expect(code(of: { _ = try SealedHeader.parse(sealed) }) == .formatVersionUnknown)
    }
  }
}
