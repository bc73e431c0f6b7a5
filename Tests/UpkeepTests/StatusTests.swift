// What needs a person: a table over states, and the program on real directories.
import Diagnostics
import Envelope
import Foundation
import PostgresFormats
import SystemSupport
import Testing

@testable import BackupRepository
@testable import Verification

@Suite("Status") struct StatusTests {
  private static func healthy() -> RepositoryStatus {
    var status = RepositoryStatus(now: 1_000_000)
    status.regions = [
      RegionStatus(name: "west", location: "", debts: 0), RegionStatus(name: "east", location: "", debts: 0),
    ]
    var lineage = LineageStatus(systemIdentifier: SystemIdentifier(rawValue: 7301))
    lineage.newest = NewestBackup(label: "b", stopTime: 999_000, isSuspect: false)
    lineage.newestGood = lineage.newest
    lineage.drill = DrillStatus(name: "d", stored: 900_000, ok: true, rtoSeconds: 60, rtoMet: true, rpoMet: true)
    status.lineages = [lineage]
    status.verification = FinishedVerification(finished: 990_000, percent: 100, findingCount: 0)
    return status
  }

  private static func limits() -> StatusLimits {
    var limits = StatusLimits()
    limits.backupAge = .seconds(3600)
    limits.drillAge = .seconds(200_000)
    limits.verifyAge = .seconds(20_000)
    return limits
  }

  static let cases: [(String, @Sendable (inout RepositoryStatus) -> Void, [StatusNeed.Kind])] = [
    ("all is well", { _ in }, []),
    ("a region is down", { $0.regions[1].failure = "connection refused" }, [.region]),
    ("debts", { $0.regions[1].debts = 3 }, [.debts]),
    ("a clock is wrong", { $0.regions[0].clockOffsetSeconds = -90 }, [.clock]),
    ("no backup at all", { $0.lineages = [] }, [.backup]),
    ("the newest is too old", { $0.lineages[0].newestGood?.stopTime = 990_000 }, [.backup]),
    ("the newest is suspect", { $0.lineages[0].newest?.isSuspect = true }, [.suspect]),
    (
      "all are suspect",
      {
        $0.lineages[0].newest?.isSuspect = true; $0.lineages[0].newestGood = nil
      }, [.suspect, .backup]
    ),
    ("a manifest is unusable", { $0.lineages[0].unusable = ["x"] }, [.unusable]),
    ("the drill failed", { $0.lineages[0].drill?.ok = false }, [.drill]),
    ("the drill missed the objective", { $0.lineages[0].drill?.rtoMet = false }, [.objective]),
    ("the drill is overdue", { $0.lineages[0].drill?.stored = 700_000 }, [.drill]),
    ("no drill", { $0.lineages[0].drill = nil }, [.drill]),
    ("the verification is overdue", { $0.verification?.finished = 100 }, [.verification]),
    ("no verification", { $0.verification = nil }, [.verification]),
    ("the verification found something", { $0.verification?.findingCount = 2 }, [.verification]),
    (
      "a lineage that was left behind isn't too old",
      {
        var old = LineageStatus(systemIdentifier: SystemIdentifier(rawValue: 1))
        old.newest = NewestBackup(label: "o", stopTime: 5, isSuspect: false)
        old.newestGood = old.newest
        $0.lineages.insert(old, at: 0)
      }, []
    ),
  ]

  @Test("what needs a person", arguments: cases.indices) func needs(index: Int) {
    let (name, change, expected) = Self.cases[index]
    var status = Self.healthy()
    change(&status)
    #expect(status.needs(Self.limits()).map(\.kind) == expected, "\(name)")
  }

  @Test("without thresholds ages aren't looked at") func noThresholds() {
    var status = Self.healthy()
    status.lineages[0].newestGood?.stopTime = 0
    status.lineages[0].drill = nil
    status.verification = nil
    #expect(status.needs(StatusLimits()) == [])
  }

  @Test("the window begins with the oldest backup that reaches the end; older ones are single moments") func window()
    throws
  {
    let world = try SmallRepository()
    try world.backup("a", number: 2, age: 300)
    try world.backup("b", number: 4, age: 200)
    try world.wal(5)
    try world.backup("c", number: 6, age: 100)
    let repository = world.open()
    let status = try StatusGathering(repository, continuous: { Set($0.backups.map(\.label.text)) }).gather()
    let lineage = try #require(status.lineages.first)
    #expect(lineage.singleMoments == ["a"])
    let window = try #require(lineage.window)
    #expect(window.backups.map(\.label.text) == ["b", "c"])
    #expect(abs(Double(window.from) / 1e6 - (Double(wallClockSeconds()) - 200)) < 60)
    // No segment has a commit, so no moment behind the first backup's end is known. Where not all were looked at, the
    // newest backup's end is.
    #expect(window.to == window.from)
    let catalog = try repository.catalog(world.lineage)
    let wal = try repository.walCatalog(world.lineage, segmentSize: .standard)
    let looked = try #require(try repository.recoverability(catalog, wal, commitSearch: 1).windows.first)
    #expect(abs(Double(looked.to) / 1e6 - (Double(wallClockSeconds()) - 100)) < 60)
    #expect(abs(Double(window.lastSegmentSealed) / 1e6 - Double(wallClockSeconds())) < 60)
  }
}

