// Random and spoilt bytes: parsers throw; they don't crash, hang or accept. The seeds make every run the same.
import Diagnostics
import TestSupport
import Testing

@testable import Envelope

@Suite("Hostile bytes")
struct HostileBytesTests {
  let fixture: SealedFixture

  init() throws { fixture = try SealedFixture() }

  @Test("random bytes are no header, no footer and no object")
  func random() {
    var numbers = SeededNumbers(8)
    for _ in 0..<3000 {
      var noise = numbers.bytes(Int.random(in: 0...300, using: &numbers))
      // Often with the magics and plausible fixed fields, or nothing would get past the first check.
      if Bool.random(using: &numbers) {
        noise = SealedHeader.magic + [1, UInt8.random(in: 0...10, using: &numbers), 0, 0] + noise
      }
      if Bool.random(using: &numbers) {
        noise.append(bigEndian: UInt32.random(in: 0...400, using: &numbers))
        noise += SealedFooter.magic
      }
      #expect(throws: TidemarkError.self) { try fixture.verify(noise) }
      #expect(throws: TidemarkError.self) { try SealedHeader.parse(noise) }
      #expect(throws: TidemarkError.self) {
        try SealedFooter.parse(noise[...], framesOffset: 0, framesEnd: Int.random(in: 0...1000, using: &numbers))
      }
    }
  }

  @Test("objects with several spoilt bytes are never accepted")
  func spoilt() throws {
    var numbers = SeededNumbers(9)
    var attributes = SealedAttributes()
    attributes.plaintextByteCount = 203
    let sealed = try fixture.seal([[1, 2, 3], [UInt8](repeating: 7, count: 200)], attributes: attributes)
    let header = try SealedHeader.parse(sealed).byteCount
    for _ in 0..<2000 {
      var spoilt = sealed
      for _ in 0..<Int.random(in: 1...4, using: &numbers) {
        // Lengths and counts matter most: they stand at both ends.
        let position =
          Bool.random(using: &numbers)
          ? Int.random(in: 0..<min(header, 120), using: &numbers)
          : Int.random(in: (sealed.count - 170)..<sealed.count, using: &numbers)
        spoilt[position] =
          [0, 1, 0x7F, 0x80, 0xFF, .random(in: 0...255, using: &numbers)].randomElement(using: &numbers) ?? 0
      }
      if Int.random(in: 0..<4, using: &numbers) == 0 {
        let start = Int.random(in: 0..<spoilt.count, using: &numbers)
        spoilt.removeSubrange(start..<min(spoilt.count, start + Int.random(in: 1...50, using: &numbers)))
      }
      if spoilt == sealed { continue }
      #expect(throws: TidemarkError.self) { try fixture.open(spoilt) }
    }
  }

  @Test("lengths at their extremes are refused before anything is allocated or added up")
  func extremes() throws {
    let sealed = try fixture.seal([[1, 2, 3]])
    let footer = try fixture.verify(sealed).footer.byteCount
    let begin = sealed.count - footer
    // Lengths of the signed part, of the wrapped keys, of the name, of an attribute's place; then of the footer.
    for offset in [12, 16, 20, begin, begin + 5, begin + 9, sealed.count - 12] {
      for value: [UInt8] in [[0xFF, 0xFF, 0xFF, 0xFF], [0x7F, 0xFF, 0xFF, 0xFF], [0x80, 0, 0, 0], [0, 0, 0, 0]] {
        var extreme = sealed
        extreme.replaceSubrange(offset..<offset + 4, with: value)
        #expect(throws: TidemarkError.self, "at \(offset)") { try fixture.verify(extreme) }
      }
    }
    #expect(
      code { _ = try SealedFooter.byteCount(endingWith: [0xFF, 0xFF, 0xFF, 0xFF] + SealedFooter.magic) }
        == .objectDamaged)
    #expect(
      code {
        _ = try SealedHeader.byteCount(beginningWith: Array(sealed.prefix(12)) + [UInt8](repeating: 0xFF, count: 8))
      } == .objectDamaged)
  }

  @Test("signed headers that a faulty writer made are refused by the same rules")
  func faultyWriters() throws {
    func header(_ signed: [UInt8]) throws -> SealedHeader {
      var bytes = SealedHeader.magic + [1, 1, 0, 0]
      bytes.append(bigEndian: UInt32(signed.count))
      bytes.append(bigEndian: UInt32(0))
      bytes += signed
      let digest = SHA256Digest.of(bytes)
      return try SealedHeader.parse(
        try SealedHeader.encode(
          signedBytes: bytes, headerDigest: digest,
          wrappedKeys: [try DataKey().wrap(for: fixture.identity.recipient, headerDigest: digest)]))
    }
    let rest = [UInt8](repeating: 0, count: 16)
    #expect(try header([0, 1, 65] + rest).name == "A")
    #expect(code { _ = try header([0, 0] + rest) } == .objectDamaged)
    #expect(code { _ = try header([0, 1, 0xFF] + rest) } == .objectDamaged)
    #expect(code { _ = try header([0, 1, 65] + rest.dropLast()) } == .objectDamaged)
    // Attributes: a wrong length, the wrong order, twice, cut short, a digest of 31 bytes.
    #expect(try header([0, 1, 65] + rest + [9, 0, 1, 5]).attributes.unknown == [9: [5]])
    for attributes: [UInt8] in [
      [2, 0, 7] + rest.prefix(7), [2, 0, 9] + rest.prefix(9), [9, 0, 1, 5, 8, 0, 1, 5], [9, 0, 1, 5, 9, 0, 1, 5],
      [9, 0, 2, 5], [9, 0], [1, 0, 31] + [UInt8](repeating: 0, count: 31),
    ] {
      #expect(code { _ = try header([0, 1, 65] + rest + attributes) } == .objectDamaged)
    }
  }
}
