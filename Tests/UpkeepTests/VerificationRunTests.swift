// Verification on real directories: what it finds, mends, leaves, and how it goes on.
import Diagnostics
import Envelope
import Foundation
import ObjectStorage
import PostgresFormats
import SystemSupport
import Testing

@testable import BackupRepository
@testable import Verification

@Suite("Verify") struct VerificationRunTests {
  let world: SmallRepository

  init() throws {
    world = try SmallRepository()
    try world.backup("a", number: 2, age: 300)
    try world.backup("b", number: 3, age: 200, own: 1, others: ["a": [1]])
    try world.wal(4)
  }

  /// Manifests, parts, packs and segments of the two backups.
  static let objectCount = 2 + 2 + 3 + 3

  func verify(
    host: String = "host", _ change: (inout VerificationOptions) -> Void = { _ in }
  ) throws -> VerificationReport {
    var options = VerificationOptions()
    change(&options)
    return try VerificationRun(world.open(host: host), options).run()
  }

  func damage(_ region: String, _ name: ObjectName) throws {
    let path = world.path(region, name)
    var bytes = try readFile(path)
    // Within the first frame: neither header nor footer.
    bytes[bytes.count - 140] ^= 1
    try DurableFile.write(bytes, to: path)
  }

  func label(_ text: String) throws -> BackupLabelName { try BackupLabelName(text) }

  @Test("two whole regions: every copy is read, every frame opened, nothing found") func whole() throws {
    let report = try verify()
    #expect(report.state.findings == [])
    #expect(report.state.counts.listed == Self.objectCount)
    #expect(report.state.counts.objects == Self.objectCount)
    #expect(report.state.counts.copies == 2 * Self.objectCount)
    #expect(report.state.counts.frames == 2 * Self.objectCount)
    #expect(report.state.counts.notOpened == 0)
    let journal = VerificationJournal(stateDirectory: "\(world.directory.path)/host", cluster: "crm")
    #expect(journal.finished()?.findingCount == 0)
    #expect(try journal.unfinished() == nil)
  }

  @Test("a damaged copy is found and mended from the other region") func damaged() throws {
    let name = world.lineage.pack(try label("a"), 1)
    try damage("west", name)
    let report = try verify()
    #expect(report.state.findings.map(\.kind) == [.damaged])
    #expect(report.state.findings[0].isMended && report.state.findings[0].region == "west")
    #expect(report.state.findings[0].object == name.text)
    #expect(try readFile(world.path("west", name)) == readFile(world.path("east", name)))
    #expect(try verify().state.findings == [])
  }

