// Backups from a standby, and standbys that replay from the archive.
import Foundation
import SystemSupport
import TestSupport
import Testing

@Suite("Standbys", .serialized)
struct StandbyTests {
  /// A standby of the installation's server, restored from its backup: it streams, or replays the archive alone.
  private func standby(
    _ installation: Installation, _ name: String, streams: Bool, configuration: String? = nil
  ) throws -> PostgresServer {
    let target = "\(installation.root)/\(name)"
    _ = try installation.json(["restore", "--no-start", "--target-directory", target])
    try FileManager.default.removeItem(atPath: "\(target)/recovery.signal")
    try DurableFile.write([], to: "\(target)/standby.signal")
    var settings = [
      "restore_command":
        "\(installation.program) --config \(configuration ?? installation.configuration) wal-fetch %f %p",
      "recovery_target_timeline": "latest", "wal_retrieve_retry_interval": "200ms",
    ]
    if streams { settings["primary_conninfo"] = installation.server.connectionString }
    let standby = try installation.cluster(at: target, settings: settings)
    try standby.start()
    return standby
  }

  private func configuration(_ installation: Installation, of server: PostgresServer, limit: String) throws -> String {
    let path = "\(installation.root)/standby.yaml"
    let text = String(decoding: try readFile(installation.configuration), as: UTF8.self)
      .replacing(installation.server.connectionString, with: server.connectionString)
    try DurableFile.write(Array((text + "limits: {wal-wait: \(limit)}\n").utf8), to: path, mode: 0o644)
    return path
  }

