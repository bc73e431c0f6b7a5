// Restores over timelines: chains of restored clusters that archive in the original's place, targets on every branch of
// them, dead branches that archive late, and histories that only PostgreSQL's own defaults write.
import Foundation
import SystemSupport
import TestSupport
import Testing

@Suite("Timelines", .serialized)
struct TimelineTests {
  /// The control file names a new timeline with the next checkpoint only.
  private static let timeline = "SELECT ltrim(left(pg_walfile_name(pg_current_wal_lsn()), 8), '0')"
  private static let rows = "SELECT string_agg(id::text, ',' ORDER BY id) FROM ledger"

  /// Each generation writes a row, a restore point `mid-N`, and a row that only this branch has.
  private func generation(_ number: Int, _ server: PostgresServer) throws {
    try server.psql("INSERT INTO ledger VALUES (\(number)0)")
    try server.psql("SELECT pg_create_restore_point('mid-\(number)')")
    try server.psql("INSERT INTO ledger VALUES (\(number)1)")
    try Installation.archiveWAL(server)
  }

  @Test("restores of restores over five timelines reach every branch", arguments: PostgresVersion.allAvailable)
  func fiveTimelines(_ version: PostgresVersion) throws {
    let installation = try Installation(version, usesS3: false)
    try installation.server.psql("CREATE TABLE ledger (id int PRIMARY KEY); INSERT INTO ledger VALUES (1)")
    _ = try installation.json(["backup"])
    try generation(1, installation.server)
    let late = try installation.server.psql("SELECT clock_timestamp()")
    try installation.server.psql("INSERT INTO ledger VALUES (12)")
    try installation.archiveWAL()
    try installation.server.stop()

    var lsnOnThird = ""
    for number in 2...5 {
      let server = try installation.successor("generation-\(number)", ["--to-name", "mid-\(number - 1)"])
      let timeline = try server.psql(Self.timeline)
      #expect(timeline == "\(number)")
      if number == 3 {
        // A backup on the way to the newest timeline.
        try backUp(server, installation)
      }
      try generation(number, server)
      if number == 3 { lsnOnThird = try server.psql("SELECT pg_current_wal_lsn()") }
      if number == 4 {
        // The youngest backup, on what is about to become a dead branch.
        try backUp(server, installation)
        try server.psql("INSERT INTO ledger VALUES (42)")
        try Installation.archiveWAL(server)
      }
      if number == 3 { try server.psql("INSERT INTO ledger VALUES (32)"); try Installation.archiveWAL(server) }
      try server.stop()
    }

    for (name, arguments, expected) in [
      ("newest", [], "1,10,20,30,40,50,51"),
      ("fourth", ["--timeline", "4"], "1,10,20,30,40,41,42"),
      ("third", ["--timeline", "3"], "1,10,20,30,31,32"),
      ("third-lsn", ["--timeline", "3", "--to-lsn", lsnOnThird], "1,10,20,30,31"),
      ("second", ["--timeline", "2"], "1,10,20,21"),
      ("first", ["--timeline", "1"], "1,10,11,12"),
      ("first-time", ["--timeline", "1", "--to-time", late], "1,10,11"),
      ("early", ["--to-name", "mid-2"], "1,10,20"),
    ] {
      let report = try installation.restore("to-\(name)", arguments) { query in
        expectEqual(try query(Self.rows), expected, "\(name)")
        expectEqual(try query("SELECT pg_is_in_recovery()"), "f")
      }
      // The next free number, wherever the recovery came from.
      let reached = report["reached"] as? [String: Any]
      #expect(reached?["timeline"] as? Int == 6, "\(name): \(report)")
    }
    // What lies on no way to the newest timeline isn't found by accident.
    try installation.refuse(
      76, "target-unreachable", ["restore", "--target-directory", "\(installation.root)/none", "--to-lsn", "9/0"])
    let windows = try windows(installation)
    #expect(windows.first?["timeline"] as? Int == 5)
    #expect(windows.filter { $0["newest"] as? Bool == true }.count == 1)
    #expect(windows.contains { $0["timeline"] as? Int == 4 && $0["newest"] as? Bool == false })
  }

  private func backUp(_ server: PostgresServer, _ installation: Installation) throws {
    let path = "\(installation.root)/successor.yaml"
    let text = String(decoding: try readFile(installation.configuration), as: UTF8.self)
      .replacing(installation.server.connectionString, with: server.connectionString)
    try DurableFile.write(Array(text.utf8), to: path, mode: 0o644)
    let outcome = try installation.run(["backup"], configuration: path)
    try #require(outcome.succeeded, "\(outcome.errorText)")
  }

  private func windows(_ installation: Installation) throws -> [[String: Any]] {
    let list = try installation.json(["list"])
    let lineage = try #require((list["lineages"] as? [[String: Any]])?.first)
    return lineage["windows"] as? [[String: Any]] ?? []
  }