@Suite("The program's verify and status", .serialized) struct UpkeepProgramTests {
  @Test("verify: killed, it goes on where it was; findings end with 1; usage errors say the remedy") func verify()
    throws
  {
    let setup = try ProgramWorld()
    for number in UInt32(8)..<60 { try setup.world.wal(number) }
    // The hole between the backups a and b.
    try setup.world.wal(5)
    let killed = try setup.run(["verify"], crashAt: "verify.after-save:1")
    #expect(killed.ending == .signalled(9))
    let resumed = try setup.json(["verify"])
    #expect(resumed["resumed"] as? Bool == true)
    let counts = try #require(resumed["counts"] as? [String: Any])
    #expect(counts["objects"] as? Int == counts["listed"] as? Int)
    #expect(counts["copies"] as? Int == 2 * (counts["listed"] as? Int ?? 0))
    #expect(try setup.json(["verify"])["resumed"] as? Bool == false)

    let name = setup.world.lineage.pack(try BackupLabelName("a"), 2)
    try DurableFile.remove(setup.world.path("east", name))
    let found = try setup.json(["verify", "--sample", "10", "--seed", "3"], status: 1)
    #expect(found["seed"] as? Int == 3)
    let finding = try #require((found["findings"] as? [[String: Any]])?.first)
    #expect(finding["kind"] as? String == "missing" && finding["mended"] as? Bool == true)
    #expect(fileExists(setup.world.path("east", name)))
    #expect(try setup.run(["verify", "--sample", "0"]).ending == .exited(64))
    #expect(try setup.run(["verify", "--rate-limit", "fast"]).ending == .exited(64))
    #expect(try setup.run(["verify", "--rate-limit", "100MiB"]).ending == .exited(0))
  }

  @Test("status: at a glance, 0 when all is well, 1 when something needs a person") func status() throws {
    let setup = try ProgramWorld()
    try setup.world.wal(5)
    let well = try setup.json(["status"])
    #expect(well["ok"] as? Bool == true)
    let lineage = try #require((well["lineages"] as? [[String: Any]])?.first)
    #expect(lineage["backups"] as? Int == 3)
    #expect((lineage["newest"] as? [String: Any])?["label"] as? String == "c")
    #expect(lineage["lastDrill"] == nil)
    let text = try setup.run(["status"])
    #expect(text.outputText.contains("last drill: never\n") && text.outputText.hasSuffix("all is well\n"))

    _ = try setup.run(["hold", "a", "--reason", "audit"])
    let drill = try ObjectName("crm/7301/drills/20261124T000000Z-0001")
    let report = Array("{\"ok\":false,\"rtoSeconds\":12.5,\"rtoMet\":true}".utf8)
    try setup.world.create(.report, drill, report)
    try DurableFile.move("\(setup.root)/east", to: "\(setup.root)/away")
    let ill = try setup.run(["status"])
    #expect(ill.ending == .exited(1))
    #expect(ill.outputText.contains("held: a, audit"))
    #expect(ill.outputText.contains("NEEDS YOU: region east"))
    #expect(ill.outputText.contains("NEEDS YOU: drill 20261124T000000Z-0001: the last drill failed"))
    #expect(ill.outputText.contains("RTO 12.5 s"))
  }

  @Test("sync gives up debts for what expired, and copies manifests last", arguments: [1, 4, 7]) func sync(copies: Int)
    throws
  {
    let setup = try ProgramWorld()
    let world = setup.world
    try world.open().regions.debts.record(
      Debt(region: "east", object: world.lineage.pack(try BackupLabelName("gone"), 1)))
    let document = try setup.json(["sync"])
    #expect(document["obsolete"] as? Int == 1 && (document["findings"] as? [Any])?.isEmpty == true)
    #expect(try world.open().regions.debts.debts().isEmpty)

    try FileManager.default.removeItem(atPath: "\(setup.root)/east/tidemark/crm/7301")
    #expect(try setup.run(["sync"], crashAt: "sync.before-copy:\(copies + 5)").ending == .signalled(9))
    #expect(try world.missingPacks("east").isEmpty)
    #expect(try setup.run(["sync"]).succeeded)
    #expect(try world.names(1) == world.names(0))
  }
}
