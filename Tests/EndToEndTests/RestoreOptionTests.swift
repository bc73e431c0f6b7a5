// The options of `restore` on a real server: what each does, that the printed next steps work when they are followed,
// and that what can't work is refused before a byte is written.
import Foundation
import SystemSupport
import TestSupport
import Testing

@Suite("Options of a restore", .serialized)
struct RestoreOptionTests {
  private static let rows = "SELECT string_agg(id::text, ',' ORDER BY id) FROM ledger"

  /// A cluster with a tablespace, rows 1 to 5 at known places, and a backup after row 1.
  private struct Marks {
    var lsn = ""
    var time = ""
    var xid = ""
    var prepared = ""
    var aborted = ""
    var tablespace = ""
  }

  private func write(_ installation: Installation) throws -> Marks {
    let server = installation.server
    var marks = Marks()
    marks.tablespace = try server.createTablespace("fast")
    try server.psql("CREATE TABLE ledger (id int PRIMARY KEY); CREATE TABLE placed (id int) TABLESPACE fast")
    try server.psql("INSERT INTO ledger VALUES (1); INSERT INTO placed SELECT generate_series(1, 1000)")
    _ = try installation.json(["backup"])
    marks.lsn = try server.psql("SELECT pg_current_wal_lsn()")
    try server.psql("INSERT INTO ledger VALUES (2)")
    marks.time = try server.psql("SELECT clock_timestamp()")
    // With subtransactions, relations and statistics before the transaction's number in the record.
    marks.prepared = try server.psql(
      """
      BEGIN; INSERT INTO ledger VALUES (3); SAVEPOINT a; CREATE TABLE p1 (id int); SAVEPOINT b; DROP TABLE p1;
      CREATE TABLE p2 (id int); SELECT pg_current_xact_id(); PREPARE TRANSACTION 'third'
      """)
    try server.psql("INSERT INTO ledger VALUES (4)")
    try server.psql("COMMIT PREPARED 'third'")
    marks.aborted = try server.psql("BEGIN; INSERT INTO ledger VALUES (99); SELECT pg_current_xact_id(); ROLLBACK")
    marks.xid = try server.psql("BEGIN; INSERT INTO ledger VALUES (5); SELECT pg_current_xact_id(); COMMIT")
    try server.psql("INSERT INTO ledger VALUES (6)")
    try installation.archiveWAL()
    return marks
  }

  @Test("each option does what it says", arguments: PostgresVersion.allAvailable)
  func options(_ version: PostgresVersion) throws {
    let installation = try Installation(version, usesS3: false)
    let marks = try write(installation)
    let root = installation.root
    func mapped(_ name: String) -> [String] { ["--tablespace-map", "\(marks.tablespace)=\(root)/space-\(name)"] }

    // The live cluster's tablespace is never written into.
    let text = try installation.refuse(76, "target-not-empty", ["restore", "--target-directory", "\(root)/none"])
    #expect(text.contains("--tablespace-map \(marks.tablespace)="), "\(text)")
    #expect(!FileManager.default.fileExists(atPath: "\(root)/none"))
    // What can't be read may be a running server's.
    try FileManager.default.createDirectory(atPath: "\(root)/obscure/postmaster.pid", withIntermediateDirectories: true)
    try installation.refuse(74, "local-io", ["restore", "--target-directory", "\(root)/obscure"] + mapped("obscure"))
    try installation.refuse(
      64, "usage", ["restore", "--target-directory", "\(root)/none", "--tablespace-map", "/no/such=\(root)/x"])
    try installation.refuse(
      64, "usage",
      ["restore", "--target-directory", "\(root)/none", "--tablespace-map", "\(marks.tablespace)=\(root)/none/inside"])

    // A plan writes nothing, and says what it would do.
    let before = try FileManager.default.contentsOfDirectory(atPath: root).sorted()
    let plan = try installation.json(
      ["restore", "--plan-only", "--target-directory", "\(root)/planned", "--to-xid", marks.xid] + mapped("planned"))
    #expect((plan["walSegments"] as? Int ?? 0) > 0 && plan["started"] as? Bool == false)
    #expect(try FileManager.default.contentsOfDirectory(atPath: root).sorted() == before)

    for (name, arguments, expected) in [
      ("lsn", ["--to-lsn", marks.lsn, "--exclusive"], "1"),
      ("xid", ["--to-xid", marks.xid], "1,2,3,4,5"),
      ("xid-exclusive", ["--to-xid", marks.xid, "--exclusive"], "1,2,3,4"),
      ("prepared", ["--to-xid", marks.prepared], "1,2,3,4"),
      ("prepared-exclusive", ["--to-xid", marks.prepared, "--exclusive"], "1,2,4"),
      ("aborted", ["--to-xid", marks.aborted], "1,2,3,4"),
      ("time", ["--to-time", marks.time, "--exclusive"], "1,2"),
    ] {
      try installation.restore(name, arguments + mapped(name)) { query in
        expectEqual(try query(Self.rows), expected, name)
        expectEqual(try query("SELECT count(*) FROM placed"), "1000", name)
        expectEqual(
          try query("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'fast'"),
          "\(root)/space-\(name)")
      }
    }
    try installation.refuse(
      76, "target-unreachable",
      ["restore", "--target-directory", "\(root)/none", "--to-xid", "4000000"] + mapped("none"))
    try installation.refuse(
      76, "target-unreachable", ["restore", "--target-directory", "\(root)/none", "--to-lsn", "7/0"] + mapped("none"))
    try installation.refuse(
      64, "usage", ["restore", "--target-directory", "\(root)/none", "--to-latest", "--exclusive"] + mapped("none"))
    #expect(!FileManager.default.fileExists(atPath: "\(root)/none"))

    let port = Int(try LoopbackPort.free())
    let report = try installation.restore("ported", ["--port", "\(port)", "--from-region", "east"] + mapped("ported")) {
      query in expectEqual(try query("SHOW port"), "\(port)")
    }
    #expect(report["port"] as? Int == port)
    #expect((report["regions"] as? [String: Any])?.keys.sorted() == ["east"])
    try followSteps(installation, marks, mapped)
  }

