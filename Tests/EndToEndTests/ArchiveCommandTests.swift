// `wal-push` and `wal-fetch` as PostgreSQL calls them: the statuses that it reads, several at once, all kinds of files,
// and the behaviours of PostgreSQL's own tests of archiving (src/test/recovery 002, 020, 024, 042).
import Foundation
import SystemSupport
import TestSupport
import Testing

@Suite("Archive and restore commands", .serialized)
struct ArchiveCommandTests {
  @Test("several processes push the same and different segments at once, and every one of them ends well")
  func several() throws {
    let installation = try Installation(.v15, usesS3: false)
    let server = installation.server
    // Archived by nobody else meanwhile.
    try server.psql("ALTER SYSTEM SET archive_command = '/bin/false'")
    try server.psql("SELECT pg_reload_conf()")
    var finished: [String] = []
    for id in 1...3 {
      try server.psql("CREATE TABLE t\(id) AS SELECT generate_series(1, 100) AS id")
      finished.append(try server.psql("SELECT pg_walfile_name(pg_current_wal_lsn())"))
      try server.psql("SELECT pg_switch_wal()")
    }
    let names = finished
    let paths = names.map { "\(server.dataDirectory)/pg_wal/\($0)" }
    let pushes = (0..<9).map { index in
      WorkerThread<ProgramOutcome>("push-\(index)") { try installation.run(["wal-push", paths[index % 3]]) }
    }
    for push in pushes {
      let outcome = try push.join()
      #expect(outcome.succeeded, "\(outcome.errorText)")
    }
    // As the agent of another node would: absolute path, another working directory, a state directory of its own.
    let other = "\(installation.root)/node-2.yaml"
    let text = String(decoding: try readFile(installation.configuration), as: UTF8.self)
      .replacing("state-directory: \(installation.root)/state", with: "state-directory: \(installation.root)/state-2")
    try DurableFile.write(Array(text.utf8), to: other, mode: 0o644)
    #expect(try installation.run(["wal-push", paths[0]], configuration: other).succeeded)
    let fetches = (0..<6).map { index in
      WorkerThread<ProgramOutcome>("fetch-\(index)") {
        try installation.run(
          ["wal-fetch", names[index % 3], "\(installation.root)/fetched-\(index)"], configuration: other)
      }
    }
    // Outside of a data directory nothing says whose WAL is wanted; with the configured one it does.
    for fetch in fetches { #expect(try fetch.join().ending == .exited(203)) }
    try DurableFile.write(
      Array(text.replacing("postgres:\n", with: "postgres:\n  data-directory: \(server.dataDirectory)\n").utf8),
      to: other, mode: 0o644)
    let again = (0..<6).map { index in
      WorkerThread<ProgramOutcome>("fetch-\(index)") {
        try installation.run(
          ["wal-fetch", names[index % 3], "\(installation.root)/fetched-\(index)"], configuration: other)
      }
    }
    for (index, fetch) in again.enumerated() {
      let outcome = try fetch.join()
      #expect(outcome.succeeded, "\(outcome.errorText)")
      #expect(try readFile("\(installation.root)/fetched-\(index)") == readFile(paths[index % 3]))
    }
  }

  @Test("the hooks do the same however they are written, and refuse what they can't read")
  func spellings() throws {
    let installation = try Installation(.v15, usesS3: false)
    let (server, root) = (installation.server, installation.root)
    try server.psql("CREATE TABLE t AS SELECT generate_series(1, 100) AS id")
    let name = try server.psql("SELECT pg_walfile_name(pg_current_wal_lsn())")
    try installation.archiveWAL()
    let path = "\(server.dataDirectory)/pg_wal/\(name)"
    let config = "\(root)/hooks.yaml"
    let text = String(decoding: try readFile(installation.configuration), as: UTF8.self)
      .replacing("postgres:\n", with: "postgres:\n  data-directory: \(server.dataDirectory)\n")
    try DurableFile.write(Array(text.utf8), to: config, mode: 0o644)
    func run(_ arguments: [String], _ environment: [String] = []) throws -> ProgramOutcome {
      let command = PostgresServer.unprivileged(
        "/usr/bin/env", ["HOME=\(root)"] + environment + [installation.program] + arguments)
      return try ChildProcess.run(command[0], Array(command.dropFirst()), workingDirectory: "/")
    }
    let copy = "\(root)/copy"
    for (hook, operands) in [("wal-push", [path]), ("wal-fetch", [name, copy])] {
      for (arguments, environment) in [
        (["--config", config, hook] + operands, []), ([hook, "--config", config] + operands, []),
        ([hook] + operands + ["--config", config], []), (["--config=\(config)", hook] + operands, []),
        ([hook] + operands, ["TIDEMARK_CONFIG=\(config)"]),
        (["--log-level", "error", "--config", config, hook] + operands, []),
        ([hook, "--config", config, "--"] + operands, []),
        // Of two configurations the last one counts.
        (["--config", "/nowhere.yaml", hook, "--config", config] + operands, []),
      ] {
        let outcome = try run(arguments, environment)
        #expect(outcome.succeeded, "\(arguments): \(outcome.errorText)")
        if hook == "wal-fetch" {
          #expect(try readFile(copy) == readFile(path), "\(arguments)")
          try DurableFile.remove(copy)
        }
      }
      let status: Int32 = hook == "wal-push" ? 64 : 203
      for arguments in [
        ["--config", config, hook], ["--config", config, hook] + operands + ["more"], [hook, "--config"],
        [hook, "--config"] + operands.dropLast() + ["--nothing"], [hook, "--nothing"] + operands,
      ] {
        let outcome = try run(arguments)
        #expect(outcome.ending == .exited(status), "\(arguments): \(outcome.ending) \(outcome.errorText)")
        #expect(outcome.errorText.contains("Usage: tidemark \(hook)"), "\(arguments): \(outcome.errorText)")
      }
      let help = try run([hook, "--help"])
      #expect(help.succeeded && help.outputText.contains("USAGE: tidemark \(hook)"), "\(help.outputText)")
    }
    #expect(!fileExists(copy))
  }

  @Test("histories, backup histories and partial segments are kept apart; foreign and foul files are refused")
  func kinds() throws {
    let installation = try Installation(.v15, usesS3: false)
    let server = installation.server
    let root = installation.root
    try server.psql("CREATE TABLE t AS SELECT generate_series(1, 100) AS id")
    let name = try server.psql("SELECT pg_walfile_name(pg_current_wal_lsn())")
    try installation.archiveWAL()
    let wal = "\(server.dataDirectory)/pg_wal"
    let segment = try readFile("\(wal)/\(name)")
    func place(_ file: String, _ bytes: [UInt8]) throws -> String {
      let path = "\(wal)/\(file)"
      try DurableFile.write(bytes, to: path)
      try PostgresServer.give(path)
      return path
    }
    // The old primary's last piece, with other bytes than the whole segment of the same name has.
    var piece = segment
    for index in piece.count / 2..<piece.count { piece[index] = 0 }
    #expect(try installation.run(["wal-push", place("\(name).partial", piece)]).succeeded)
    let history = Array("1\t0/2000000\tno recovery target specified\n".utf8)
    #expect(try installation.run(["wal-push", place("00000002.history", history)]).succeeded)
    let label = Array("START WAL LOCATION: 0/2000028 (file \(name))\n".utf8)
    #expect(try installation.run(["wal-push", place("\(name).00000028.backup", label)]).succeeded)
    for (file, wanted) in [
      (name, segment), ("\(name).partial", piece), ("00000002.history", history), ("\(name).00000028.backup", label),
    ] {
      let target = "\(wal)/RECOVERYXLOG"
      #expect(try installation.run(["wal-fetch", file, target]).succeeded)
      #expect(try readFile(target) == wanted, "\(file)")
    }
    // A partial segment never stands for the whole one.
    let next = "00000001000000000000007F"
    #expect(try installation.run(["wal-push", place("\(name).partial", piece)]).succeeded)
    #expect(try installation.run(["wal-fetch", next, "\(wal)/RECOVERYXLOG"]).ending == .exited(1))
    let other = Array("1\t0/2000000\tanother reason\n".utf8)
    try installation.refuse(76, "wal-conflict", ["wal-push", place("00000002.history", other)])
    try installation.refuse(76, "wal-file-invalid", ["wal-push", place("00000001000000000000007E", [1, 2, 3])])
    // Right bytes under another name, that of another position.
    let moved = try installation.run(["wal-push", place(next, segment)])
    #expect(moved.ending == .exited(76), "\(moved.errorText)")
    // Another cluster's WAL in this one's directory.
    let foreign = try PostgresServer(.v15)
    try foreign.psql("SELECT pg_switch_wal()")
    let theirs = try readFile("\(foreign.dataDirectory)/pg_wal/000000010000000000000001")
    try installation.refuse(76, "wal-file-foreign", ["wal-push", place("000000010000000000000001", theirs)])
    try installation.refuse(76, "wal-file-invalid", ["wal-push", place("notes.txt", [1])])
    for file in try directoryEntries(wal) where file.hasSuffix("7E") || file.hasSuffix("7F") || file == "notes.txt" {
      unlink("\(wal)/\(file)")
    }
    // Any mistake in restore_command is a failure, never "not in the archive" (trap 23).
    for mistake in [
      ["wal-fetch", "--no-such-option", name, "x"], ["wal-fetch", name], ["wal-fecth", name, "x"],
      ["wal-fetch", "not-a-wal-file", "\(root)/x"], ["wal-fetch", name, "\(root)/missing/directory/x"],
    ] {
      let outcome = try installation.run(mistake)
      #expect(outcome.ending == .exited(203), "\(mistake): \(outcome.errorText)")
    }
    let absent = try installation.run(["wal-fetch", name, "\(wal)/RECOVERYXLOG"], configuration: "\(root)/absent.yaml")
    #expect(absent.ending == .exited(203), "\(absent.errorText)")
  }

  @Test(
    "what is written while it is archived isn't stored, and what is fetched for a server that stops isn't handed over")
  func meanwhile() throws {
    let installation = try Installation(.v15, usesS3: false)
    let server = installation.server
    try server.psql("CREATE TABLE t AS SELECT generate_series(1, 100) AS id")
    let name = try server.psql("SELECT pg_walfile_name(pg_current_wal_lsn())")
    try installation.archiveWAL()
    let wal = "\(server.dataDirectory)/pg_wal"
    let segment = try readFile("\(wal)/\(name)")
    let partial = "\(wal)/\(name).partial"
    try DurableFile.write(segment, to: partial)
    try PostgresServer.give(partial)
    let push = try installation.hold(at: "push.sealed", ["wal-push", partial])
    let file = try #require(FileHandle(forWritingAtPath: partial))
    try file.seek(toOffset: 5_000_000)
    try file.write(contentsOf: [1, 2, 3])
    try file.close()
    #expect(try push.finish() == .exited(74))
    #expect(push.errorText.contains("written while it was read"), "\(push.errorText)")
    let target = "\(wal)/RECOVERYXLOG"
    #expect(try installation.run(["wal-fetch", "\(name).partial", target]).ending == .exited(1))
    // As it is now it goes in.
    #expect(try installation.run(["wal-push", partial]).succeeded)
    #expect(try installation.run(["wal-fetch", "\(name).partial", target]).succeeded)
    #expect(try readFile(target) == readFile(partial))
    unlink(target)

    // Told to stop behind the last byte, and killed there.
    let stopped = try installation.hold(at: "fetch.before-rename", ["wal-fetch", name, target])
    stopped.process.signal(SIGTERM)
    #expect(try stopped.finish() == .exited(202))
    #expect(try !directoryEntries(wal).contains { $0.hasPrefix("RECOVERYXLOG") })
    let killed = try installation.hold(at: "fetch.before-rename", ["wal-fetch", name, target])
    killed.process.signal(SIGKILL)
    #expect(try killed.finish() == .signalled(SIGKILL))
    #expect(!FileManager.default.fileExists(atPath: target))
    #expect(try installation.run(["wal-fetch", name, target]).succeeded)
    #expect(try readFile(target) == segment)
  }

  /// 020_archive_status, and trap 13: the status says what the archiver does with it.
  @Test("a failing archive_command is counted, keeps the segment, and is made good by the next attempt")
  func archiveStatus() throws {
    let installation = try Installation(.v15, usesS3: false, degradeAfter: "2s")
    let server = installation.server
    let root = installation.root
    try server.psql("CREATE TABLE t AS SELECT generate_series(1, 100) AS id")
    // Both regions are gone: nothing may be acknowledged.
    for region in ["west", "east"] {
      try FileManager.default.moveItem(atPath: "\(root)/\(region)", toPath: "\(root)/\(region)-away")
    }
    let name = try server.psql("SELECT pg_walfile_name(pg_switch_wal())")
    #expect(
      try eventually(.seconds(90)) { try server.psql("SELECT failed_count > 0 FROM pg_stat_archiver") == "t" },
      "\(server.log)")
    #expect(try server.psql("SELECT last_failed_wal FROM pg_stat_archiver") == name)
    let status = "\(server.dataDirectory)/pg_wal/archive_status"
    #expect(fileExists("\(status)/\(name).ready") && !fileExists("\(status)/\(name).done"))
    // A crash keeps it as well.
    try server.kill()
    try server.start()
    #expect(fileExists("\(status)/\(name).ready"))
    for region in ["west", "east"] {
      try FileManager.default.moveItem(atPath: "\(root)/\(region)-away", toPath: "\(root)/\(region)")
    }
    #expect(try eventually(.seconds(120)) { fileExists("\(status)/\(name).done") }, "\(server.log)")
    #expect(try installation.stored("/\(name)", in: "east").count == 1)
  }