  @Test("damage in the only copy is found and stays; without mending nothing is written") func notMended() throws {
    let name = world.lineage.wal(.segment(try #require(WALSegmentName("000000010000000000000003"))))
    for region in ["west", "east"] { try damage(region, name) }
    let missing = world.lineage.pack(try label("b"), 1)
    try DurableFile.remove(world.path("east", missing))
    let before = try readFile(world.path("west", name))
    let report = try verify { $0.mends = false }
    #expect(report.state.findings.map(\.kind).sorted { $0.rawValue < $1.rawValue } == [.damaged, .damaged, .missing])
    #expect(report.state.findings.allSatisfy { !$0.isMended })
    #expect(!fileExists(world.path("east", missing)))
    let again = try verify()
    #expect(again.state.findings.filter { !$0.isMended }.map(\.kind) == [.damaged, .damaged])
    #expect(try readFile(world.path("west", name)) == before)
    #expect(try readFile(world.path("east", missing)) == readFile(world.path("west", missing)))
  }

  @Test("a pack that a manifest names and no region holds is lost") func lost() throws {
    let name = world.lineage.pack(try label("a"), 1)
    for region in ["west", "east"] { try DurableFile.remove(world.path(region, name)) }
    let findings = try verify().state.findings
    #expect(findings.map(\.kind) == [.lost, .lost])
    #expect(findings.allSatisfy { $0.object == name.text })
  }

  @Test("an object in another's place, and an untrusted writer's, are damage") func forged() throws {
    let name = world.lineage.pack(try label("a"), 1)
    let other = try readFile(world.path("west", world.lineage.pack(try label("a"), 2)))
    try DurableFile.write(other, to: world.path("west", name))
    let stranger = try SealedObject.seal(
      kind: .pack, name: name.text, plaintext: [9], recipients: world.keys.recipients, writer: try WriterKey(),
      level: 1,
      created: 0)
    try DurableFile.write(stranger, to: world.path("east", name))
    let findings = try verify().state.findings
    #expect(findings.map(\.kind) == [.damaged, .damaged])
    #expect(findings[0].detail.contains("another object stands here"))
    #expect(findings[1].detail.contains("not trusted"))
  }

  @Test("two good copies that aren't the same object differ") func differing() throws {
    let name = world.lineage.pack(try label("a"), 1)
    let repository = world.open()
    try DurableFile.write(try repository.seal(.pack, name, [4, 5, 6]).bytes, to: world.path("east", name))
    let findings = try verify().state.findings
    #expect(findings.map(\.kind) == [.differs])
    // WAL that two hosts sealed apart is the same as long as its plaintext is.
    try DurableFile.remove(world.path("east", name))
    let segment = world.lineage.wal(.segment(try #require(WALSegmentName("000000010000000000000003"))))
    var attributes = SealedAttributes()
    attributes.plaintextDigest = SHA256Digest.of(Array("1 3".utf8))
    attributes.plaintextByteCount = 3
    let apart = try repository.seal(.walSegment, segment, Array("1 3".utf8), attributes: attributes).bytes
    #expect(try apart != readFile(world.path("east", segment)))
    try DurableFile.write(apart, to: world.path("east", segment))
    #expect(try verify().state.findings.map(\.kind) == [.missing])
  }

  @Test("WAL that is missing between backups is a hole, unless the policy gave it up") func holes() throws {
    try world.wal(6)
    let findings = try verify().state.findings
    #expect(findings.map(\.kind) == [.walHole])
    #expect(findings[0].object.hasSuffix("000000010000000000000005"))
    let segment = world.lineage.wal(.segment(try #require(WALSegmentName("000000010000000000000002"))))
    for region in ["west", "east"] { try DurableFile.remove(world.path(region, segment)) }
    let own = try verify { $0.continuous = { _ in [] } }.state.findings
    #expect(own.map(\.kind) == [.walHole])
    #expect(own[0].detail.contains("the backup a can't be restored without it"))
  }

  @Test(
    "a copy that is written while the regions are listed isn't missing", arguments: [UInt32(0), 200_000])
  func arriving(microseconds: UInt32) throws {
    let name = world.lineage.wal(.segment(try #require(WALSegmentName("000000010000000000000004"))))
    let (path, away) = (world.path("east", name), "\(world.directory.path)/away")
    try DurableFile.move(path, to: away)
    // It is asked for when the regions are listed and before any copy is read.
    let report = try verify {
      $0.continuous = { catalog in
        Thread.detachNewThread {
          usleep(microseconds)
          try? DurableFile.move(away, to: path)
        }
        return Set(catalog.backups.map(\.label.text))
      }
    }
    #expect(report.state.findings == [])
    #expect(fileExists(path))
  }

  @Test("a region that is gone is said once, and the other is verified") func regionDown() throws {
    try DurableFile.move("\(world.directory.path)/east", to: "\(world.directory.path)/away")
    let report = try verify()
    #expect(report.state.findings.map(\.kind) == [.regionNotAsked])
    #expect(report.state.counts.copies == Self.objectCount)
  }

  @Test("a host without an identity checks signatures and opens what writers may open") func writerOnly() throws {
    let keys = RepositoryKeys(
      recipients: world.keys.recipients, trustedWriters: world.keys.trustedWriters, identities: [],
      writer: world.keys.writer)
    let restricted = try SmallRepository(keys: keys, directory: world.directory)
    let report = try VerificationRun(restricted.open(host: "writer"), VerificationOptions()).run()
    #expect(report.state.findings == [])
    #expect(report.state.counts.notOpened == 2 * (3 + 3))
    #expect(report.state.counts.frames == 2 * 4)
  }

  @Test("a sample is that of its seed, and existence is verified for all") func sample() throws {
    for number in UInt32(5)..<60 { try world.wal(number) }
    let first = try verify {
      $0.percent = 30; $0.seed = 7
    }
    let second = try verify(host: "other") {
      $0.percent = 30; $0.seed = 7
    }
    #expect(first.state.counts == second.state.counts)
    #expect((5...40).contains(first.state.counts.objects))
    #expect(first.state.counts.listed == Self.objectCount + 55)
    #expect(try verify { $0.percent = 30 }.state.seed != 7)
    try DurableFile.remove(world.path("east", world.lineage.pack(try label("a"), 1)))
    #expect(
      try verify {
        $0.percent = 0.001; $0.seed = 7
      }.state.findings.map(\.kind) == [.missing])
  }

  @Test("the rate limit holds") func rateLimit() throws {
    let bytes = try verify().state.counts.bytes
    let start = ContinuousClock.now
    _ = try verify { $0.rateLimit = Int(bytes) * 2 }
    #expect(ContinuousClock.now - start >= .milliseconds(450))
  }

  @Test("one verification on a host excludes another") func oneAtATime() throws {
    let locks = "\(world.directory.path)/host/locks"
    try DurableFile.createDirectories(locks)
    let lock = try FileLock("\(locks)/verify-crm", purpose: "this test")
    #expect(thrownCode { _ = try verify() } == .locked)
    withExtendedLifetime(lock) {}
  }
}

@Suite("Holes in the WAL") struct WALContinuityTests {
  private func catalog(_ segments: [UInt32: [UInt32]], _ histories: [TimelineHistory] = []) -> WALCatalog {
    var catalog = WALCatalog(segmentSize: .standard)
    for (timeline, numbers) in segments {
      catalog.segments[TimelineID(timeline)] = numbers.map {
        (WALSegmentName(timeline: TimelineID(timeline), log: 0, segment: $0), [0])
      }
    }
    for history in histories { catalog.histories[history.timeline] = history }
    return catalog
  }

  private func demand(_ timeline: UInt32, _ start: UInt64, _ stop: UInt64, continuous: Bool = true) -> WALDemand {
    WALDemand(
      label: "\(timeline)-\(start)", timeline: TimelineID(timeline), start: LSN(rawValue: start << 24 + 40),
      stop: LSN(rawValue: stop << 24 + 400), isContinuous: continuous)
  }

  private func holes(_ catalog: WALCatalog, _ demands: [WALDemand]) -> [String] {
    WALContinuity.holes(catalog, demands).map {
      "\($0.first.timeline):\($0.first.segment)-\($0.last.segment)"
    }
  }

  @Test("between the first promise and the end of the archive nothing may be missing") func oneTimeline() {
    let wal = catalog([1: [1, 2, 5, 6, 9]])
    #expect(holes(wal, [demand(1, 1, 2)]) == ["1:3-4", "1:7-8"])
    #expect(holes(wal, [demand(1, 5, 6)]) == ["1:7-8"])
    #expect(holes(wal, [demand(1, 1, 2, continuous: false), demand(1, 5, 6, continuous: false)]) == [])
    #expect(holes(wal, [demand(1, 6, 10, continuous: false)]) == ["1:7-8", "1:10-10"])
    #expect(holes(wal, [demand(1, 9, 9)]) == [])
    #expect(holes(catalog([:]), [demand(1, 3, 4)]) == ["1:3-4"])
  }

  @Test("a timeline must reach the switch, and the next one begin there") func timelines() throws {
    let history = try TimelineHistory(
      timeline: TimelineID(2),
      entries: [.init(timeline: TimelineID(1), switchLSN: LSN(rawValue: 6 << 24 + 99), reason: "")])
    #expect(holes(catalog([1: [3, 4, 5], 2: [6, 7]], [history]), [demand(1, 3, 3)]) == [])
    #expect(holes(catalog([1: [3, 4], 2: [6, 7]], [history]), [demand(1, 3, 3)]) == ["1:5-5"])
    #expect(holes(catalog([1: [3, 4, 5], 2: [7, 9]], [history]), [demand(1, 3, 3)]) == ["2:6-6", "2:8-8"])
    // What a dead branch went on with has no end that must be there.
    #expect(holes(catalog([1: [3, 4, 5, 6, 7, 8], 2: [6, 7]], [history]), [demand(1, 3, 3)]) == [])
    // A switch behind the backup isn't on its way.
    #expect(holes(catalog([1: [8, 9], 2: [20]], [history]), [demand(1, 8, 8)]) == [])
  }
}
