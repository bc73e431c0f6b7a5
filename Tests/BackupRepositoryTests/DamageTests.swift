// Damage and forgery at every interesting place of an object, as the repository meets them: in one region the work goes
// on from the other and the copy is mended; in both there is an error that names the object, and nothing is deleted.
import Diagnostics
import Envelope
import PostgresFormats
import SystemSupport
import Testing

@testable import BackupRepository

@Suite("Damaged and forged objects in regions") struct DamageTests {
  let setup: TwoRegions
  let identity = Identity()
  let writer: WriterKey
  /// Three frames, the first two of equal length.
  let plaintext: [UInt8]
  let sealed: [UInt8]

  init() throws {
    setup = try TwoRegions()
    writer = try WriterKey()
    plaintext = [UInt8](repeating: 7, count: (2 << 20) + 100)
    var attributes = SealedAttributes()
    attributes.plaintextDigest = SHA256Digest.of(plaintext)
    attributes.plaintextByteCount = UInt64(plaintext.count)
    sealed = try SealedObject.seal(
      kind: .pack, name: setup.name.text, plaintext: plaintext, recipients: [identity.recipient], writer: writer,
      attributes: attributes, level: 1, created: 0)
  }

  func repository() -> Repository {
    setup.repository(
      RepositoryKeys(
        recipients: [identity.recipient], trustedWriters: [writer.publicKey], identities: [identity], writer: writer))
  }

  private func stock(_ west: [UInt8], _ east: [UInt8]) {
    setup.west.script { $0.objects[setup.key] = west }
    setup.east.script { $0.objects[setup.key] = east }
  }

  /// Every field of the object with its bytes' range, from docs/repository-format.md.
  private var fields: [(name: String, range: Range<Int>)] {
    func length(_ offset: Int, _ count: Int) -> Int { sealed[offset..<offset + count].reduce(0) { $0 << 8 | Int($1) } }
    let (signed, wrapped) = (length(12, 4), length(16, 4))
    let name = length(20, 2)
    let list = 20 + signed
    let frames = list + wrapped
    let footer = sealed.count - length(sealed.count - 12, 4)
    var fields = [
      ("magic", 0..<8), ("version", 8..<9), ("kind", 9..<10), ("zero", 10..<12), ("signed length", 12..<16),
      ("keys' length", 16..<20), ("name length", 20..<22), ("name", 22..<22 + name), ("time", 22 + name..<30 + name),
      ("writer", 30 + name..<38 + name), ("digest's tag", 38 + name..<39 + name),
      ("digest's length", 39 + name..<41 + name),
      ("digest", 41 + name..<73 + name), ("length attribute", 73 + name..<list), ("number of keys", list..<list + 1),
      ("recipient", list + 1..<list + 9), ("encapsulated key", list + 9..<list + 41),
      ("wrapped key", list + 41..<list + 89),
      ("keys' digest", list + 89..<frames),
    ]
    var start = frames
    for number in 0..<length(footer, 4) {
      let row = footer + 4 + 41 * number
      let stored = length(row + 1, 4)
      fields += [
        ("frame \(number)", start..<start + stored - 16), ("tag \(number)", start + stored - 16..<start + stored),
        ("codec \(number)", row..<row + 1), ("stored length \(number)", row + 1..<row + 5),
        ("plaintext length \(number)", row + 5..<row + 9), ("frame digest \(number)", row + 9..<row + 41),
      ]
      start += stored
    }
    fields += [
      ("number of frames", footer..<footer + 4), ("signature", sealed.count - 76..<sealed.count - 12),
      ("footer length", sealed.count - 12..<sealed.count - 8), ("footer magic", sealed.count - 8..<sealed.count),
    ]
    return fields
  }

