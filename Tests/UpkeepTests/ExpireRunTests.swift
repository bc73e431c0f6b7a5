// Expiry on real directories: what is deleted and in which order, what stays, and what another process may do meanwhile.
import BackupRepository
import Configuration
import Diagnostics
import Foundation
import ObjectStorage
import PostgresFormats
import SystemSupport
import Testing

@testable import Retention

@Suite("Expire") struct ExpireRunTests {
  let world: SmallRepository
  init() throws { world = try SmallRepository() }

  /// Keeps one backup, and what nothing names for `grace`.
  static func options(grace: Duration = .zero, count: Int = 1, newest: Int = 1) -> ExpireOptions {
    var policy = RetentionPolicy()
    policy.newest = newest
    policy.count = count
    policy.grace = grace
    return ExpireOptions(policy)
  }

  @discardableResult
  func expire(
    _ options: ExpireOptions = ExpireRunTests.options(), host: String = "host",
    onStep: @escaping (String) throws -> Void = { _ in }
  ) throws -> ExpireReport {
    try ExpireRun(world.open(host: host), options, onStep: onStep).run()
  }

  /// Three backups; the last one refers to packs of the first.
  func threeBackups() throws {
    try world.backup("a", number: 2, age: 300)
    try world.wal(3)
    try world.backup("b", number: 4, age: 200, own: 1, others: ["a": [1]])
    try world.wal(5)
    try world.backup("c", number: 6, age: 100, own: 1, others: ["a": [2]])
    try world.wal(7)
  }

  static let afterwards = [
    "backups/c/files/00000001", "backups/c/manifest", "packs/a/00000002", "packs/c/00000001",
    "wal/00000001/000000010000000000000006", "wal/00000001/000000010000000000000007",
  ]

