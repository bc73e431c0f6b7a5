// Damage and exchange: whatever happens to the bytes, there is an error, and never a wrong plaintext.
import Diagnostics
import TestSupport
import Testing

@testable import Envelope

@Suite("Damaged and exchanged objects")
struct SealedObjectDamageTests {
  let fixture: SealedFixture

  init() throws { fixture = try SealedFixture() }

  private static let frames = [Array("stored as it is".utf8), [UInt8](repeating: 66, count: 500), [1, 2, 3]]

  @Test("a changed byte at any position is found, with an identity and without one")
  func everyByte() throws {
    let sealed = try fixture.seal(Self.frames)
    for position in sealed.indices {
      for mask: UInt8 in [1, 0x80, 0xFF] {
        var damaged = sealed
        damaged[position] ^= mask
        #expect(throws: TidemarkError.self, "byte \(position)") { try fixture.open(damaged) }
        #expect(throws: TidemarkError.self, "byte \(position)") { try fixture.verify(damaged) }
      }
    }
  }

  @Test("an object that is cut off anywhere, at either end, is found")
  func truncation() throws {
    let sealed = try fixture.seal(Self.frames)
    for length in sealed.indices {
      #expect(code { _ = try fixture.open(Array(sealed.prefix(length))) } == .objectDamaged)
      #expect(code { _ = try fixture.verify(Array(sealed.suffix(length))) } == .objectDamaged)
    }
  }

  @Test("bytes before, after or in between are found")
  func additionalBytes() throws {
    let sealed = try fixture.seal(Self.frames)
    #expect(throws: TidemarkError.self) { try fixture.verify(sealed + [0]) }
    #expect(throws: TidemarkError.self) { try fixture.verify([0] + sealed) }
    #expect(throws: TidemarkError.self) { try fixture.verify(sealed + sealed) }
    for position in stride(from: 0, to: sealed.count, by: 7) {
      var longer = sealed
      longer.insert(0, at: position)
      #expect(throws: TidemarkError.self, "at \(position)") { try fixture.verify(longer) }
    }
  }

  @Test("frames that are exchanged, repeated, dropped or another object's are found, even with a fitting footer")
  func movedFrames() throws {
    // Equal lengths, so that nothing but digests, nonces and associated data can tell.
    var numbers = SeededNumbers(7)
    let contents = (0..<3).map { _ in numbers.bytes(100) }
    let sealed = try fixture.seal(contents)
    let other = try fixture.seal(contents)
    let verified = try fixture.verify(sealed)
    let ranges = try contents.indices.map { try verified.storedRange(frame: $0) }
    let object = try verified.unlock([fixture.identity])
    func check(_ changed: [UInt8], _ index: Int) throws {
      #expect(code { _ = try fixture.open(changed) } == .objectDamaged)
      #expect(code { _ = try fixture.verify(changed) } == .objectDamaged)
      // And with digests that fit, as only the writer could sign them: the frame itself doesn't open there.
      let footer = SealedFooter.encode(
        try verified.footer.frames.enumerated().map { position, frame in
          var frame = frame
          frame.digest = SHA256Digest.of(Array(changed[try verified.storedRange(frame: position)]))
          return frame
        })
      let signature = try fixture.writer.sign(
        SealedFooter.message(header: verified.header.signedBytes, footer: footer))
      var forged = Array(changed[..<ranges[2].upperBound]) + footer + signature
      forged.append(bigEndian: UInt32(footer.count + signature.count + 12))
      forged += SealedFooter.magic
      try fixture.verify(forged)
      let error = #expect(throws: TidemarkError.self) { try fixture.open(forged) }
      #expect(error?.summary == "frame \(index) doesn't open")
      _ = object
    }
    var swapped = sealed
    swapped.replaceSubrange(ranges[0], with: sealed[ranges[1]])
    swapped.replaceSubrange(ranges[1], with: sealed[ranges[0]])
    try check(swapped, 0)
    var repeated = sealed
    repeated.replaceSubrange(ranges[2], with: sealed[ranges[1]])
    try check(repeated, 2)
    var foreign = sealed
    foreign.replaceSubrange(ranges[1], with: other[ranges[1]])
    try check(foreign, 1)
    for index in contents.indices {
      var dropped = sealed
      dropped.removeSubrange(ranges[index])
      #expect(code { _ = try fixture.verify(dropped) } == .objectDamaged)
    }
  }

  @Test("an object under another's name is refused, and both names are said")
  func exchangedObjects() throws {
    let sealed = try fixture.seal([[1]])
    let error = #expect(throws: TidemarkError.self) { try fixture.open(sealed, name: "crm/7301/wal/other") }
    #expect(error?.code == .objectDamaged)
    #expect(error?.object == "crm/7301/wal/other")
    #expect(error?.cause?.contains(SealedFixture.name) == true)
    #expect(code { _ = try fixture.verify(sealed, name: "crm/7301/wal/other") } == .objectDamaged)
  }

  @Test("an object of another kind is refused", arguments: ObjectKind.allCases)
  func otherKind(kind: ObjectKind) throws {
    let sealed = try fixture.seal([[1]], kind: kind)
    for expected in ObjectKind.allCases where expected != kind {
      #expect(code { _ = try fixture.open(sealed, kind: expected) } == .objectDamaged)
    }
    #expect(try fixture.open(sealed, kind: kind) == [1])
  }

  @Test("a format of the future is named as such, whatever else it says", arguments: [0, 3, 255] as [UInt8])
  func otherVersion(version: UInt8) throws {
    var sealed = try fixture.seal([[1]])
    sealed[8] = version
    let error = #expect(throws: TidemarkError.self) { try fixture.open(sealed) }
    #expect(error?.code == .formatVersionUnknown)
    #expect(error?.cause == "version \(version)")
  }

  @Test("head or end of another object under the same name is found")
  func mixedObjects() throws {
    let first = try fixture.seal(Self.frames)
    let second = try fixture.seal(Self.frames)
    let split = try SealedHeader.parse(first).byteCount
    let end = try fixture.verify(first).storedRange(frame: 2).upperBound
    #expect(first.count == second.count)
    // Both headers are signed alike; the wrapped keys are what differs.
    #expect(code { _ = try fixture.open(first[..<split] + Array(second[split...])) } == .objectDamaged)
    #expect(code { _ = try fixture.verify(first[..<end] + Array(second[end...])) } == .objectDamaged)
  }

  @Test("header and footer that disagree about the plaintext are found, though both are signed")
  func disagreement() throws {
    var attributes = SealedAttributes()
    attributes.plaintextByteCount = 4
    #expect(code { _ = try fixture.verify(try fixture.seal([[1, 2, 3]], attributes: attributes)) } == .objectDamaged)
    attributes.plaintextByteCount = 3
    attributes.plaintextDigest = SHA256Digest.of([1, 2, 4])
    let sealed = try fixture.seal([[1, 2, 3]], attributes: attributes)
    #expect(code { _ = try fixture.open(sealed) } == .objectDamaged)
    try fixture.verify(sealed)
  }
}