  /// The next steps of every restore that doesn't promote, run as they are printed.
  private func followSteps(_ installation: Installation, _ marks: Marks, _ mapped: (String) -> [String]) throws {
    for (name, arguments, expected) in [
      ("no-start", ["--no-start", "--to-xid", marks.xid], "1,2,3,4,5"),
      ("no-start-latest", ["--no-start"], "1,2,3,4,5,6"),
      ("no-start-pause", ["--no-start", "--to-xid", marks.xid, "--target-action", "pause"], "1,2,3,4,5"),
      ("no-start-shutdown", ["--no-start", "--to-xid", marks.xid, "--target-action", "shutdown"], "1,2,3,4,5"),
      ("pause", ["--to-xid", marks.xid, "--target-action", "pause"], "1,2,3,4,5"),
      ("shutdown", ["--to-xid", marks.xid, "--target-action", "shutdown"], "1,2,3,4,5"),
    ] {
      let target = "\(installation.root)/\(name)"
      let report = try installation.json(["restore", "--target-directory", target] + arguments + mapped(name))
      defer { _ = try? installation.postgres("pg_ctl", ["stop", "-m", "immediate", "-D", target], succeeds: false) }
      let port = try #require(report["port"] as? Int)
      let steps = try #require(report["nextSteps"] as? [String])
      #expect(steps.count >= (name.hasPrefix("no-start") ? 2 : 1), "\(name): \(steps)")
      let isRunning = try installation.postgres("pg_ctl", ["status", "-D", target], succeeds: false).succeeded
      #expect(isRunning == (name == "pause"), "\(name)")
      if name == "pause" {
        #expect(try installation.query(target, port, "SELECT pg_is_in_recovery()") == "t")
        #expect(try installation.query(target, port, Self.rows) == expected)
      }
      try follow(steps, name, installation, target)
      // Without the private access rules the cluster's own are in force: over its own socket directory.
      // It ends its recovery with a checkpoint, which on a busy disk takes a while.
      let answers = try eventually(.seconds(300)) {
        try psql(installation, port, "SELECT pg_is_in_recovery()") == "f"
      }
      #expect(answers, "\(name): \(serverLog(target))")
      #expect(try psql(installation, port, Self.rows) == expected, "\(name)")
      let settings = String(decoding: try readFile("\(target)/postgresql.auto.conf"), as: UTF8.self)
      #expect(!settings.contains("recovery_target") && !settings.contains("restore_command"), "\(name): \(settings)")
    }
  }