  @Test("what a kept backup refers to stays, also packs of expired ones; the rest goes in every region") func whole()
    throws
  {
    try threeBackups()
    var steps: [String] = []
    var manifestsFirst = false
    let report = try expire { step in
      steps.append(step)
      if step == "manifests" { manifestsFirst = try world.names().filter { $0.hasPrefix("packs/") }.count == 4 }
    }
    #expect(
      steps == [
        "manifests-deleted", "manifests", "packs-listed", "condemned", "packs", "file-tables", "wal", "rewraps",
      ])
    #expect(manifestsFirst)
    for region in 0...1 { #expect(try world.names(region) == Self.afterwards) }
    let expiry = try #require(report.lineages.first)
    #expect(expiry.expired == ["a", "b"])
    #expect(expiry.packs.kept == 2 && expiry.packs.deleted == 2 && expiry.packs.deletedBytes > 0)
    #expect(expiry.wal.kept == 2 && expiry.wal.deleted == 4)
    #expect(expiry.continuousFrom.map(\.description) == ["000000010000000000000006"])
    #expect(report.findings.isEmpty && report.locked.isEmpty && report.remarks.isEmpty)
    // Nothing is left to do.
    #expect(try expire().lineages.first?.expired == [])
    for region in 0...1 { #expect(try world.names(region) == Self.afterwards) }
  }

  @Test("a dry run says the same and changes nothing, not even on the host's own disk") func dryRun() throws {
    try threeBackups()
    let before = try world.names()
    var options = Self.options()
    options.isDryRun = true
    let report = try expire(options)
    #expect(report.lineages.first?.expired == ["a", "b"])
    #expect(report.lineages.first?.packs.deleted == 2)
    #expect(report.lineages.first?.wal.deleted == 4)
    #expect(try world.names(0) == before && world.names(1) == before)
    #expect(!fileExists("\(world.directory.path)/host/expire"))
  }

  @Test("what nothing names stays for the grace, as this host saw it") func grace() throws {
    try threeBackups()
    try world.age("", by: 7200)
    let waiting = try expire(Self.options(grace: .seconds(3600)))
    #expect(waiting.lineages.first?.expired == ["a", "b"])
    #expect(waiting.lineages.first?.packs.waiting == 2 && waiting.lineages.first?.packs.deleted == 0)
    #expect(try world.names().filter { $0.hasPrefix("packs/") }.count == 4)
    let journal = "\(world.directory.path)/host/expire/crm-7301"
    let text = String(decoding: try readFile(journal), as: UTF8.self)
    let lines = text.split(separator: "\n").map { line in
      let fields = line.split(separator: " ")
      return "\((Int(fields[0]) ?? 0) - 3601) \(fields[1])\n"
    }
    #expect(lines.count == 2 + 2 + 4)
    try DurableFile.write(Array(lines.joined().utf8), to: journal)
    // Another host has its own memory, and waits.
    #expect(try expire(Self.options(grace: .seconds(3600)), host: "other").lineages.first?.packs.deleted == 0)
    #expect(try expire(Self.options(grace: .seconds(3600))).lineages.first?.packs.deleted == 2)
    #expect(try world.names() == Self.afterwards)
  }

  @Test("a journal that can't be read starts the wait anew") func damagedJournal() throws {
    try threeBackups()
    try DurableFile.createDirectories("\(world.directory.path)/host/expire")
    try DurableFile.write(
      Array("x y z\n\0\n12\n99999999999 crm/x\n".utf8), to: "\(world.directory.path)/host/expire/crm-7301")
    try world.age("", by: 7200)
    #expect(try expire(Self.options(grace: .seconds(3600))).lineages.first?.packs.waiting == 2)
  }

  @Test("no policy, no deletion") func noPolicy() throws {
    try threeBackups()
    let before = try world.names()
    #expect(thrownCode { try expire(ExpireOptions(RetentionPolicy())) } == .configurationInvalid)
    #expect(try world.names() == before)
  }

  // MARK: Beside a running backup

  @Test("an unfinished backup stays while its lease holds, and so does what it builds on") func runningBackup() throws {
    try threeBackups()
    let lease = try BackupLease(
      world.open(), world.lineage, try BackupLabelName("d"), predecessor: try BackupLabelName("b"), interrupted: ["e"])
    defer { lease.release() }
    try world.backup("d", number: 8, age: 0, hasManifest: false)
    // It uses what a backup that was killed days ago had uploaded.
    try world.backup("e", number: 8, age: 0, hasManifest: false)
    try world.age("backups/e", by: 3 * 86400)
    try world.age("packs/e", by: 3 * 86400)
    let report = try expire()
    #expect(report.lineages.first?.expired == ["a"])
    #expect(report.lineages.first?.decisions[1].explanations == ["the running backup d builds on it"])
    // The WAL that it needs may be older than the newest complete backup.
    #expect(report.lineages.first?.wal.deleted == 0 && report.lineages.first?.wal.waiting == 3)
    #expect(report.lineages.first?.unfinished.keys.sorted() == ["d", "e"])
    #expect(report.lineages.first?.unfinished["e"] == "running, or used by a backup that is")
    #expect(try world.names().contains("packs/d/00000002"))
    #expect(try world.names().contains("packs/e/00000002"))
    #expect(try world.names().contains("packs/b/00000001"))
    #expect(try world.missingPacks("west").isEmpty)
    // Its host died: after the lease's time everything goes.
    try world.age("backups/d", by: 86400 + 400)
    try world.age("packs/d", by: 86400 + 400)
    #expect(try expire().lineages.first?.expired == ["b"])
    #expect(try world.names() == Self.afterwards + ["wal/00000001/000000010000000000000008"])
  }

  @Test("a backup without a lease that was written to lately stays for the grace") func recentlyWritten() throws {
    try threeBackups()
    try world.backup("d", number: 8, age: 0, hasManifest: false)
    let report = try expire(Self.options(grace: .seconds(3600)))
    #expect(report.lineages.first?.unfinished == ["d": "without a manifest, written to lately"])
    #expect(report.lineages.first?.packs.kept == 2 && report.lineages.first?.packs.waiting == 2 + 2)
  }

  @Test("a lease taken after the manifest it names was deleted stops the deletion of packs") func lateLease() throws {
    try threeBackups()
    var lease: BackupLease?
    let report = try expire { step in
      guard step == "manifests-deleted" else { return }
      lease = try BackupLease(
        world.open(), world.lineage, try BackupLabelName("d"), predecessor: try BackupLabelName("b"))
    }
    lease?.release()
    #expect(report.lineages.first?.expired == ["a", "b"])
    #expect(report.lineages.first?.packs.waiting == 2)
    #expect(report.remarks.contains { $0.contains("builds on b, whose manifest is gone") })
    #expect(try world.names().filter { $0.hasPrefix("packs/") }.count == 4)
    // And so in the next run, until the backup is over.
    #expect(try expire().lineages.first?.packs.waiting == 2)
    try world.age("backups/d", by: 86400 + 400)
    #expect(try expire().lineages.first?.packs.deleted == 2)
    #expect(try world.names() == Self.afterwards)
  }

  @Test("a backup that is completed while manifests are deleted keeps what it names") func completedMeanwhile() throws {
    try threeBackups()
    try expire { step in
      if step == "manifests" { try world.backup("d", number: 8, age: 0, own: 1, others: ["b": [1], "a": [1]]) }
    }
    #expect(try world.names().filter { $0.hasPrefix("packs/") }.count == 5)
    #expect(try world.missingPacks("west").isEmpty && world.missingPacks("east").isEmpty)
    #expect(try world.names().contains("wal/00000001/000000010000000000000008"))
  }

  @Test("a backup that begins while packs are listed loses none", arguments: ["manifests", "packs-listed"])
  func begunMeanwhile(step: String) throws {
    try threeBackups()
    var lease: BackupLease?
    try expire { reached in
      guard reached == step else { return }
      lease = try BackupLease(
        world.open(), world.lineage, try BackupLabelName("d"), predecessor: try BackupLabelName("c"))
      try world.backup("d", number: 8, age: 0, hasManifest: false)
    }
    lease?.release()
    #expect(try world.names().filter { $0.hasPrefix("packs/d/") }.count == 2)
    #expect(try world.names().filter { $0.hasPrefix("backups/d/") }.count == 2)
  }

  @Test("packs without any manifest in their lineage wait: the listing may be at fault") func noManifests() throws {
    try world.backup("d", number: 8, age: 0, hasManifest: false)
    try world.age("packs/", by: 10 * 86400)
    try world.age("backups/", by: 10 * 86400)
    let report = try expire()
    #expect(report.lineages.first?.packs.waiting == 2 && report.lineages.first?.wal.deleted == 0)
    #expect(report.remarks.contains { $0.contains("no backup of the lineage stands") })
    #expect(try world.names().count == 4)
  }

  // MARK: Holds

  @Test("a held backup stays with its own WAL until it is released") func holds() throws {
    try threeBackups()
    let repository = world.open()
    let hold = try repository.hold(world.lineage, try BackupLabelName("a"), reason: "audit 2026")
    #expect(try expire().lineages.first?.expired == ["b"])
    #expect(try world.names().filter { $0.hasPrefix("wal/") }.map { $0.suffix(1) } == ["2", "6", "7"])
    #expect(try world.missingPacks("west").isEmpty)
    #expect(try repository.holds(world.lineage).map(\.reason) == ["audit 2026"])
    try repository.release(world.lineage, hold)
    try repository.release(world.lineage, hold)
    #expect(try repository.holds(world.lineage).isEmpty)
    #expect(try expire().lineages.first?.expired == ["a"])
    #expect(
      thrownCode { _ = try repository.hold(world.lineage, try BackupLabelName("a"), reason: "") } == .backupNotFound)
  }

