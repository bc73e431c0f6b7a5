// Running a service by `check`, `list` and `show`: holes are named, findings have a remedy and a status, and no command
// ever changes an object that is there.
import Foundation
import SystemSupport
import TestSupport
import Testing

@Suite("Operation", .serialized)
struct OperationTests {
  @Test("no command overwrites or removes an object")
  func createOnly() throws {
    let installation = try Installation(.v15, usesS3: false)
    let server = installation.server
    try server.psql("CREATE TABLE ledger AS SELECT generate_series(1, 1000) AS id")
    let label = try #require(try installation.json(["backup"])["label"] as? String)
    let segment = try server.psql("SELECT pg_walfile_name(pg_current_wal_lsn())")
    try installation.archiveWAL()
    var known = try installation.objects()
    #expect(known.count > 10)
    let target = "\(installation.root)/restored"
    for arguments in [
      ["init"], ["check"], ["backup"], ["backup", "--full"], ["list"], ["show", label],
      ["wal-push", "\(server.dataDirectory)/pg_wal/\(segment)"],
      ["wal-fetch", segment, "\(server.dataDirectory)/pg_wal/RECOVERYXLOG"],
      ["restore", "--target-directory", target], ["sync"], ["keys", "list"],
    ] {
      let outcome = try installation.run(arguments)
      #expect(outcome.succeeded, "\(arguments): \(outcome.errorText)")
      let now = try installation.objects()
      for (name, digest) in known { #expect(now[name] == digest, "\(arguments) changed \(name)") }
      known = now
    }
    try installation.postgres("pg_ctl", ["stop", "-m", "immediate", "-D", target])
  }

  @Test("a hole in the WAL: list and check name it, targets before and behind it are reached, those in it refused")
  func hole() throws {
    let installation = try Installation(.v15, usesS3: false)
    let server = installation.server
    try server.psql("CREATE TABLE ledger (id int PRIMARY KEY); INSERT INTO ledger VALUES (1)")
    _ = try installation.json(["backup"])
    try server.psql("INSERT INTO ledger VALUES (2)")
    let before = try server.psql("SELECT clock_timestamp()")
    try server.psql("INSERT INTO ledger VALUES (3)")
    try installation.archiveWAL()
    try server.psql("INSERT INTO ledger VALUES (4)")
    let lost = try server.psql("SELECT pg_walfile_name(pg_current_wal_lsn())")
    let inside = try server.psql("SELECT clock_timestamp()")
    try server.psql("INSERT INTO ledger VALUES (5)")
    try installation.archiveWAL()
    try server.psql("INSERT INTO ledger VALUES (6)")
    let behind = try server.psql("SELECT clock_timestamp()")
    try server.psql("INSERT INTO ledger VALUES (7)")
    try installation.archiveWAL()
    #expect(try installation.json(["check"])["ok"] as? Bool == true)
    for region in ["west", "east"] {
      for path in try installation.stored("/\(lost)", in: region) { try FileManager.default.removeItem(atPath: path) }
    }
    let check = try installation.json(["check"], allowsFindings: true)
    #expect(check["ok"] as? Bool == false)
    let findings = (check["checks"] as? [[String: Any]] ?? []).filter { $0["status"] as? String == "finding" }
    #expect(findings.contains { ($0["subject"] as? String)?.contains(lost) == true }, "\(findings)")
    #expect(findings.allSatisfy { ($0["next"] as? String)?.isEmpty == false }, "\(findings)")
    #expect(try installation.run(["check"]).ending == .exited(1))
    let lineage = try #require((try installation.json(["list"])["lineages"] as? [[String: Any]])?.first)
    #expect((lineage["missing"] as? [[String: String]])?.first == ["first": lost, "last": lost], "\(lineage)")
    #expect(lineage["recoverable"] == nil)
    #expect((lineage["windows"] as? [[String: Any]])?.count == 1)

    let rows = "SELECT string_agg(id::text, ',' ORDER BY id) FROM ledger"
    try installation.restore("before", ["--to-time", before]) { query in expectEqual(try query(rows), "1,2") }
    let none = "\(installation.root)/none"
    for arguments in [["--to-time", inside], ["--to-time", behind], ["--to-latest"]] {
      let text = try installation.refuse(65, "wal-hole", ["restore", "--target-directory", none] + arguments)
      #expect(text.contains(lost), "\(text)")
    }
    #expect(!FileManager.default.fileExists(atPath: none))
    // A new backup begins a new stretch.
    _ = try installation.json(["backup"])
    try installation.archiveWAL()
    try installation.restore("latest", []) { query in expectEqual(try query(rows), "1,2,3,4,5,6,7") }
    let again = try #require((try installation.json(["list"])["lineages"] as? [[String: Any]])?.first)
    #expect((again["windows"] as? [[String: Any]])?.count == 2 && again["recoverable"] != nil, "\(again)")
    // The segment is still in pg_wal, so the hole can be filled.
    #expect(try installation.run(["wal-push", "\(server.dataDirectory)/pg_wal/\(lost)"]).succeeded)
    #expect(try installation.json(["check"])["ok"] as? Bool == true)
    let healed = try #require((try installation.json(["list"])["lineages"] as? [[String: Any]])?.first)
    #expect((healed["windows"] as? [[String: Any]])?.count == 1, "\(healed)")
    try installation.restore("filled", ["--to-time", inside]) { query in expectEqual(try query(rows), "1,2,3,4") }
  }

  @Test("a region that can't be asked and damage on the way are in the restore's report")
  func regionsInReport() throws {
    let installation = try Installation(.v15, usesS3: false)
    let root = installation.root
    let server = installation.server
    try server.psql("CREATE TABLE ledger (id int PRIMARY KEY); INSERT INTO ledger VALUES (1)")
    _ = try installation.json(["backup"])
    try server.psql("INSERT INTO ledger VALUES (2)")
    let segment = try server.psql("SELECT pg_walfile_name(pg_current_wal_lsn())")
    let early = try server.psql("SELECT pg_current_wal_lsn()")
    try installation.archiveWAL()
    try server.psql("INSERT INTO ledger VALUES (3)")
    let late = try server.psql("SELECT pg_walfile_name(pg_current_wal_lsn())")
    try installation.archiveWAL()
    try FileManager.default.moveItem(atPath: "\(root)/east", toPath: "\(root)/away")
    let report = try installation.restore("one-region", []) { query in
      expectEqual(try query("SELECT count(*) FROM ledger"), "3")
    }
    #expect(report["regionsNotAsked"] as? [String] == ["east"])
    try FileManager.default.moveItem(atPath: "\(root)/away", toPath: "\(root)/east")
    func spoil(_ region: String, _ name: String) throws {
      for path in try installation.stored("/\(name)", in: region) {
        var bytes = try readFile(path)
        // The same when it is done again.
        for index in 0..<16 { bytes[bytes.count / 2 + index] = 0 }
        try DurableFile.write(bytes, to: path)
        try PostgresServer.give(path)
      }
    }
    let whole = try (installation.stored("/\(segment)", in: "west") + installation.stored("/\(late)", in: "west"))
      .map { (path: $0.dropFirst("\(root)/west".count), bytes: try readFile($0)) }
    // Which region is asked for which of the two depends on their speed: whatever it is, every other attempt meets one.
    var kinds: [String] = []
    for attempt in 1...6 where !kinds.contains("damaged") {
      for region in ["west", "east"] {
        for object in whole {
          try DurableFile.write(object.bytes, to: "\(root)/\(region)\(object.path)")
          try PostgresServer.give("\(root)/\(region)\(object.path)")
        }
      }
      try spoil(attempt % 2 == 1 ? "west" : "east", segment)
      try spoil(attempt % 2 == 1 ? "east" : "west", late)
      let mended = try installation.restore("mended-\(attempt)", []) { query in
        expectEqual(try query("SELECT count(*) FROM ledger"), "3")
      }
      kinds = (mended["events"] as? [[String: Any]] ?? []).compactMap { $0["kind"] as? String }
    }
    #expect(kinds.contains("damaged") && kinds.contains("mended"), "\(kinds)")
    // In both: said with the object, and the server doesn't run; what doesn't need it is restored all the same.
    try spoil("west", late)
    try spoil("east", late)
    try installation.restore("without", ["--to-lsn", early]) { query in
      expectEqual(try query("SELECT count(*) FROM ledger"), "2")
    }
    let target = "\(root)/damaged"
    let text = try installation.refuse(65, "object-damaged", ["restore", "--target-directory", target])
    #expect(text.contains(late), "\(text)")
    #expect(try !installation.postgres("pg_ctl", ["status", "-D", target], succeeds: false).succeeded)
  }

  @Test("no command needs 256 MiB, whatever the database's size")
  func memory() throws {
    let installation = try Installation(.v15, usesS3: false)
    let server = installation.server
    // About 700 MB that don't compress away.
    try server.psql(
      """
      CREATE TABLE large AS SELECT g AS id, (SELECT string_agg(md5(random()::text || g || i), '') FROM generate_series(1, 200) i)
      AS note FROM generate_series(1, 100) g
      """)
    try server.psql("ALTER TABLE large ALTER note SET STORAGE EXTERNAL")
    try server.psql("INSERT INTO large SELECT g, note || g FROM large, generate_series(1, 1000) g WHERE id <= 100")
    let segment = try server.psql("SELECT pg_walfile_name(pg_current_wal_lsn())")
    try installation.archiveWAL()
    let size = Int(try server.psql("SELECT pg_database_size('postgres')")) ?? 0
    #expect(size > 600 << 20, "\(size)")
    let target = "\(installation.root)/restored"
    // Many more threads than there is memory for: fewer of them work.
    let lean = "\(installation.root)/lean.yaml"
    let usual = String(decoding: try readFile(installation.configuration), as: UTF8.self)
    try DurableFile.write(Array((usual + "\nlimits: {memory: 64MiB, workers: 16}\n").utf8), to: lean)
    try PostgresServer.give(lean)
    let work = [
      ["backup"], ["backup"], ["wal-push", "\(server.dataDirectory)/pg_wal/\(segment)"],
      ["wal-fetch", segment, "\(server.dataDirectory)/pg_wal/RECOVERYXLOG"], ["list"], ["check"], ["sync"],
      ["restore", "--target-directory", target, "--no-start"],
    ].map { (installation.configuration, $0, 256) }
    let leanWork = [["backup", "--full"], ["restore", "--target-directory", "\(target)-lean", "--no-start"]]
      .map { (lean, $0, 128) }
    for (configuration, arguments, limit) in work + leanWork {
      // The peak of the program itself, without PostgreSQL's, which it doesn't wait for.
      let script = """
        resource, subprocess, sys = (__import__(name) for name in ("resource", "subprocess", "sys"))
        status = subprocess.run(sys.argv[1:]).returncode
        print("peak", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
        sys.exit(status)
        """
      let command = PostgresServer.unprivileged(
        "/usr/bin/python3",
        ["-c", script, installation.program, "--config", configuration, "--log-level", "error"] + arguments
      )
      let outcome = try ChildProcess.run(
        command[0], Array(command.dropFirst()), workingDirectory: "/", deadline: .after(.seconds(300)))
      #expect(outcome.succeeded, "\(arguments): \(outcome.errorText)")
      let peak = outcome.errorText.split(separator: "\n").last { $0.hasPrefix("peak ") }
        .flatMap { Int($0.dropFirst(5)) }
      let kibibytes = try #require(peak)
      #expect(kibibytes < limit << 10, "\(arguments): \(kibibytes) KiB")
    }
  }
}