  /// 024_archive_recovery: WAL that was written with wal_level = minimal can't be recovered, and nothing pretends it was.
  @Test("segments of 128 MB that don't compress are archived and replayed")
  func largeSegments() throws {
    let installation = try Installation(
      .v15, usesS3: true,
      configure: { options in
        options.initdbArguments = ["--wal-segsize=128"]
        options.settings["min_wal_size"] = "256MB"
      })
    let server = installation.server
    _ = try installation.json(["backup"])
    try server.psql("CREATE EXTENSION pgcrypto")
    try server.psql(
      "CREATE TABLE noise AS SELECT g AS id, gen_random_bytes(1024) AS b FROM generate_series(1, 200000) g")
    let rows = "SELECT count(*), md5(string_agg(md5(b), '' ORDER BY id)) FROM noise"
    let expected = try server.psql(rows)
    try installation.archiveWAL()
    let large = try installation.objects().keys.filter { path in
      guard path.contains("/wal/00000001/") else { return false }
      return try #require(try FileManager.default.attributesOfItem(atPath: path)[.size] as? Int) > 100 << 20
    }
    // In each region.
    #expect(large.count >= 2, "\(large)")
    try installation.restore("noise", []) { query in expectEqual(try query(rows), expected) }
  }

  @Test("WAL of wal_level = minimal ends a recovery with an error, not early")
  func minimalLevel() throws {
    let installation = try Installation(.v15, usesS3: false)
    let server = installation.server
    try server.psql("CREATE TABLE ledger (id int PRIMARY KEY); INSERT INTO ledger VALUES (1)")
    _ = try installation.json(["backup"])
    let minimal = ["wal_level": "minimal", "archive_mode": "off", "max_wal_senders": "0"]
    try server.stop()
    try server.start(settings: minimal)
    try server.psql("INSERT INTO ledger VALUES (2)")
    let first = try server.psql("SELECT pg_walfile_name(pg_current_wal_lsn())")
    try server.psql("SELECT pg_switch_wal()")
    try server.stop()
    try server.start()
    try server.psql("INSERT INTO ledger VALUES (3)")
    try installation.archiveWAL()
    // What was written meanwhile isn't archived by itself.
    for name in try directoryEntries("\(server.dataDirectory)/pg_wal").sorted() where name.count == 24 && name <= first
    {
      _ = try installation.run(["wal-push", "\(server.dataDirectory)/pg_wal/\(name)"])
    }
    let target = "\(installation.root)/restored"
    let outcome = try installation.run(["restore", "--target-directory", target])
    #expect(outcome.ending == .exited(65), "\(outcome.errorText)")
    #expect(
      outcome.errorText.contains("wal_level=minimal") || outcome.errorText.contains("wal-hole"), "\(outcome.errorText)")
  }

  /// 042_low_level_backup: a restored directory has its backup_label, and one that isn't finished can't be started.
  @Test("a restore that was cut short can't be started, and a finished one begins at its backup_label")
  func cutShort() throws {
    let installation = try Installation(.v15, usesS3: false)
    try installation.server.psql("CREATE TABLE ledger AS SELECT generate_series(1, 100) AS id")
    _ = try installation.json(["backup"])
    let target = "\(installation.root)/cut"
    let killed = try installation.run(
      ["restore", "--target-directory", target, "--no-start"],
      environment: ["TIDEMARK_CRASH_AT": "restore.before-control-file"])
    #expect(!killed.succeeded)
    let start = try installation.postgres("pg_ctl", ["-D", target, "-w", "start"], succeeds: false)
    #expect(!start.succeeded)
    try installation.refuse(76, "target-not-empty", ["restore", "--target-directory", target])
    let whole = "\(installation.root)/whole"
    _ = try installation.json(["restore", "--target-directory", whole, "--no-start", "--to-backup-end"])
    #expect(fileExists("\(whole)/backup_label") && fileExists("\(whole)/recovery.signal"))
    let server = try installation.cluster(at: whole)
    try server.start()
    #expect(try eventually { try server.psql("SELECT pg_is_in_recovery()") == "f" })
    #expect(server.log.contains("consistent recovery state reached"), "\(server.log)")
    try server.stop()
  }
}