  @Test("a backup that is held in the moment of its deletion is put back, byte for byte") func lateHold() throws {
    try threeBackups()
    let manifest = world.path("east", world.lineage.manifest(try BackupLabelName("b")))
    let before = try readFile(manifest)
    var hasHeld = false
    let report = try expire { step in
      guard step == "manifests-deleted", !hasHeld else { return }
      hasHeld = true
      // The hold saw the manifest before it was deleted.
      let (label, id) = (try BackupLabelName("b"), BackupLabelName.new())
      try world.create(.hold, world.lineage.hold(label, id), Array("{\"format\":1,\"reason\":\"now\"}".utf8))
    }
    #expect(report.lineages.first?.expired == ["a"])
    #expect(report.remarks.contains { $0.contains("b was held while it was being deleted") })
    #expect(try readFile(manifest) == before)
    #expect(try world.missingPacks("west").isEmpty && world.missingPacks("east").isEmpty)
  }

  @Test("a hold that can't be read holds, a release that no trusted writer signed releases nothing")
  func forgedRelease()
    throws
  {
    try threeBackups()
    let (label, id) = (try BackupLabelName("a"), BackupLabelName.new())
    for region in world.open().regions.regions {
      for name in [world.lineage.hold(label, id), world.lineage.release(label, id)] {
        _ = try region.store.create(region.key(name), Array("forged".utf8), deadline: .after(.seconds(5)))
      }
    }
    #expect(try world.open().holds(world.lineage).map(\.label) == [label])
    #expect(try expire().lineages.first?.expired == ["b"])
  }

  // MARK: What can't be judged

