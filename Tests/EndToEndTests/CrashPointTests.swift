// kill -9 before and after every durable step: the next run converges. Nothing that was stored is overwritten or lost,
// no debt is forgotten, and a restore that was killed can't be started half-written. Each point kills a process of the
// real program; a point that isn't reached fails its test.
import Foundation
import SystemSupport
import TestSupport
import Testing

@Suite("Killed at a crash point", .serialized)
struct CrashPointTests {
  private static let shared = Result {
    let installation = try Installation(.v15, usesS3: false, degradeAfter: "1s", archives: false)
    try installation.server.psql(
      "CREATE TABLE t AS SELECT g AS id, md5(g::text) AS note FROM generate_series(1, 5000) g")
    return installation
  }
  private let installation: Installation
  private var root: String { installation.root }

  init() throws { installation = try Self.shared.get() }

  private func kill(_ point: String, _ arguments: [String]) throws {
    let outcome = try installation.run(arguments, environment: ["TIDEMARK_CRASH_AT": point])
    try #require(outcome.ending == .signalled(SIGKILL), "\(point): \(outcome.ending) \(outcome.errorText)")
  }

  private func segment() throws -> String {
    try installation.server.psql("INSERT INTO t SELECT g, 'more' FROM generate_series(1, 100) g")
    let name = try installation.server.psql("SELECT pg_walfile_name(pg_switch_wal())")
    return "\(installation.server.dataDirectory)/pg_wal/\(name)"
  }

  /// Every object of both regions with its digest. What is on its way lies below a name of the store's own.
  private func objects() throws -> [String: String] {
    let list = try ChildProcess.run(
      "sh", ["-c", "cd \"$0\" && find [we]*st -type f -path '*/crm/*' -exec sha256sum {} +", root])
    try #require(list.succeeded, "\(list.errorText)")
    return Dictionary(
      uniqueKeysWithValues: list.outputText.split(separator: "\n").map { line in
        let parts = line.split(separator: " ", maxSplits: 1)
        return (parts[1].trimmingCharacters(in: .whitespaces), String(parts[0]))
      })
  }