  /// Spoilt in west: read from east, reported, mended. Spoilt in both: an error of status 65 with the object's name.
  private func expectFound(_ spoilt: [UInt8], _ what: String, status: [Diagnostics.ExitStatus] = [.damaged]) throws {
    stock(spoilt, sealed)
    let repository = repository()
    #expect(try repository.readSealed(.pack, setup.name, limit: plaintext.count).plaintext == plaintext, "\(what)")
    #expect(repository.regions.happened == ["west damaged", "west mended"], "\(what)")
    #expect(setup.west.object(setup.key) == sealed, "\(what)")

    stock(spoilt, spoilt)
    let error = #expect(throws: TidemarkError.self, "\(what)") {
      _ = try self.repository().readSealed(.pack, setup.name, limit: plaintext.count)
    }
    #expect(error.map { status.contains($0.exitStatus) } == true, "\(what): \(error?.description ?? "")")
    #expect(error?.object?.contains(setup.name.text) == true, "\(what): \(error?.description ?? "")")
    #expect(setup.west.object(setup.key) == spoilt && setup.east.object(setup.key) == spoilt, "\(what)")
  }

  @Test("a flipped bit in the first and the last byte of every field") func everyField() throws {
    let fields = fields
    #expect(fields.reduce(0) { $0 + $1.range.count } == sealed.count)
    for (name, range) in fields {
      for position in Set([range.lowerBound, range.upperBound - 1]) {
        var spoilt = sealed
        spoilt[position] ^= 0x40
        try expectFound(spoilt, "\(name), byte \(position)")
      }
    }
  }

  @Test("an object that is cut off at, before or behind every field's end, or goes on") func truncation() throws {
    var ends = Set(fields.flatMap { [$0.range.upperBound - 1, $0.range.upperBound] })
    ends.remove(sealed.count)
    for end in ends.sorted() + [0] { try expectFound(Array(sealed.prefix(end)), "cut at \(end)") }
    try expectFound(sealed + [0], "one byte more")
    try expectFound(sealed + sealed, "twice")
  }

  @Test("a frame that was moved within its object, with its row of the footer or without") func movedFrame() throws {
    let ranges = Dictionary(uniqueKeysWithValues: fields.map { ($0.name, $0.range) })
    func swap(_ names: [(String, String)]) -> [UInt8] {
      var bytes = sealed
      for (one, other) in names {
        guard let a = ranges[one], let b = ranges[other] else { continue }
        bytes.replaceSubrange(a, with: sealed[b])
        bytes.replaceSubrange(b, with: sealed[a])
      }
      return bytes
    }
    // Equal lengths: only digests, nonces and associated data can tell.
    let bodies = [("frame 0", "frame 1"), ("tag 0", "tag 1")]
    try expectFound(swap(bodies), "exchanged")
    try expectFound(swap(bodies + [("frame digest 0", "frame digest 1")]), "exchanged with their digests")
  }

  @Test("an object under another's name, an older backup's manifest among them") func exchanged() throws {
    let other = try ObjectName("crm/7301/packs/20261124T031500Z-3f9a/00000002")
    let moved = try SealedObject.seal(
      kind: .pack, name: other.text, plaintext: plaintext, recipients: [identity.recipient], writer: writer, level: 1,
      created: 0)
    try expectFound(moved, "another pack of the same backup")
    let lineage = setup.layout.lineage(SystemIdentifier(rawValue: 7301))
    for name in ["20261123T031500Z-aaaa", "20261124T031500Z-bbbb"].map({ try? BackupLabelName($0) }) {
      let label = try #require(name)
      let manifest = try BackupManifest.sample(label.text, stop: "0/3000000")
      let repository = repository()
      try repository.regions.create(
        lineage.manifest(label), try repository.seal(.manifest, lineage.manifest(label), try manifest.encoded()))
    }
    // The newer manifest is replaced by the older one in both regions: the name in its signed header gives it away.
    let (old, new) = (
      "tidemark/crm/7301/backups/20261123T031500Z-aaaa/manifest",
      "tidemark/crm/7301/backups/20261124T031500Z-bbbb/manifest"
    )
    for store in [setup.west, setup.east] { store.script { $0.objects[new] = $0.objects[old] } }
    let catalog = try repository().catalog(lineage)
    #expect(catalog.backups.map(\.label.text) == ["20261123T031500Z-aaaa"])
    #expect(catalog.unusable.map(\.error.code) == [.objectDamaged])
    #expect(catalog.unusable.first?.name.text == "crm/7301/backups/20261124T031500Z-bbbb/manifest")
  }

  @Test("an object of another repository, of the same name") func otherRepository() throws {
    let foreign = try SealedObject.seal(
      kind: .pack, name: setup.name.text, plaintext: plaintext, recipients: [Identity().recipient],
      writer: try WriterKey(),
      level: 1, created: 0)
    try expectFound(foreign, "another repository's")
  }

  @Test("an object of a kind that doesn't belong here") func otherKind() throws {
    let kind = try SealedObject.seal(
      kind: .walSegment, name: setup.name.text, plaintext: plaintext, recipients: [identity.recipient], writer: writer,
      level: 1, created: 0)
    try expectFound(kind, "a segment as a pack")
  }

  @Test("an object by somebody who has the recipient's key, or even the identity, and no writer key") func noWriter()
    throws
  {
    let stranger = try WriterKey()
    let sealed = try SealedObject.seal(
      kind: .pack, name: setup.name.text, plaintext: [6, 6, 6], recipients: [identity.recipient], writer: stranger,
      level: 1,
      created: 0)
    try expectFound(sealed, "signed by somebody who isn't trusted")
    // With the trusted writer's id in its place the signature tells.
    var impostor = sealed
    let place = 22 + setup.name.text.utf8.count + 8
    let id = writer.publicKey.id.bytes
    impostor.replaceSubrange(place..<place + 8, with: id)
    try expectFound(impostor, "signed by somebody else than it says")
  }

  @Test("wrapped keys that were exchanged for another's open nothing, and the good copy is used") func exchangedKeys()
    throws
  {
    let other = try SealedObject.seal(
      kind: .pack, name: setup.name.text, plaintext: plaintext, recipients: [identity.recipient], writer: writer,
      level: 1,
      created: 0)
    let ranges = Dictionary(uniqueKeysWithValues: fields.map { ($0.name, $0.range) })
    let list = try #require(ranges["number of keys"]).lowerBound
    let frames = try #require(ranges["frame 0"]).lowerBound
    // The list's own digest is right again, as a forger would see to.
    var header = Array(sealed[..<16])
    header += [0, 0, 0, 0] as [UInt8]
    header += sealed[20..<list]
    let keys = try SealedHeader.parse(other).byteCount
    let body = Array(other[(keys - (frames - list))..<(keys - 32)])
    let digest = SHA256Digest.of(SHA256Digest.of(header).bytes + body).bytes
    var spoilt = Array(sealed[..<list])
    spoilt += body
    spoilt += digest
    spoilt += sealed[frames...]
    try expectFound(spoilt, "another object's keys", status: [.damaged, .permission])
  }

  @Test("a file of WAL that isn't the one whose digest was signed never leaves the repository") func walDigest() throws
  {
    // As a faulty writer could make it: all of it is signed, and the digest is another's.
    var attributes = SealedAttributes()
    attributes.plaintextDigest = SHA256Digest.of([9])
    attributes.plaintextByteCount = 3
    let bytes = try SealedObject.seal(
      kind: .pack, name: setup.name.text, plaintext: [1, 2, 3], recipients: [identity.recipient], writer: writer,
      attributes: attributes, level: 1, created: 0)
    stock(bytes, bytes)
    #expect(thrownCode { _ = try repository().readSealed(.pack, setup.name, limit: 10) } == .objectDamaged)
  }
}
