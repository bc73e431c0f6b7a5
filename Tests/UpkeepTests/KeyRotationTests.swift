// `keys rotate` on real directories: what is stored opens with the new identity alone, nothing of it is changed, and
// re-wraps are copied, verified and expired with what they belong to.
import Configuration
import Diagnostics
@testable import Envelope
import Foundation
import ObjectStorage
import PostgresFormats
import SystemSupport
import Testing

@testable import BackupRepository
@testable import Retention
@testable import Verification

@Suite("Rotation of keys") struct KeyRotationTests {
  let old = Identity()
  let new = Identity()
  let writer: WriterKey
  let world: SmallRepository

  init() throws {
    let writer = try WriterKey()
    self.writer = writer
    world = try SmallRepository(
      keys: RepositoryKeys(
        recipients: [old.recipient], trustedWriters: [writer.publicKey], identities: [old], writer: writer))
  }

  /// The same repository as a host sees it that has these identities, and no writer key unless it is given.
  func host(
    _ identities: [Identity], recipients: [Identity]? = nil, writer: WriterKey? = nil, trusted: [WriterKey]? = nil
  ) throws -> SmallRepository {
    try SmallRepository(
      keys: RepositoryKeys(
        recipients: (recipients ?? [new]).map(\.recipient),
        trustedWriters: (trusted ?? [self.writer]).map(\.publicKey), identities: identities, writer: writer),
      directory: world.directory)
  }

  @discardableResult
  func rotate(
    _ identities: [Identity]? = nil, to recipients: [Identity]? = nil, isDryRun: Bool = false
  ) throws -> LineageRewrap {
    let host = try host(identities ?? [old], recipients: recipients, writer: writer)
    let report = try KeyRewrap(host.open(), isDryRun: isDryRun).run()
    #expect(report.regionsNotAsked.isEmpty)
    return try #require(report.lineages.first)
  }

  /// Two backups, WAL of two logs, a history, a hold and a report.
  func fill() throws {
    try world.backup("a", number: 2, age: 300)
    try world.backup("b", number: 4, age: 200, own: 1, others: ["a": [1]])
    try world.wal(5)
    try later()
    try world.create(.report, world.lineage.drill(try BackupLabelName("d")))
    try world.create(.hold, world.lineage.hold(try BackupLabelName("b"), try BackupLabelName("h")))
    try wal(.timelineHistory, .history(TimelineID(2)), "1\t0/4000000\tno recovery target specified\n")
  }

  /// A segment of the next log.
  func later() throws {
    try wal(.walSegment, .segment(WALSegmentName(timeline: TimelineID(1), log: 1, segment: 0)), "later")
  }

  func wal(_ kind: ObjectKind, _ file: WALFileName, _ text: String, in region: String? = nil) throws {
    var attributes = SealedAttributes()
    attributes.plaintextDigest = SHA256Digest.of(Array(text.utf8))
    attributes.plaintextByteCount = UInt64(text.utf8.count)
    let name = world.lineage.wal(file)
    let repository = try region.map { try world.open().only(region: $0) } ?? world.open()
    try repository.regions.create(
      name, try repository.seal(kind, name, Array(text.utf8), attributes: attributes)
    ) { _ in true }
  }

  static let kinds: [(String, ObjectKind)] = [
    ("/files/", .fileTable), ("/manifest", .manifest), ("packs/", .pack), (".history", .timelineHistory),
    ("wal/", .walSegment), ("drills/", .report), ("holds/", .hold),
  ]

  /// Opens everything but re-wraps in each region with `host`'s keys. Returns how many objects opened.
  @discardableResult
  func openAll(_ host: SmallRepository) throws -> Int {
    var count = 0
    for region in ["west", "east"] {
      let repository = try host.open(host: "reader").only(region: region)
      for text in try world.names() where !text.hasPrefix("rewraps/") {
        let kind = try #require(Self.kinds.first { text.contains($0.0) }?.1)
        _ = try repository.readSealed(
          kind, ObjectName(trusted: world.lineage.prefix + text), limit: 1 << 20, mends: false)
        count += 1
      }
    }
    return count
  }

