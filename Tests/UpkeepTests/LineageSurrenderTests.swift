// Giving up a lineage that was left behind: all of it goes, in the order of every expiry; what is alive, held or the only
// one is refused, and other lineages aren't touched.
import BackupRepository
import Configuration
import Diagnostics
import Foundation
import PostgresFormats
import SystemSupport
import Testing

@testable import Retention

@Suite("Giving up a lineage") struct LineageSurrenderTests {
  /// Two lineages under the same cluster's name: 7301 was left behind ten days ago, 7302 took its place.
  let old: SmallRepository
  let new: SmallRepository

  init() throws {
    old = try SmallRepository()
    new = try SmallRepository(keys: old.keys, directory: old.directory, systemIdentifier: 7302)
    try old.backup("a", number: 2, age: 300)
    try old.wal(3)
    try old.backup("b", number: 4, age: 200, own: 1, others: ["a": [1]])
    try old.create(.timelineHistory, old.lineage.wal(try WALFileName(text: "00000002.history")))
    try old.create(.report, old.lineage.drill(try BackupLabelName("20260101T000000Z-0001")))
    try old.age("", by: 10 * 86400)
    try new.backup("c", number: 2, age: 100)
    try new.age("", by: 5 * 86400)
  }

  private func giveUp(
    _ identifier: UInt64 = 7301, live: Set<UInt64> = [], needsNoSuccessor: Bool = false, isDryRun: Bool = false,
    grace: Duration = .zero, host: String = "host", onStep: @escaping (String) throws -> Void = { _ in }
  ) throws -> ExpireReport {
    var options = ExpireOptions(RetentionPolicy())
    options.policy.grace = grace
    options.isDryRun = isDryRun
    var surrender = LineageSurrender(SystemIdentifier(rawValue: identifier))
    surrender.live = Set(live.map { SystemIdentifier(rawValue: $0) })
    surrender.needsNoSuccessor = needsNoSuccessor
    options.surrender = surrender
    return try ExpireRun(old.open(host: host), options, onStep: onStep).run()
  }

  /// Requires a refusal that leaves everything, and returns its cause.
  private func refusal(_ code: ErrorCode, _ body: () throws -> Void) throws -> String {
    let before = [try old.names(), try old.names(1), try new.names()]
    var found: TidemarkError?
    do { try body() } catch { found = TidemarkError.wrapping(error) }
    #expect(found?.code == code)
    #expect([try old.names(), try old.names(1), try new.names()] == before)
    return found?.cause ?? ""
  }