  /// Runs the steps as they are printed.
  private func follow(_ steps: [String], _ name: String, _ installation: Installation, _ target: String) throws {
    for step in steps {
      let command = PostgresServer.unprivileged("/bin/sh", ["-c", step])
      let outcome = try ChildProcess.run(
        command[0], Array(command.dropFirst()), environment: ["PATH": "/usr/bin:/bin"], workingDirectory: "/",
        deadline: .after(.seconds(60)))
      // A server that is to shut down at its target does so while pg_ctl waits for it.
      let isShutdown = name == "no-start-shutdown" && step == steps.first
      #expect(outcome.succeeded || isShutdown, "\(name): \(step): \(outcome.errorText)")
      if isShutdown {
        _ = try eventually {
          try !installation.postgres("pg_ctl", ["status", "-D", target], succeeds: false).succeeded
        }
      }
    }
  }

  @Test("who waits for a replay's pause doesn't stand in the replay's way")
  func conflictingReplay() throws {
    let installation = try Installation(.v15, usesS3: false, configure: { $0.settings["autovacuum"] = "off" })
    let server = installation.server
    try server.psql("CREATE TABLE ledger (id int)")
    _ = try installation.json(["backup"])
    // Rows that a transaction on a standby would still see, removed in the WAL's course: each segment takes its fetch.
    for number in 1...20 {
      try server.psql("INSERT INTO ledger VALUES (\(number))")
      try server.psql("DELETE FROM ledger WHERE id < \(number)")
      try server.psql("VACUUM ledger")
      try server.psql("SELECT pg_switch_wal()")
    }
    let xid = try server.psql("BEGIN; INSERT INTO ledger VALUES (0); SELECT pg_current_xact_id(); COMMIT")
    try server.psql("INSERT INTO ledger VALUES (99)")
    try installation.archiveWAL()
    let target = "\(installation.root)/restored"
    let report = try installation.json(
      ["restore", "--target-directory", target, "--no-start", "--target-action", "pause", "--to-xid", xid])
    defer { _ = try? installation.postgres("pg_ctl", ["stop", "-m", "immediate", "-D", target], succeeds: false) }
    try follow(try #require(report["nextSteps"] as? [String]), "pause", installation, target)
    let port = try #require(report["port"] as? Int)
    #expect(try eventually(.seconds(300)) { try psql(installation, port, "SELECT pg_is_in_recovery()") == "f" })
    #expect(try psql(installation, port, "SELECT string_agg(id::text, ',' ORDER BY id) FROM ledger") == "0,20")
    #expect(!serverLog(target).contains("canceling statement"))
  }

  /// The end of what the restored server said.
  private func serverLog(_ target: String) -> String {
    let log = (try? readFile("\(target).tidemark/server.log")) ?? []
    return String(decoding: log.suffix(4000), as: UTF8.self)
  }

  private func psql(_ installation: Installation, _ port: Int, _ sql: String) throws -> String {
    try installation.postgres(
      "psql", ["-XAtq", "-h", "localhost", "-p", "\(port)", "-U", "postgres", "-d", "postgres", "-c", sql],
      succeeds: false
    ).outputText.trimmingCharacters(in: .whitespacesAndNewlines)
  }

  @Test("a tablespace that was created after the backup gets its directory, or is refused where that is in use")
  func laterTablespace() throws {
    let installation = try Installation(.v15, usesS3: false)
    let server = installation.server
    try server.psql("CREATE TABLE ledger (id int PRIMARY KEY); INSERT INTO ledger VALUES (1)")
    _ = try installation.json(["backup"])
    try server.psql("INSERT INTO ledger VALUES (2)")
    try server.psql("SELECT pg_create_restore_point('before')")
    let location = try server.createTablespace("later")
    try server.psql("CREATE TABLE placed TABLESPACE later AS SELECT generate_series(1, 500) AS id")
    try installation.archiveWAL()
    let live = try contents(location)
    #expect(!live.isEmpty)
    // Beside the live cluster the replay would write into its tablespace.
    let target = "\(installation.root)/refused"
    let text = try installation.refuse(76, "path-unsafe", ["restore", "--target-directory", target])
    #expect(text.contains(location), "\(text)")
    #expect(try !installation.postgres("pg_ctl", ["status", "-D", target], succeeds: false).succeeded)
    #expect(try contents(location) == live)
    try installation.restore("before", ["--to-name", "before"]) { query in expectEqual(try query(Self.rows), "1,2") }
    // Without `restore` in between, by the steps that it prints, the same holds.
    let unstarted = "\(installation.root)/unstarted"
    _ = try installation.json(["restore", "--no-start", "--target-directory", unstarted])
    let start = try installation.postgres(
      "pg_ctl", ["-D", unstarted, "-l", "\(unstarted).tidemark/server.log", "-w", "start"], succeeds: false)
    #expect(!start.succeeded)
    #expect(try contents(location) == live)
    // On a host without it the directory is made.
    try server.stop()
    try FileManager.default.removeItem(atPath: location)
    try installation.restore("made", []) { query in expectEqual(try query("SELECT count(*) FROM placed"), "500") }
    #expect(try !contents(location).isEmpty)
  }

  private func contents(_ directory: String) throws -> [String] {
    let found = try ChildProcess.run(
      "/bin/sh", ["-c", "cd \"$1\" && find . -type f | sort | xargs -r sha256sum", "sh", directory])
    return found.outputText.split(separator: "\n").map(String.init)
  }

  @Test("Debian's layout: the captured configuration starts the server, with the primary's limits and access rules")
  func debianLayout() throws {
    let installation = try Installation(
      .v15, usesS3: false,
      configure: { options in
        options.keepsConfigurationOutside = true
        options.settings["max_connections"] = "150"
        options.settings["work_mem"] = "7MB"
        options.accessLines = ["local all nobody_special reject"]
      },
      postgres: "os-user: postgres")
    let server = installation.server
    try server.psql("CREATE DATABASE words LOCALE_PROVIDER icu ICU_LOCALE 'en-US' TEMPLATE template0")
    try server.psql("UPDATE pg_database SET datcollversion = '1' WHERE datname = 'words'")
    try server.psql("CREATE TABLE ledger (id int PRIMARY KEY); INSERT INTO ledger VALUES (1)")
    _ = try installation.json(["backup"])
    // Raised after the backup: the replay would stand still in a server that is as small as the backup says.
    try server.stop()
    try server.start(settings: ["max_connections": "180", "max_worker_processes": "12"])
    try server.psql("INSERT INTO ledger VALUES (2)")
    try installation.archiveWAL()
    let report = try installation.restore("debian", []) { query in
      expectEqual(try query(Self.rows), "1,2")
      expectEqual(try query("SHOW max_connections"), "180")
      expectEqual(try query("SHOW max_worker_processes"), "12")
      expectEqual(try query("SHOW work_mem"), "7MB")
      expectEqual(try query("SHOW data_directory"), "\(installation.root)/debian")
      expectEqual(
        try query("SELECT count(*) FROM pg_hba_file_rules WHERE 'nobody_special' = ANY (user_name)"), "1")
    }
    let remarks = try #require(report["remarks"] as? [String])
    #expect(remarks.contains { $0.contains("words") && $0.contains("collation version 1") }, "\(remarks)")
    #expect(remarks.contains { $0.contains("max_connections = 180") }, "\(remarks)")
  }

  @Test("the programs are found for the backup's version, and another version is refused before anything is written")
  func programs() throws {
    let installation = try Installation(.v15, usesS3: false, postgres: "os-user: postgres")
    _ = try installation.json(["backup"])
    try installation.restore("found", []) { query in expectEqual(try query("SELECT 1"), "1") }
    let configuration = "\(installation.root)/other.yaml"
    func configure(_ directory: String) throws {
      let text = String(decoding: try readFile(installation.configuration), as: UTF8.self)
        .replacing("os-user: postgres", with: "bin-directory: \(directory)")
      try DurableFile.write(Array(text.utf8), to: configuration, mode: 0o644)
    }
    // A directory of another version: the right one is used, and that is said.
    let fake = "\(installation.root)/fake"
    try FileManager.default.createDirectory(atPath: fake, withIntermediateDirectories: true)
    for program in ["postgres", "pg_ctl", "pg_controldata"] {
      try DurableFile.write(
        Array("#!/bin/sh\necho 'postgres (PostgreSQL) 16.3'\n".utf8), to: "\(fake)/\(program)", mode: 0o755)
    }
    try PostgresServer.give(fake)
    try configure(fake)
    let plan = try installation.run(
      ["--json", "restore", "--plan-only", "--target-directory", "\(installation.root)/planned"],
      configuration: configuration)
    #expect(plan.outputText.contains("is PostgreSQL 16"), "\(plan.outputText) \(plan.errorText)")
  }
}
