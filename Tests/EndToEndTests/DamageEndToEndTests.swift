// Damage and forgery as the commands meet them. In one region: the work succeeds from the other, what was found is
// reported, and the copy is mended. In both: exit status 65, the object named, and nothing that could be started.
import Foundation
import Glibc
import SystemSupport
import TestSupport
import Testing

@Suite("Damage, end to end", .serialized)
struct DamageEndToEndTests {
  let installation: Installation
  private var root: String { installation.root }
  private var server: PostgresServer { installation.server }

  init() throws { installation = try Installation(.v15, usesS3: false) }

  /// The objects of a region, as paths below it; probes, the marker and what the archiver is just writing aside.
  private func objects(_ region: String, _ part: String = "/") throws -> [String] {
    let list = try ChildProcess.run("find", ["\(root)/\(region)", "-type", "f", "-printf", "%P\\n"])
    return list.outputText.split(separator: "\n").map(String.init).filter {
      $0.contains("/crm/") && $0.contains(part) && !$0.contains("/probes/") && !$0.hasSuffix("/repository")
    }.sorted()
  }

  private func bytes(_ region: String, _ object: String) throws -> Data {
    try Data(contentsOf: URL(filePath: "\(root)/\(region)/\(object)"))
  }

  private func spoil(_ region: String, _ objects: [String], _ change: (inout Data) -> Void) throws {
    for object in objects {
      var data = try bytes(region, object)
      change(&data)
      try data.write(to: URL(filePath: "\(root)/\(region)/\(object)"))
    }
  }

  /// Runs `body` with both copies of `object` spoilt, and puts the good ones back.
  private func spoiltEverywhere(_ object: String, _ body: () throws -> Void) throws {
    let good = try bytes("west", object)
    var bad = good
    bad[bad.count - 40] ^= 1
    for region in ["west", "east"] { try bad.write(to: URL(filePath: "\(root)/\(region)/\(object)")) }
    try body()
    for region in ["west", "east"] {
      #expect(try bytes(region, object) == bad, "nothing is deleted where no good copy is left")
      try good.write(to: URL(filePath: "\(root)/\(region)/\(object)"))
    }
  }

  private func events(_ report: [String: Any], _ kind: String) -> Set<String> {
    Set(
      (report["events"] as? [[String: Any]] ?? []).compactMap { event in
        event["kind"] as? String == kind ? event["object"] as? String : nil
      })
  }

  /// The object's name, as events and errors have it, of its path below a region.
  private func name(_ path: String) -> String { String(path.dropFirst("backups/tidemark/".count)) }

  /// A backup, and three segments behind it with a commit in each.
  private func prepare() throws {
    try server.psql("CREATE TABLE t AS SELECT g AS id, md5(g::text) AS note FROM generate_series(1, 20000) g")
    _ = try installation.json(["backup"])
    for step in 1...3 {
      try server.psql("INSERT INTO t VALUES (\(-step), 'behind the backup')")
      try installation.archiveWAL()
    }
  }