  /// PostgreSQL's 028_pitr_timelines: the target lies on timeline 1, in a segment that only timeline 2 archived whole.
  /// A server that recovers towards the latest timeline then writes a history whose positions go back.
  @Test("a target in the segment of a switch, and the history that follows", arguments: PostgresVersion.allAvailable)
  func targetBeforeSwitch(_ version: PostgresVersion) throws {
    let installation = try Installation(version, usesS3: false)
    let first = installation.server
    try first.psql("CREATE TABLE ledger (id int PRIMARY KEY); INSERT INTO ledger VALUES (1)")
    _ = try installation.json(["backup"])
    try first.psql("SELECT pg_switch_wal()")
    try first.psql("INSERT INTO ledger VALUES (2)")
    try first.psql("SELECT pg_create_restore_point('early')")
    try first.psql("INSERT INTO ledger VALUES (3)")
    try first.psql("SELECT pg_create_restore_point('switch')")
    try installation.archiveWAL()
    try first.stop()
    let second = try installation.successor("second", ["--to-name", "switch"])
    try second.psql("INSERT INTO ledger VALUES (20)")
    try Installation.archiveWAL(second)
    try second.stop()
    // The switch's segment is left to timeline 2 alone, as if timeline 1 had never finished it.
    let shared = baseName(
      try #require(try installation.stored("/wal/00000002/", in: "west").first { !$0.hasSuffix("history") }))
    for region in ["west", "east"] {
      let old = try #require(
        try installation.stored("00000001\(shared.dropFirst(8))", in: region).first { !$0.hasSuffix("backup") })
      try FileManager.default.removeItem(atPath: old)
    }
    try installation.restore("early", ["--to-name", "early"]) { query in
      expectEqual(try query(Self.rows), "1,2")
      expectEqual(try query(Self.timeline), "3")
    }
    // By PostgreSQL's own rules: restore_command without a plan, the latest timeline by default.
    let target = "\(installation.root)/third"
    _ = try installation.json(["restore", "--no-start", "--target-directory", target, "--to-name", "early"])
    let command = "\(installation.program) --config \(installation.configuration) wal-fetch %f %p"
    let third = try installation.cluster(
      at: target, settings: ["restore_command": command, "recovery_target_timeline": "latest"])
    try third.start()
    #expect(try eventually { try third.psql("SELECT pg_is_in_recovery()") == "f" }, "\(third.log)")
    try third.psql("INSERT INTO ledger VALUES (30)")
    // The history with the position that goes back is archived too, and everything goes on from it.
    try Installation.archiveWAL(third)
    try third.stop()
    try installation.restore("newest", []) { query in
      expectEqual(try query(Self.rows), "1,2,30")
      expectEqual(try query(Self.timeline), "4")
    }
    try installation.restore("second-again", ["--timeline", "2"]) { query in
      expectEqual(try query(Self.rows), "1,2,3,20")
    }
  }

  /// Patroni runs archive_command on the former leader before pg_rewind: its last segment comes after the new history.
  @Test("a dead branch's segment that is archived late changes nothing, and a timeline without WAL isn't followed")
  func deadBranch() throws {
    let installation = try Installation(.v15, usesS3: false)
    let old = installation.server
    try old.psql("CREATE TABLE ledger (id int PRIMARY KEY); INSERT INTO ledger VALUES (1)")
    _ = try installation.json(["backup"])
    try old.psql("INSERT INTO ledger VALUES (2)")
    try old.psql("SELECT pg_create_restore_point('split')")
    try old.psql("INSERT INTO ledger VALUES (3)")
    try installation.archiveWAL()
    let new = try installation.successor("new", ["--to-name", "split"])
    #expect(try eventually { try !installation.stored("00000002.history", in: "west").isEmpty })
    // The new timeline's history is there, and none of its WAL: what is there is restored, and that is said.
    let report = try installation.restore("before", []) { query in expectEqual(try query(Self.rows), "1,2,3") }
    #expect((report["remarks"] as? [String])?.contains { $0.contains("timeline 2") } == true, "\(report)")
    try new.psql("INSERT INTO ledger VALUES (20)")
    try Installation.archiveWAL(new)
    // The old primary doesn't know yet, writes on, and archives behind the split.
    try old.psql("INSERT INTO ledger VALUES (4)")
    try installation.archiveWAL()
    try old.psql("INSERT INTO ledger VALUES (5)")
    try installation.archiveWAL()
    try installation.restore("after", []) { query in expectEqual(try query(Self.rows), "1,2,20") }
    // A backup of the dead branch is the youngest, and still not the one to restore from.
    _ = try installation.json(["backup"])
    try installation.restore("after-backup", []) { query in expectEqual(try query(Self.rows), "1,2,20") }
    try installation.restore("dead", ["--timeline", "1"]) { query in expectEqual(try query(Self.rows), "1,2,3,4,5") }
    // A promoted node archives old segments again: the same bytes succeed (trap 54).
    let segment = try new.psql("SELECT pg_walfile_name(pg_current_wal_lsn())")
    try Installation.archiveWAL(new)
    let again = try installation.run(["wal-push", "\(new.dataDirectory)/pg_wal/\(segment)"])
    #expect(again.succeeded, "\(again.errorText)")
    try new.stop()
  }

  @Test("only a dead branch has backups: the restore says so instead of restoring it")
  func onlyDeadBackups() throws {
    let installation = try Installation(.v15, usesS3: false)
    let old = installation.server
    try old.psql("CREATE TABLE ledger (id int PRIMARY KEY); INSERT INTO ledger VALUES (1)")
    let label = try #require(try installation.json(["backup"])["label"] as? String)
    try old.psql("SELECT pg_create_restore_point('split')")
    try old.psql("INSERT INTO ledger VALUES (2)")
    try installation.archiveWAL()
    let new = try installation.successor("new", ["--to-name", "split"])
    try Installation.archiveWAL(new)
    try new.stop()
    _ = try installation.json(["backup", "--full"])
    for region in ["west", "east"] {
      for path in try installation.stored("/\(label)/manifest", in: region) {
        try FileManager.default.removeItem(atPath: path)
      }
    }
    let text = try installation.refuse(
      76, "target-unreachable", ["restore", "--target-directory", "\(installation.root)/refused"])
    #expect(text.contains("--timeline 1"), "\(text)")
    try installation.restore("dead", ["--timeline", "1"]) { query in expectEqual(try query(Self.rows), "1,2") }
  }
}