  func contents() throws -> [String: [UInt8]] {
    var contents: [String: [UInt8]] = [:]
    for region in ["west", "east"] {
      for name in try world.names(region == "west" ? 0 : 1) {
        contents["\(region)/\(name)"] = try readFile(
          world.path(region, ObjectName(trusted: world.lineage.prefix + name)))
      }
    }
    return contents
  }

  func rewraps(_ region: Int = 0) throws -> [String] { try world.names(region).filter { $0.hasPrefix("rewraps/") } }

  // MARK: What it does

  @Test("everything opens with the new identity alone, still with the old one, and nothing stored was changed")
  func
    whole() throws
  {
    try fill()
    let before = try contents()
    #expect(thrownCode { try openAll(host([new])) } == .noKeyOpens)
    let result = try rotate()
    #expect(result.objects == 14 && result.rewrapped == 14 && result.current == 0 && result.notOpened == 0)
    let made = try rewraps()
    #expect(
      made.map { $0.split(separator: "/").dropLast().joined(separator: "/") } == [
        "rewraps/backups/a", "rewraps/backups/b", "rewraps/others", "rewraps/wal/0000000100000000",
        "rewraps/wal/0000000100000001",
      ])
    #expect(result.rewraps == 5)
    let after = try contents()
    for (name, bytes) in before { #expect(after[name] == bytes, "\(name)") }
    #expect(after.count == before.count + 10)
    #expect(try openAll(host([new])) == 28)
    #expect(try openAll(host([old])) == 28)
    #expect(thrownCode { try openAll(host([Identity()])) } == .noKeyOpens)
    // A host without an identity neither opens nor asks.
    #expect(thrownCode { try openAll(host([])) } == .noKeyOpens)
    // Twice makes nothing new, whoever runs it.
    for identities in [[old], [new], [old, new]] {
      let again = try rotate(identities)
      #expect(again.rewraps == 0 && again.covered == 14 && again.notOpened == 0, "\(again)")
    }
    #expect(try contents() == after)
  }

  @Test("a dry run says the same and writes nothing") func dryRun() throws {
    try fill()
    let before = try contents()
    let report = try KeyRewrap(host([old]).open(), isDryRun: true).run()
    #expect(report.lineages.first?.rewrapped == 14 && report.lineages.first?.rewraps == 5)
    #expect(try contents() == before)
  }

  @Test("who opens by the header pays no request for re-wraps; who doesn't, two for a group") func cost() throws {
    try fill()
    func requests(_ identity: Identity) throws -> Int {
      let repository = try host([identity]).open(host: "reader").only(region: "west")
      for number in [2, 4, 5] as [UInt32] {
        let segment = WALSegmentName(timeline: TimelineID(1), log: 0, segment: number)
        _ = try repository.readSealed(.walSegment, world.lineage.wal(.segment(segment)), limit: 1 << 20)
      }
      return repository.regions.regions[0].store.statistics.requests
    }
    let before = try requests(old)
    try rotate()
    #expect(try requests(old) == before)
    // The marker, the listing, the re-wrap.
    #expect(try requests(new) == before + 3)
  }

  @Test("a region is asked for re-wraps only when another hasn't got them, and one that is away not for each object")
  func secondRegion() throws {
    try world.backup("a", number: 2, age: 300, own: 3)
    try rotate()
    let packs = try (1...3).map { world.lineage.pack(try BackupLabelName("a"), $0) }
    let (west, east) = (Counter(), Counter())
    func reader(_ identity: Identity) throws -> Repository {
      try host([identity]).open(
        host: "reader",
        wrapping: [
          "west": { LockingStore($0, locked: "/rewraps/", lists: west) },
          "east": { LockingStore($0, locked: "/rewraps/", lists: east, listCountMax: 0) },
        ])
    }
    // Whichever is asked first, the key is found, and the group is listed once.
    let meant = try reader(new)
    for pack in packs { _ = try meant.readSealed(.pack, pack, limit: 100) }
    #expect(west.add(0) == 1 && east.add(0) <= 1)
    let before = east.add(0)
    // Who isn't meant can't know it while a region is away.
    let stranger = try reader(Identity())
    for pack in packs.dropLast() {
      #expect(thrownCode { _ = try stranger.readSealed(.pack, pack, limit: 100) } == .regionUnreachable)
    }
    #expect(east.add(0) - before <= 2, "\(east.add(0))")
  }