  /// A restore must fail with `status`, name `object`, and leave nothing that PostgreSQL would start.
  private func expectRefusal(_ status: Int32, _ object: String, _ arguments: [String] = ["--no-start"]) throws {
    let target = "\(root)/refused"
    defer { for path in [target, target + ".tidemark"] { _ = try? ChildProcess.run("rm", ["-rf", path]) } }
    let outcome = try installation.run(["restore", "--target-directory", target] + arguments)
    #expect(outcome.ending == .exited(status), "\(outcome.errorText)")
    #expect(outcome.errorText.contains(object), "\(outcome.errorText)")
    if arguments == ["--no-start"] { #expect(!fileExists("\(target)/global/pg_control")) }
    if let lines = try? readFile("\(target)/postmaster.pid") {
      let pid = try #require(pid_t(String(decoding: lines, as: UTF8.self).split(separator: "\n").first ?? ""))
      #expect(try eventually { kill(pid, 0) != 0 }, "a server still runs: \(outcome.errorText)")
    }
  }

  @Test("one copy of every object spoilt: restores, fetches and backups succeed, and what is met is mended")
  func oneRegion() throws {
    try prepare()
    let spoils: [(String, (inout Data) -> Void)] = [
      ("flipped", { $0[$0.count / 2] ^= 4 }), ("cut off", { $0 = $0.prefix($0.count / 2) }),
    ]
    let all = try objects("west").filter { !$0.contains("/leases/") }
    for (what, change) in spoils {
      var (damaged, mended): (Set<String>, Set<String>) = ([], [])
      let good = try all.map { try bytes("west", $0) }
      // One copy of each object is spoilt, in turn here and there: speed decides which region is asked for what.
      for parity in [0, 1] {
        let (here, there) = (all.indices.filter { $0 % 2 == parity }, all.indices.filter { $0 % 2 != parity })
        try spoil("west", here.map { all[$0] }, change)
        try spoil("east", there.map { all[$0] }, change)
        let target = "\(root)/\(what) \(parity)"
        let report = try installation.json(["restore", "--no-start", "--target-directory", target])
        damaged.formUnion(events(report, "damaged"))
        mended.formUnion(events(report, "mended"))
        for object in all where object.contains("/wal/") {
          let file = "\(server.dataDirectory)/pg_wal/RECOVERYXLOG"
          let outcome = try installation.run(["wal-fetch", baseName(object), file])
          #expect(outcome.succeeded, "\(outcome.errorText)")
          unlink(file)
        }
        for (object, bytes) in zip(all, good) {
          for region in ["west", "east"] {
            let isWhole = try self.bytes(region, object) == bytes
            #expect(isWhole || !events(report, "mended").contains(name(object)), "\(what): \(object)")
            try bytes.write(to: URL(filePath: "\(root)/\(region)/\(object)"))
          }
        }
        let verify = PostgresServer.unprivileged("\(server.version.binDirectory)/pg_verifybackup", ["-n", target])
        let verified = try ChildProcess.run(verify[0], Array(verify.dropFirst()), workingDirectory: "/")
        #expect(verified.succeeded, "\(verified.errorText)")
      }
      #expect(!damaged.isEmpty && mended == damaged, "\(what): \(damaged) \(mended)")
    }
    // Two objects exchanged, which an incremental backup reads.
    let tables = try objects("west", "/files/") + objects("west", "/manifest")
    let pair = try tables.map { try bytes("west", $0) }
    var mended: Set<String> = []
    for region in ["west", "east"] {
      for (index, object) in tables.enumerated() {
        try pair[(index + 1) % pair.count].write(to: URL(filePath: "\(root)/\(region)/\(object)"))
      }
      let backup = try installation.json(["backup"])
      mended.formUnion(events(backup, "mended"))
      #expect((backup["newBytes"] as? Int ?? .max) * 2 < (backup["databaseBytes"] as? Int ?? 0), "it is incremental")
      for (index, object) in tables.enumerated() {
        try pair[index].write(to: URL(filePath: "\(root)/\(region)/\(object)"))
      }
    }
    // Either region may have been asked first both times.
    #expect(mended.isSubset(of: tables.map(name)))
  }

  @Test("one object spoilt in both regions: exit status 65, the object named, nothing that could be started")
  func bothRegions() throws {
    try prepare()
    let manifest = try #require(try objects("west", "/manifest").first)
    let table = try #require(try objects("west", "/files/").first)
    let pack = try #require(try objects("west", "/packs/").first)
    for object in [manifest, table, pack] {
      try spoiltEverywhere(object) { try expectRefusal(65, name(object)) }
    }
    let label = manifest.split(separator: "/").dropLast().last.map(String.init) ?? ""
    try spoiltEverywhere(manifest) { try expectRefusal(65, name(manifest), ["--no-start", "--backup", label]) }

    // A segment in the middle of the way, found during the replay; the last one, found by the plan.
    let segments = try objects("west", "/wal/").filter { baseName($0).count == 24 }
    let behind = segments.suffix(3)
    for segment in [behind.dropFirst().first, behind.last] {
      let segment = try #require(segment)
      try spoiltEverywhere(segment) {
        try expectRefusal(65, baseName(segment), [])
        let target = "\(server.dataDirectory)/pg_wal/RECOVERYXLOG"
        #expect(try installation.run(["wal-fetch", baseName(segment), target]).ending == .exited(201))
        #expect(!fileExists(target))
      }
    }
    // A damaged manifest beside an older good one: the restore works from that, and says so.
    _ = try installation.json(["backup"])
    let newer = try #require(try objects("west", "/manifest").last)
    try spoiltEverywhere(newer) {
      let report = try installation.json(["restore", "--no-start", "--target-directory", "\(root)/older"])
      #expect(report["backup"] as? String == label)
      #expect(events(report, "damaged") == [name(newer)])
      // And the next backup builds on what can be used, and says why.
      let next = try installation.json(["backup"])
      #expect((next["remarks"] as? [String] ?? []).contains { $0.contains(name(newer)) })
    }
    // All is whole again.
    try installation.restore("whole", []) { query in
      let answer = try query("SELECT count(*), min(id) FROM t")
      #expect(answer == "20003|-3")
    }
  }

  @Test("what a stranger signed is neither restored, nor fetched, nor copied; archiving again mends what rotted")
  func strangers() throws {
    try installation.archiveWAL()
    let segment = try #require(try objects("west", "/wal/").first)
    let good = try bytes("west", segment)
    let live = "\(server.dataDirectory)/pg_wal/\(baseName(segment))"
    let target = "\(server.dataDirectory)/pg_wal/RECOVERYXLOG"
    // Another repository of the same cluster's name, with the recipient's public key and a writer key of its own.
    let recipients = try installation.run(["keys", "list"]).outputText
    let recipient = try #require(recipients.firstMatch(of: /tidemark-recipient-\w+/)).output
    let yaml = """
      cluster: crm
      repository: {prefix: backups/tidemark, regions: [{name: thief, endpoint: "file://\(root)/thief"}]}
      encryption: {recipients: [\(recipient)], writer-key-file: \(root)/thief.key}
      state-directory: \(root)/thief-state

      """
    try DurableFile.write(Array(yaml.utf8), to: "\(root)/thief.yaml", mode: 0o644)
    try PostgresServer.give("\(root)/thief.yaml")
    #expect(try installation.run(["init", "--config", "\(root)/thief.yaml"]).succeeded)
    #expect(try installation.run(["wal-push", live, "--config", "\(root)/thief.yaml"]).succeeded)
    let forged = try bytes("thief", segment)
    #expect(forged != good)

    // In one region: the other serves, and the copy is mended.
    try forged.write(to: URL(filePath: "\(root)/west/\(segment)"))
    #expect(try installation.run(["wal-fetch", baseName(segment), target]).succeeded)
    #expect(try bytes("west", segment) == good)
    // Where the other region lacks it, it isn't copied there.
    try forged.write(to: URL(filePath: "\(root)/west/\(segment)"))
    try FileManager.default.removeItem(atPath: "\(root)/east/\(segment)")
    let sync = try installation.run(["sync"])
    #expect(sync.ending == .exited(1))
    #expect(sync.outputText.contains(name(segment)) && !fileExists("\(root)/east/\(segment)"))
    unlink(target)
    let fetched = try installation.run(["wal-fetch", baseName(segment), target])
    #expect(
      fetched.ending == .exited(201) && fetched.errorText.contains("[writer-not-trusted]"), "\(fetched.errorText)")
    #expect(!fileExists(target))
    // Archiving the same file again doesn't take the stranger's copy for ours.
    let pushed = try installation.run(["wal-push", live])
    #expect(pushed.ending == .exited(65) && pushed.errorText.contains("[writer-not-trusted]"), "\(pushed.errorText)")
    #expect(try bytes("west", segment) == forged)

    // A copy of ours that rotted, header intact, is replaced by the next attempt, and not acknowledged as it is.
    var rotten = good
    rotten[rotten.count / 2] ^= 1
    for (west, east) in [(rotten, Optional(good)), (rotten, rotten), (rotten, nil)] {
      try west.write(to: URL(filePath: "\(root)/west/\(segment)"))
      if let east {
        try east.write(to: URL(filePath: "\(root)/east/\(segment)"))
      } else {
        try FileManager.default.removeItem(atPath: "\(root)/east/\(segment)")
      }
      let again = try installation.run(["wal-push", live])
      #expect(again.succeeded, "\(again.errorText)")
      for region in ["west", "east"] { #expect(try bytes(region, segment) != rotten) }
      unlink(target)
      #expect(try installation.run(["wal-fetch", baseName(segment), target]).succeeded)
      #expect(try Data(contentsOf: URL(filePath: target)) == Data(contentsOf: URL(filePath: live)))
    }
  }

  @Test("a newest backup that was deleted in every region is missed by the host that made it") func rollback() throws {
    _ = try installation.json(["backup"])
    let newest = try #require(try installation.json(["backup"])["label"] as? String)
    #expect(try installation.run(["check"]).succeeded)
    for region in ["west", "east"] {
      for object in try objects(region, "/backups/\(newest)/manifest") { unlink("\(root)/\(region)/\(object)") }
    }
    let check = try installation.run(["check"])
    #expect(
      check.ending == .exited(1) && check.outputText.contains("backup \(newest), the newest"), "\(check.outputText)")
    let next = try installation.json(["backup"])
    #expect((next["remarks"] as? [String] ?? []).contains { $0.contains("backup \(newest), the newest") })
    #expect(try installation.run(["check"]).succeeded)
  }
}