  @Test("a manifest that can't be read stays, and with it all packs and WAL, until it is given up") func unreadable()
    throws
  {
    try threeBackups()
    let label = try BackupLabelName("x")
    for region in world.open().regions.regions {
      _ = try region.store.create(region.key(world.lineage.manifest(label)), [1, 2, 3], deadline: .after(.seconds(5)))
    }
    let report = try expire()
    #expect(report.lineages.first?.expired == ["a", "b"])
    #expect(report.lineages.first?.packs.waiting == 2 && report.lineages.first?.wal.waiting == 4)
    #expect(report.findings.count == 1 && report.findings[0].contains("tidemark expire --remove x"))
    var options = Self.options()
    options.removes = ["x"]
    #expect(try expire(options).lineages.first?.expired == ["x"])
    try expire()
    #expect(try world.names() == Self.afterwards)
  }

  @Test("removing one backup leaves the others, and refuses held and newest ones") func remove() throws {
    try threeBackups()
    var options = Self.options(newest: 1)
    options.removes = ["c"]
    #expect(thrownCode { try expire(options) } == .backupProtected)
    options.removes = ["nothing"]
    #expect(thrownCode { try expire(options) } == .backupNotFound)
    options.removes = ["b"]
    let wal = try world.names().filter { $0.hasPrefix("wal/") }
    try expire(options)
    #expect(try world.names().filter { $0.hasSuffix("manifest") } == ["backups/a/manifest", "backups/c/manifest"])
    #expect(try world.names().filter { $0.hasPrefix("wal/") } == wal)
    #expect(try world.missingPacks("west").isEmpty)
  }