  @Test("what came since is wrapped anew by the next run, and what is sealed to the new recipient isn't") func since()
    throws
  {
    try world.backup("a", number: 2, age: 300)
    try rotate()
    try world.wal(7)
    try host([], writer: writer).wal(8)
    let result = try rotate()
    #expect(result.current == 1 && result.notOpened == 0 && result.rewraps == 1)
    #expect(try openAll(host([new])) == 14)
  }

  @Test("a rotation of a rotation, by a host that has the second identity alone") func twice() throws {
    try fill()
    try rotate()
    let third = Identity()
    let result = try rotate([new], to: [third])
    #expect(result.rewrapped == 14 && result.notOpened == 0, "\(result)")
    #expect(try openAll(host([third])) == 28)
    // For two at once, one of whom it was wrapped for already.
    let fourth = Identity()
    #expect(try rotate([third], to: [third, fourth]).rewrapped == 14)
    #expect(try openAll(host([fourth])) == 28)
  }

  @Test("copies that two hosts sealed apart both open") func apart() throws {
    let file = WALFileName.segment(WALSegmentName(timeline: TimelineID(1), log: 0, segment: 1))
    try wal(.walSegment, file, "same", in: "west")
    try wal(.walSegment, file, "same", in: "east")
    #expect(try rotate().rewrapped == 2)
    #expect(try openAll(host([new])) == 2)
  }

  @Test("what no identity here opens is named, and the rest is done") func notOpened() throws {
    try world.backup("a", number: 2, age: 300)
    let stranger = Identity()
    try host([], recipients: [stranger], writer: writer).wal(3)
    let result = try rotate()
    #expect(result.notOpened == 1 && result.failures.count == 1 && result.rewrapped == 5)
    let failure = try #require(result.failures.first)
    #expect(failure.object.hasSuffix("000000010000000000000003"))
    #expect(failure.reason.contains(stranger.recipient.id.description))
  }