  /// Nothing of `before` was changed or removed.
  private func expectKept(_ before: [String: String], _ point: String) throws {
    let now = try objects()
    for (name, digest) in before { #expect(now[name] == digest, "\(point): \(name)") }
  }

  private func debtCount() throws -> Int {
    let path = "\(root)/state/debts/east"
    guard FileManager.default.fileExists(atPath: path) else { return 0 }
    return try FileManager.default.contentsOfDirectory(atPath: path).count { !$0.hasPrefix(".") }
  }

  /// After `sync` both regions hold the same, and nothing is owed.
  private func converge(_ point: String) throws {
    let report = try installation.json(["sync"])
    #expect(report["findings"] as? [String] == [], "\(point)")
    let difference = try ChildProcess.run("diff", ["-rq", "-x", "probes", "-x", ".*", "\(root)/west", "\(root)/east"])
    // A part of its file table that a killed backup had put into one region is nobody's: without a manifest it is no backup.
    // Its packs may be another's.
    let unfinished = try unfinishedBackups()
    let differing = difference.outputText.split(separator: "\n").filter { line in
      !unfinished.contains { line.contains("/backups/\($0): files") || line.contains("/backups/\($0)/files") }
    }
    #expect(differing.isEmpty && difference.error.isEmpty, "\(point): \(difference.outputText)")
    let owed = try debtCount()
    #expect(owed == 0, "\(point)")
  }

  /// The labels of which neither region has a manifest.
  private func unfinishedBackups() throws -> Set<String> {
    let names = try objects().keys.filter { $0.contains("/backups/2") }
    func labels(_ names: [String]) -> Set<String> {
      Set(
        names.compactMap { $0.split(separator: "/").first { $0.hasPrefix("20") && $0.contains("T") }.map(String.init) })
    }
    return labels(names).subtracting(labels(names.filter { $0.hasSuffix("/manifest") }))
  }

  private func away<Result>(_ body: () throws -> Result) throws -> Result {
    try FileManager.default.moveItem(atPath: "\(root)/east", toPath: "\(root)/away")
    defer { _ = try? FileManager.default.moveItem(atPath: "\(root)/away", toPath: "\(root)/east") }
    return try body()
  }

  // MARK: wal-push

  @Test(
    "wal-push",
    arguments: [
      "create.before-put", "create.before-put:2", "directory-store.before-link", "directory-store.before-link:2",
      "create.after-put", "create.after-put:2", "create.before-debts",
    ])
  func push(_ point: String) throws {
    let path = try segment()
    try kill(point, ["wal-push", path])
    let before = try objects()
    let again = try installation.run(["wal-push", path])
    #expect(again.succeeded, "\(point): \(again.errorText)")
    try expectKept(before, point)
    let name = baseName(path)
    let copies = try objects().keys.filter { $0.hasSuffix("/\(name)") }
    #expect(copies.count == 2, "\(point): \(copies)")
    try converge(point)
  }

  @Test(
    "wal-push with a region down",
    arguments: [
      "durable-file.before-rename", "durable-file.after-rename", "create.before-debts", "debt.before-record",
      "durable-file.before-link", "debt.after-record",
    ])
  func pushWithDebt(_ point: String) throws {
    // A region that was well until now: its health is noted first, by rename, and then the debt, by link.
    try converge(point)
    let path = try segment()
    try away {
      try kill(point, ["wal-push", path])
      let before = try objects()
      // PostgreSQL repeats what wasn't acknowledged.
      let again = try installation.run(["wal-push", path])
      #expect(again.succeeded, "\(point): \(again.errorText)")
      try expectKept(before, point)
      let owed = try debtCount()
      #expect(owed == 1, "\(point)")
    }
    try converge(point)
  }

  // MARK: sync

  @Test(
    "sync", arguments: ["directory-store.before-link", "sync.before-copy", "sync.before-settle", "debt.before-settle"])
  func sync(_ point: String) throws {
    let paths = [try segment(), try segment()]
    try away {
      for path in paths {
        let pushed = try installation.run(["wal-push", path])
        #expect(pushed.succeeded, "\(pushed.errorText)")
      }
    }
    let before = try objects()
    try kill(point, ["sync"])
    try expectKept(before, point)
    // What the journal doesn't name any more is there.
    let owed = try debtCount()
    let held = try paths.count { path in
      try objects().keys.contains { $0.hasPrefix("east/") && $0.hasSuffix(baseName(path)) }
    }
    #expect(owed + held >= paths.count, "\(point): \(owed) owed, \(held) held")
    try converge(point)
  }

  // MARK: Mending

  @Test("mending a damaged copy", arguments: ["mend.after-delete", "directory-store.before-link"])
  func mend(_ point: String) throws {
    let path = try segment()
    let pushed = try installation.run(["wal-push", path])
    #expect(pushed.succeeded)
    let name = baseName(path)
    let key = try #require(try objects().keys.first { $0.hasPrefix("west/") && $0.hasSuffix("/\(name)") })
    let good = try Data(contentsOf: URL(filePath: "\(root)/\(key)"))
    var bad = good
    bad[bad.count / 2] ^= 1
    try bad.write(to: URL(filePath: "\(root)/\(key)"))
    try PostgresServer.give("\(root)/\(key)")
    let target = "\(installation.server.dataDirectory)/pg_wal/RECOVERYXLOG"
    try kill(point, ["wal-fetch", name, target])
    // The missing copy is owed: sync brings it back, whatever anybody reads in between.
    let report = try installation.json(["sync", "--journal-only"])
    #expect(report["repaid"] as? Int == 1, "\(report)")
    let mended = try Data(contentsOf: URL(filePath: "\(root)/\(key)"))
    #expect(mended == good, "\(point)")
    let fetched = try installation.run(["wal-fetch", name, target])
    #expect(fetched.succeeded, "\(fetched.errorText)")
    try FileManager.default.removeItem(atPath: target)
  }

  // MARK: backup

  @Test(
    "backup",
    arguments: [
      "backup.after-lease", "backup.before-upload", "create.before-put", "directory-store.before-link:2",
      "create.after-put:3", "backup.after-upload", "backup.before-manifest", "backup.after-manifest",
    ])
  func backup(_ point: String) throws {
    func labels() throws -> Set<String> {
      let list = try installation.json(["list"])
      let backups = (list["lineages"] as? [[String: Any]] ?? []).flatMap { $0["backups"] as? [[String: Any]] ?? [] }
      return Set(backups.compactMap { $0["label"] as? String })
    }
    try archiving {
      let earlier = try labels()
      try kill(point, ["backup", "--full"])
      let before = try objects()
      let committed = try labels().subtracting(earlier)
      #expect(committed.count == (point == "backup.after-manifest" ? 1 : 0), "\(point)")
      let next = try installation.json(["backup"])
      try expectKept(before.filter { !$0.key.contains("/leases/") }, point)
      let label = try #require(next["label"] as? String)
      let new = try labels().subtracting(earlier).subtracting(committed)
      #expect(new == [label], "\(point)")
    }
    if ["create.after-put:3", "backup.after-manifest"].contains(point) { try restoresWell("after-\(point.prefix(9))") }
    try converge(point)
  }

  private func archiving(_ body: () throws -> Void) throws {
    let command = "\(root)/tidemark --config \(installation.configuration) wal-push %p"
    func set(_ command: String) throws {
      try installation.server.psql("ALTER SYSTEM SET archive_command = '\(command)'")
      try installation.server.psql("SELECT pg_reload_conf()")
    }
    try set(command)
    defer { _ = try? set("") }
    try body()
  }

  private func restoresWell(_ name: String) throws {
    try installation.restore(name, ["--to-backup-end"]) { query in
      let count = try query("SELECT count(*) >= 5000 FROM t")
      #expect(count == "t")
    }
  }

  // MARK: restore

  @Test(
    "restore", arguments: ["restore.before-control-file", "durable-file.before-rename:4", "restore.after-control-file"])
  func restore(_ point: String) throws {
    try archiving { _ = try installation.json(["backup"]) }
    let target = "\(root)/killed-\(point.replacing(":", with: "-"))"
    try kill(point, ["restore", "--target-directory", target, "--to-backup-end"])
    let isComplete = point == "restore.after-control-file"
    #expect(FileManager.default.fileExists(atPath: "\(target)/global/pg_control") == isComplete)
    if !isComplete {
      let start = PostgresServer.unprivileged("\(installation.server.version.binDirectory)/postgres", ["-D", target])
      let outcome = try ChildProcess.run(start[0], Array(start.dropFirst()), workingDirectory: "/")
      #expect(!outcome.succeeded)
    }
    // Nobody's files are written over, not even those of a dead restore.
    let again = try installation.run(["restore", "--target-directory", target, "--to-backup-end"])
    #expect(again.ending == .exited(76), "\(again.errorText)")
    #expect(again.errorText.contains("target-not-empty"))
    try FileManager.default.removeItem(atPath: target)
    try restoresWell(baseName(target))
  }
}