  @Test("backups and WAL go in every region; reports of drills and other lineages stay") func whole() throws {
    let before = try new.names()
    let planned = try giveUp(isDryRun: true)
    #expect(planned.lineages.map(\.expired) == [["a", "b"]])
    #expect(try old.names().count == 12)
    var steps: [String] = []
    let report = try giveUp { steps.append($0) }
    #expect(steps.first == "manifests-deleted")
    let expiry = try #require(report.lineages.first)
    #expect(expiry.decisions.map(\.explanations) == [["its lineage is given up"], ["its lineage is given up"]])
    #expect(expiry.packs.deleted == 3 && expiry.wal.deleted == 4 && expiry.fileTables.deleted == 2)
    for region in 0...1 { #expect(try old.names(region) == ["drills/20260101T000000Z-0001"]) }
    #expect(try new.names() == before && new.names(1) == before)
    #expect(report.findings.isEmpty)
  }

  @Test("packs and WAL stay for the grace, and the same command deletes them after it") func grace() throws {
    let report = try giveUp(grace: .seconds(3600))
    #expect(report.lineages.first?.expired == ["a", "b"])
    #expect(report.lineages.first?.packs.waiting == 3 && report.lineages.first?.wal.waiting == 4)
    // An expiry by policy says how the rest goes, and leaves it.
    let usual = try ExpireRun(old.open(), ExpireRunTests.options()).run()
    #expect(usual.remarks.contains { $0.contains("--give-up-lineage 7301") })
    #expect(try old.names().filter { $0.hasPrefix("packs/") }.count == 3)
    #expect(try giveUp().lineages.first?.packs.deleted == 3)
    #expect(try old.names() == ["drills/20260101T000000Z-0001"])
  }

  @Test("the lineage of the cluster that runs here is refused") func live() throws {
    let cause = try refusal(.lineageInUse) { _ = try giveUp(live: [7301]) }
    #expect(cause == "the cluster of this host has this system identifier")
    #expect(try giveUp(live: [7302]).lineages.first?.expired.count == 2)
  }

  @Test("one that was written to lately is refused, whatever it was", arguments: ["wal", "backup", "pack"])
  func writtenLately(what: String) throws {
    switch what {
    case "wal": try old.wal(5)
    case "backup": try old.backup("d", number: 6, age: 0, hasManifest: false)
    default: try old.create(.pack, old.lineage.pack(try BackupLabelName("e"), 1))
    }
    let cause = try refusal(.lineageInUse) { _ = try giveUp() }
    #expect(cause == "its last object was written 0 hours ago")
  }

  @Test("without another lineage whose backup is newer than all of it, it is refused, unless that is said too")
  func successor() throws {
    // WAL came after the other lineage's backup: both are alive.
    try old.wal(5)
    try old.age("wal/00000001/000000010000000000000005", by: 4 * 86400)
    let cause = try refusal(.lineageInUse) { _ = try giveUp() }
    #expect(cause.hasPrefix("no other lineage of the cluster has a good backup that is newer"))
    // The newer of the two has none that is newer.
    _ = try refusal(.lineageInUse) { _ = try giveUp(7302) }
    #expect(try giveUp(needsNoSuccessor: true).lineages.first?.expired.count == 2)
  }

  @Test("a successor with damaged pages is none") func suspectSuccessor() throws {
    let other = try SmallRepository()
    let next = try SmallRepository(keys: other.keys, directory: other.directory, systemIdentifier: 7302)
    try other.backup("a", number: 2, age: 300)
    try other.age("", by: 10 * 86400)
    try next.backup("c", number: 2, age: 100, suspect: "1 page")
    var options = ExpireOptions(RetentionPolicy())
    options.surrender = LineageSurrender(SystemIdentifier(rawValue: 7301))
    #expect(thrownCode { _ = try ExpireRun(other.open(), options).run() } == .lineageInUse)
  }

  @Test("a held backup is refused by its name; one that is held in the moment of its deletion is put back with its WAL")
  func held() throws {
    let repository = old.open()
    let hold = try repository.hold(old.lineage, try BackupLabelName("a"), reason: "audit 2026")
    try old.age("holds/", by: 10 * 86400)
    let cause = try refusal(.backupProtected) { _ = try giveUp() }
    #expect(cause == "this backup is held: audit 2026")
    try repository.release(old.lineage, hold)
    var hasHeld = false
    let report = try giveUp { step in
      guard step == "manifests-deleted", !hasHeld else { return }
      hasHeld = true
      let (label, id) = (try BackupLabelName("b"), BackupLabelName.new())
      try old.create(.hold, old.lineage.hold(label, id), Array("{\"format\":1,\"reason\":\"now\"}".utf8))
    }
    #expect(report.lineages.first?.expired == ["a"])
    #expect(try old.missingPacks("west").isEmpty && old.missingPacks("east").isEmpty)
    #expect(try old.names().filter { $0.hasPrefix("wal/") }.count == 4)
  }

  @Test("a manifest that nobody can read goes too") func unreadable() throws {
    for region in old.open().regions.regions {
      _ = try region.store.create(
        region.key(old.lineage.manifest(try BackupLabelName("x"))), [1, 2, 3], deadline: .after(.seconds(5)))
    }
    try old.age("backups/x", by: 10 * 86400)
    #expect(try giveUp().findings.isEmpty)
    #expect(try old.names() == ["drills/20260101T000000Z-0001"])
  }

  @Test("with a region that can't be asked nothing is given up; an unknown lineage is named") func refusals() throws {
    #expect(thrownCode { _ = try giveUp(7303) } == .backupNotFound)
    let east = "\(old.directory.path)/east"
    try DurableFile.move(east, to: east + ".away")
    let before = try old.names()
    #expect(thrownCode { _ = try giveUp() } != nil)
    #expect(try old.names() == before)
    try DurableFile.move(east + ".away", to: east)
    #expect(try giveUp().lineages.first?.expired.count == 2)
  }
}