  @Test("a region that is away is named; what the other holds is wrapped anew, and the copy is owed") func away() throws
  {
    try fill()
    try FileManager.default.moveItem(
      atPath: "\(world.directory.path)/east", toPath: "\(world.directory.path)/away")
    let keys = RepositoryKeys(
      recipients: [new.recipient], trustedWriters: [writer.publicKey], identities: [old], writer: writer)
    let east = Region(
      name: "east", store: DirectoryStore(root: "\(world.directory.path)/east"), prefix: SmallRepository.prefix,
      health: RegionHealth(path: "\(world.directory.path)/host/regions/east"))
    let open = world.open()
    let repository = Repository(
      layout: world.layout,
      regions: RegionSet(
        regions: [open.regions.regions[0], east], policy: open.regions.policy, marker: world.layout.marker,
        debts: open.regions.debts, log: open.regions.log, readLimits: open.regions.readLimits),
      keys: keys, stateDirectory: open.stateDirectory, compressionLevel: 1, logger: open.logger)
    let report = try KeyRewrap(repository, isDryRun: false).run()
    #expect(Array(report.regionsNotAsked.keys) == ["east"])
    #expect(report.lineages.first?.rewraps == 5)
    // Alone it has no re-wraps; the other region's can't be asked for.
    for name in try rewraps() {
      try FileManager.default.removeItem(
        atPath: world.path("west", ObjectName(trusted: world.lineage.prefix + name)))
    }
    let reader = Repository(
      layout: world.layout, regions: repository.regions,
      keys: RepositoryKeys(
        recipients: [], trustedWriters: [writer.publicKey], identities: [new], writer: nil),
      stateDirectory: open.stateDirectory, compressionLevel: 1, logger: open.logger)
    #expect(
      thrownCode { _ = try reader.readSealed(.pack, world.lineage.pack(BackupLabelName("a"), 1), limit: 100) }
        == .regionUnreachable)
    try FileManager.default.moveItem(
      atPath: "\(world.directory.path)/away", toPath: "\(world.directory.path)/east")
    #expect(try rotate().rewraps == 5)
    #expect(try openAll(host([new])) == 28)
  }

  @Test("without an identity, a writer key, a trusted one or a recipient nothing is written") func refusals() throws {
    try fill()
    let before = try contents()
    let stranger = try WriterKey()
    for (world, code) in [
      (try host([], writer: writer), .noKeyOpens), (try host([old]), .keyFileInvalid),
      (try host([old], writer: stranger), .configurationInvalid),
      (try host([old], recipients: [], writer: writer), .configurationInvalid),
    ] as [(SmallRepository, ErrorCode)] {
      #expect(thrownCode { _ = try KeyRewrap(world.open(), isDryRun: false).run() } == code)
    }
    #expect(try contents() == before)
  }

  // MARK: Damage and forgery

  /// Replaces the one re-wrap in `regions`.
  func replace(_ bytes: [UInt8], in regions: [String] = ["west", "east"]) throws {
    let name = try #require(try rewraps(1).first)
    for region in regions {
      let path = world.path(region, ObjectName(trusted: world.lineage.prefix + name))
      try FileManager.default.removeItem(atPath: path)
      try DurableFile.write(bytes, to: path)
    }
  }

  func seal(
    _ keys: [SHA256Digest: DataKey], by writer: WriterKey, kind: ObjectKind = .rewrap, name: String? = nil
  ) throws -> [UInt8] {
    try SealedObject.seal(
      kind: kind, name: try name ?? world.lineage.prefix + rewraps()[0], plaintext: DataKeyTable.encode(keys),
      recipients: [new.recipient], writer: writer, level: 1, created: 0)
  }

  @Test("one that is forged, unsigned, of another name or kind, or has a false key opens nothing; its object stays")
  func forged() throws {
    try world.wal(3)
    try rotate()
    let name = world.lineage.wal(.segment(WALSegmentName(timeline: TimelineID(1), log: 0, segment: 3)))
    let header = try SealedHeader.parse(readFile(world.path("west", name)))
    let key = try header.dataKey([old])
    let good = try readFile(world.path("west", ObjectName(trusted: world.lineage.prefix + rewraps()[0])))
    var unsigned = good
    unsigned[good.count - 20] ^= 1
    let elsewhere = world.lineage.prefix + "rewraps/others/00"
    let cases: [(String, [UInt8], ErrorCode)] = [
      ("forged", try seal([header.digest: key], by: WriterKey()), .noKeyOpens),
      ("unsigned", unsigned, .noKeyOpens), ("cut", Array(good.dropLast()), .noKeyOpens),
      ("another's name", try seal([header.digest: key], by: writer, name: elsewhere), .noKeyOpens),
      ("another kind", try seal([header.digest: key], by: writer, kind: .report), .noKeyOpens),
      (
        "no table",
        try SealedObject.seal(
          kind: .rewrap, name: world.lineage.prefix + rewraps()[0], plaintext: [9], recipients: [new.recipient],
          writer: writer, level: 1, created: 0), .noKeyOpens
      ),
      ("another object's", try seal([SHA256Digest.of([1]): key], by: writer), .noKeyOpens),
      ("a false key", try seal([header.digest: DataKey()], by: writer), .objectDamaged),
    ]
    for (what, bytes, code) in cases {
      try replace(bytes)
      let repository = try host([new]).open(host: "reader")
      #expect(thrownCode { _ = try repository.readSealed(.walSegment, name, limit: 100) } == code, "\(what)")
      for region in ["west", "east"] { #expect(fileExists(world.path(region, name)), "\(what)") }
      // Who has the old identity never looks.
      _ = try host([old]).open().readSealed(.walSegment, name, limit: 100)
    }
    // Spoilt in one region, the other's serves.
    for region in ["west", "east"] {
      try replace(good)
      try replace(unsigned, in: [region])
      _ = try host([new]).open(host: "reader").readSealed(.walSegment, name, limit: 100)
    }
    // Spoilt in both, the next rotation makes another one.
    try replace(unsigned)
    #expect(try rotate().rewraps == 1)
    #expect(try rewraps().count == 2)
    _ = try host([new]).open(host: "reader").readSealed(.walSegment, name, limit: 100)
  }

  // MARK: Upkeep

  @Test("verify opens everything by them, and finds and mends a spoilt one; sync copies them") func upkeep() throws {
    try fill()
    try rotate()
    func verify(_ identities: [Identity]) throws -> VerificationState {
      try VerificationRun(host(identities, writer: writer).open(), VerificationOptions()).run().state
    }
    let state = try verify([new])
    #expect(state.counts.notOpened == 0 && state.counts.copies == 38, "\(state.counts)")
    // The holes are the fixture's.
    #expect(state.findings.allSatisfy { $0.kind == .walHole }, "\(state.findings)")
    // Keys that were wrapped for others are no fault.
    #expect(try verify([old]).findings == state.findings)
    let name = ObjectName(trusted: world.lineage.prefix + (try rewraps()[0]))
    let good = try readFile(world.path("west", name))
    var bad = good
    bad[good.count / 2] ^= 1
    try FileManager.default.removeItem(atPath: world.path("east", name))
    try DurableFile.write(bad, to: world.path("east", name))
    let findings = try verify([new]).findings.filter { $0.kind != .walHole }
    #expect(findings.map(\.kind) == [.damaged] && findings.map(\.object) == [name.text])
    #expect(findings.allSatisfy { $0.isMended })
    #expect(try readFile(world.path("east", name)) == good)
    try FileManager.default.removeItem(atPath: world.path("east", name))
    var report = SynchronizationReport()
    try RegionSynchronizer(host([], writer: writer).open()).compare(&report)
    #expect(report.copied == 1 && report.findings.isEmpty)
    #expect(try readFile(world.path("east", name)) == good)
  }

  @Test("a re-wrap stays while one of its objects does, and goes in a later run of expire than the last of them")
  func
    expiry() throws
  {
    try world.backup("a", number: 2, age: 300)
    try world.backup("b", number: 4, age: 200, own: 1, others: ["a": [1]])
    try world.wal(5)
    try later()
    try wal(.timelineHistory, .history(TimelineID(2)), "1\t0/4000000\tno recovery target specified\n")
    try rotate()
    func groups() throws -> [String] {
      try rewraps(1).map { $0.split(separator: "/").dropFirst().dropLast().joined(separator: "/") }
    }
    let all = ["backups/a", "backups/b", "others", "wal/0000000100000000", "wal/0000000100000001"]
    // The pruner's host has no identity.
    @discardableResult func expire(isDryRun: Bool = false, removes: [String] = []) throws -> LineageExpiry {
      var options = ExpireRunTests.options()
      options.isDryRun = isDryRun
      options.removes = removes
      let report = try ExpireRun(host([], writer: writer).open(host: "pruner"), options).run()
      #expect(report.findings.isEmpty && report.remarks.isEmpty, "\(report)")
      return try #require(report.lineages.first)
    }
    #expect(try expire(isDryRun: true).rewraps.deleted == 0)
    // The backup a goes; b still needs a pack of it.
    try expire()
    #expect(try groups() == all)
    try host([], writer: writer).backup("c", number: 6, age: 100)
    try world.backup("d", number: 258, age: 50, own: 1)
    try rotate()
    let made = try expire()
    #expect(made.expired == ["b", "c"] && made.rewraps.deleted == 0)
    let next = try expire(isDryRun: true)
    #expect(next.rewraps.deleted >= 3, "\(next.rewraps)")
    // Without a look at WAL nothing of it is judged: a label that isn't there removes nothing.
    #expect(try expire().rewraps.deleted == next.rewraps.deleted)
    let left = Set(try groups())
    #expect(left.isDisjoint(with: ["backups/a", "backups/b", "wal/0000000100000000"]))
    #expect(left.isSuperset(of: ["backups/d", "others"]))
    #expect(try openAll(host([new])) > 0)
  }
}