  @Test("while a region can't be asked manifests go elsewhere, packs and WAL wait; later the rest is done")
  func regionDown()
    throws
  {
    try threeBackups()
    let east = "\(world.directory.path)/east"
    try DurableFile.move(east, to: east + ".away")
    let report = try expire()
    #expect(report.regionsNotAsked == ["east"])
    #expect(report.findings.contains { $0.contains("east couldn't be asked") && $0.contains("--without-region east") })
    #expect(report.lineages.first?.expired == ["a", "b"])
    #expect(try world.names().filter { $0.hasPrefix("packs/") }.count == 4)
    // An operator who knows that it stays away goes on without it.
    _ = try ExpireRun(world.open().without(regions: ["east"]), Self.options()).run()
    #expect(try world.names() == Self.afterwards)
    try DurableFile.move(east + ".away", to: east)
    #expect(try expire().findings.isEmpty)
    for region in 0...1 { #expect(try world.names(region) == Self.afterwards) }
  }

  @Test("a locked object is reported and no error; its backup stays whole") func locked() throws {
    try threeBackups()
    let repository = world.open(wrapping: ["east": { LockingStore($0, locked: "backups/b/manifest") }])
    let report = try ExpireRun(repository, Self.options()).run()
    #expect(report.locked.map(\.object) == ["crm/7301/backups/b/manifest"])
    #expect(report.findings.isEmpty)
    #expect(report.lineages.first?.expired == ["a"])
    #expect(try world.names(0).filter { $0.hasSuffix("manifest") } == ["backups/c/manifest"])
    #expect(try world.names(1).filter { $0.hasSuffix("manifest") } == ["backups/b/manifest", "backups/c/manifest"])
    #expect(try world.missingPacks("east").isEmpty)
    #expect(try world.names(1).contains("wal/00000001/000000010000000000000004"))
    // The lock is over.
    #expect(try expire().locked.isEmpty)
    for region in 0...1 { #expect(try world.names(region) == Self.afterwards) }
  }

  @Test("a manifest that can't be read when it is about to go stays: a hold in that moment could not put it back")
  func
    unreadAtTheLast() throws
  {
    try threeBackups()
    let before = try world.names()
    // Read once, for the catalogue.
    let reads = Counter()
    let wrap: (any ObjectStore) -> any ObjectStore = {
      LockingStore($0, locked: "backups/b/manifest", reads: reads, readCountMax: 1)
    }
    let repository = world.open(wrapping: ["west": wrap, "east": wrap])
    #expect(thrownCode { _ = try ExpireRun(repository, Self.options()).run() } == .regionUnreachable)
    #expect(reads.add(0) > 1)
    #expect(try world.names(0) == before && world.names(1) == before)
    #expect(try expire().lineages.first?.expired == ["a", "b"])
  }

  @Test("debts for what was deleted everywhere are settled") func debts() throws {
    try threeBackups()
    let journal = world.open().regions.debts
    let gone = Debt(region: "east", object: world.lineage.pack(try BackupLabelName("b"), 1))
    let kept = Debt(region: "east", object: world.lineage.pack(try BackupLabelName("c"), 1))
    for debt in [gone, kept] { try journal.record(debt) }
    try expire()
    #expect(try journal.debts() == [kept])
  }

  @Test("two runs at once delete the same", arguments: ["manifests-deleted", "packs-listed", "condemned", "packs"])
  func twoHosts(step: String) throws {
    try threeBackups()
    var hasRun = false
    try expire { reached in
      if reached == step, !hasRun {
        hasRun = true
        try expire(host: "other")
      }
    }
    #expect(hasRun)
    for region in 0...1 { #expect(try world.names(region) == Self.afterwards) }
  }

  @Test("one run on a host excludes another") func oneAtATime() throws {
    try threeBackups()
    var code: ErrorCode?
    try expire { step in if step == "manifests" { code = thrownCode { try expire() } } }
    #expect(code == .locked)
  }

  @Test("a lineage that was left behind is judged by itself") func lineages() throws {
    try threeBackups()
    let other = world.layout.lineage(SystemIdentifier(rawValue: 9000))
    for number in 1...3 {
      let label = try BackupLabelName("n\(number)")
      var manifest = BackupManifest(label: label, cluster: "crm", systemIdentifier: other.systemIdentifier)
      manifest.timeline = 1
      manifest.startLSN = "0/\(number)000028"
      manifest.stopLSN = "0/\(number)000100"
      manifest.walSegmentSize = 16 << 20
      manifest.blockSize = 65536
      manifest.fileTableParts = 1
      try world.create(.manifest, other.manifest(label), try manifest.encoded())
    }
    let report = try expire()
    #expect(report.lineages.map(\.expired) == [["a", "b"], ["n1", "n2"]])
  }
}

/// A store whose lock on some objects refuses their deletion, in the words of Amazon S3, and which gives them out so often
/// and no more. It counts listings below names with `locked` in them, and refuses them behind `listCountMax`.
final class LockingStore: ObjectStore {
  private let store: any ObjectStore
  private let locked: String
  private let reads: Counter
  private let readCountMax: Int
  private let lists: Counter
  private let listCountMax: Int

  init(
    _ store: any ObjectStore, locked: String, reads: Counter = Counter(), readCountMax: Int = .max,
    lists: Counter = Counter(), listCountMax: Int = .max
  ) {
    self.lists = lists
    self.listCountMax = listCountMax
    self.store = store
    self.locked = locked
    self.reads = reads
    self.readCountMax = readCountMax
  }

  var location: String { store.location }
  var clockOffset: Duration? { store.clockOffset }
  var statistics: StoreStatistics { store.statistics }

  func create(_ key: ObjectKey, _ body: ObjectBody, deadline: Deadline) throws(TidemarkError) -> CreationOutcome {
    try store.create(key, body, deadline: deadline)
  }
  func read(
    _ key: ObjectKey, range: ByteRange?, deadline: Deadline, buffer: ReceiveBuffer?
  ) throws(TidemarkError) -> [UInt8] {
    if key.text.hasSuffix(locked), reads.add(1) > readCountMax {
      throw TidemarkError(.regionUnreachable, "the test's store is away", object: key.text)
    }
    return try store.read(key, range: range, deadline: deadline, buffer: buffer)
  }
  func information(_ key: ObjectKey, deadline: Deadline) throws(TidemarkError) -> ObjectInformation? {
    try store.information(key, deadline: deadline)
  }
  func list(
    prefix: String, startingAfter: String?, deadline: Deadline, _ body: (ObjectInformation) throws -> Bool
  ) throws(TidemarkError) {
    if prefix.contains(locked), lists.add(1) > listCountMax {
      throw TidemarkError(.regionUnreachable, "the test's store is away", object: prefix)
    }
    try store.list(prefix: prefix, startingAfter: startingAfter, deadline: deadline, body)
  }
  func honoursConditionalCreation(probe: ObjectKey, deadline: Deadline) throws(TidemarkError) -> Bool {
    try store.honoursConditionalCreation(probe: probe, deadline: deadline)
  }
  func delete(_ keys: [ObjectKey], deadline: Deadline) throws(TidemarkError) -> [DeletionFailure] {
    let refused = keys.filter { $0.text.hasSuffix(locked) }
    return try store.delete(keys.filter { !$0.text.hasSuffix(locked) }, deadline: deadline)
      + refused.map {
        DeletionFailure(key: $0, reason: "AccessDenied: Access Denied because object protected by object lock.")
      }
  }
}