  @Test("an idle primary is asked to finish its segment; a promotion ends the backup at once")
  func backup() throws {
    let installation = try Installation(.v15, usesS3: false)
    try installation.server.psql("CREATE TABLE ledger (id int PRIMARY KEY); INSERT INTO ledger VALUES (1)")
    _ = try installation.json(["backup"])
    let standby = try standby(installation, "standby", streams: true)
    try #require(
      try eventually {
        try standby.psql("SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'") == "1"
      },
      "\(standby.log)")
    try installation.server.psql("INSERT INTO ledger VALUES (2)")
    let end = try installation.server.psql("SELECT pg_current_wal_lsn()")
    try #require(try eventually { try standby.psql("SELECT pg_last_wal_replay_lsn() >= '\(end)'") == "t" })
    // The primary writes nothing any more: without being asked it would keep its segment for ever.
    let other = try configuration(installation, of: standby, limit: "60s")
    let taken = try installation.run(["--json", "backup"], configuration: other)
    #expect(taken.succeeded, "\(taken.errorText)")
    #expect(!taken.errorText.contains("can't be asked"), "\(taken.errorText)")
    try installation.archiveWAL()
    try installation.restore("restored", []) { query in
      expectEqual(try query("SELECT count(*) FROM ledger"), "2")
      expectEqual(try query("SELECT pg_is_in_recovery()"), "f")
    }
    // With the archiver stopped the WAL can't come, and then the standby is promoted.
    try installation.server.psql("ALTER SYSTEM SET archive_command = '/bin/false'")
    try installation.server.psql("SELECT pg_reload_conf()")
    try installation.server.psql("INSERT INTO ledger VALUES (3)")
    let waiting = WorkerThread<ProgramOutcome>("backup") { try installation.run(["backup"], configuration: other) }
    try #require(
      try eventually(.seconds(60)) {
        try installation.server.psql("SELECT coalesce(last_failed_wal, '') <> '' FROM pg_stat_archiver") == "t"
      })
    try standby.psql("SELECT pg_promote()")
    let begin = ContinuousClock.now
    let outcome = try waiting.join()
    #expect(outcome.ending == .exited(65) && outcome.errorText.contains("promoted"), "\(outcome.errorText)")
    #expect(ContinuousClock.now - begin < .seconds(40))
    try standby.stop()
  }

  @Test(
    "a standby that replays the archive outlives a region that can't be asked, and follows a new timeline",
    arguments: [0, 4])
  func archiveStandby(aheadCount: Int) throws {
    let installation = try Installation(.v15, usesS3: false)
    let root = installation.root
    let server = installation.server
    try server.psql("CREATE TABLE ledger (id int PRIMARY KEY); INSERT INTO ledger VALUES (1)")
    _ = try installation.json(["backup"])
    let other = try installation.configuration(walAhead: aheadCount)
    // What it catches up with first.
    for id in 100..<110 {
      try server.psql("INSERT INTO ledger VALUES (\(id))")
      try server.psql("SELECT pg_switch_wal()")
    }
    try installation.archiveWAL()
    let standby = try standby(installation, "standby", streams: false, configuration: other)
    func replays(_ id: Int) throws -> Bool {
      try eventually(.seconds(60)) { try standby.psql("SELECT count(*) FROM ledger WHERE id = \(id)") == "1" }
    }
    try server.psql("INSERT INTO ledger VALUES (2)")
    try installation.archiveWAL()
    #expect(try replays(2), "\(standby.log)")
    // The next segment's absence can't be proven now: a standby asks again, and lives (trap 24).
    let pid = standby.pid
    let before = standby.log
    try FileManager.default.moveItem(atPath: "\(root)/east", toPath: "\(root)/away")
    #expect(try eventually(.seconds(40)) { standby.log != before }, "\(standby.log)")
    #expect(standby.isRunning && standby.pid == pid)
    try FileManager.default.moveItem(atPath: "\(root)/away", toPath: "\(root)/east")
    // A restored cluster takes over; the standby follows its timeline by the history in the archive (025).
    try server.stop()
    let successor = try installation.successor("successor", ["--to-latest"])
    try successor.psql("INSERT INTO ledger VALUES (20)")
    try Installation.archiveWAL(successor)
    #expect(try replays(20), "\(standby.log)")
    try standby.psql("SELECT pg_promote()")
    #expect(try standby.psql("SELECT pg_is_in_recovery()") == "f")
    try successor.stop()
    try standby.stop()
  }

  @Test("what a dead leader archives behind a fork never reaches a standby on its way to the new timeline")
  func deadBranch() throws {
    let installation = try Installation(.v15, usesS3: false)
    let leader = installation.server
    try leader.psql("CREATE TABLE ledger (id int PRIMARY KEY); INSERT INTO ledger VALUES (1)")
    _ = try installation.json(["backup"])
    let heir = try standby(installation, "heir", streams: true)
    let third = try standby(installation, "third", streams: true)
    let follower = try standby(installation, "follower", streams: false)
    for standby in [heir, third] {
      try #require(
        try eventually(.seconds(60)) {
          try standby.psql("SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'") == "1"
        }, "\(standby.log)")
    }
    try leader.psql("INSERT INTO ledger VALUES (2)")
    for standby in [heir, third] {
      try #require(try eventually { try standby.psql("SELECT count(*) FROM ledger") == "2" }, "\(standby.log)")
      try standby.stop()
    }
    // Nobody has this but the leader, which dies of kill -9.
    try leader.psql("INSERT INTO ledger VALUES (3)")
    let segment = try leader.psql("SELECT pg_walfile_name(pg_current_wal_lsn())")
    try leader.kill()
    try heir.start()
    try heir.psql("SELECT pg_promote()")
    try heir.psql("INSERT INTO ledger VALUES (20)")
    #expect(try heir.psql("SELECT pg_walfile_name(pg_current_wal_lsn())").dropFirst(8) == segment.dropFirst(8))
    try #require(
      try eventually(.seconds(60)) { try !installation.stored("00000002.history", in: "east").isEmpty }, "\(heir.log)")
    // Recovered and stopped, as by Patroni before it rewinds: the segment is finished, and archived.
    try leader.start()
    try leader.stop()
    #expect(try !installation.stored("\(segment)", in: "east").filter { !$0.contains("partial") }.isEmpty)
    // Before it has heard of the new timeline: the archive knows.
    func asked(_ server: PostgresServer) throws -> ProgramOutcome {
      let command = PostgresServer.unprivileged(
        installation.program, ["--config", installation.configuration, "wal-fetch", segment, "pg_wal/RECOVERYXLOG"])
      return try ChildProcess.run(
        command[0], Array(command.dropFirst()), workingDirectory: server.dataDirectory, deadline: .after(.seconds(60)))
    }
    let answer = try asked(third)
    #expect(answer.ending == .exited(1) && answer.errorText.contains("not given to this standby"), "\(answer)")
    try third.start(settings: ["primary_conninfo": heir.connectionString])
    let arrived = try eventually(.seconds(60)) {
      try third.psql("SELECT count(*) FROM ledger WHERE id = 20") == "1"
    }
    #expect(arrived && third.log.contains("not given to this standby"), "\(third.log)")
    #expect(try third.psql("SELECT count(*) FROM ledger WHERE id = 3") == "0")
    // A standby that stays on the old timeline gets all of it, and so does whoever isn't a standby.
    try follower.stop()
    try follower.start(settings: ["recovery_target_timeline": "1"])
    let followed = try eventually(.seconds(60)) {
      try follower.psql("SELECT count(*) FROM ledger WHERE id = 3") == "1"
    }
    #expect(followed, "\(follower.log)")
    let fetched = try installation.run(["wal-fetch", segment, "\(third.dataDirectory)/pg_wal/fetched"])
    #expect(fetched.succeeded, "\(fetched.errorText)")
    for server in [third, follower, heir] { try server.stop() }
  }
}
