// The main job on real servers: a backup under load into two S3 regions, and every kind of recovery target, with the
// rows compared by digest.
import Foundation
import SystemSupport
import TestSupport
import Testing

@Suite("The main job", .serialized)
struct RecoveryTargetTests {
  private static let digest = "SELECT coalesce(md5(string_agg(l::text, ',' ORDER BY id)), 'none') FROM ledger l"

  @Test("every kind of target restores exactly the rows of that moment", arguments: PostgresVersion.allAvailable)
  func everyTarget(_ version: PostgresVersion) throws {
    let installation = try Installation(version, usesS3: true)
    let server = installation.server
    try server.psql("CREATE TABLE ledger (id int PRIMARY KEY, note text)")
    try server.psql("INSERT INTO ledger SELECT g, 'sealed-words-' || md5(g::text) FROM generate_series(1, 20000) g")
    try server.pgbench(["-i", "-q", "-s", "2"])
    let load = WorkerThread<Void>("pgbench") { try server.pgbench(["-T", "4", "-c", "2"]) }
    let backup = try installation.json(["backup"])
    try load.join()
    #expect((backup["newBytes"] as? Int ?? 0) > 10_000_000)

    func step(_ id: Int) throws -> String {
      try server.psql("INSERT INTO ledger VALUES (\(id), 'step'); SELECT 1")
      return try server.psql(Self.digest)
    }
    let atName = try step(100_001)
    try server.psql("SELECT pg_create_restore_point('before the change')")
    let atLSN = try step(100_002)
    let lsn = try server.psql("SELECT pg_current_wal_lsn()")
    let atTime = try step(100_003)
    let time = try server.psql("SELECT clock_timestamp()")
    let xid = try server.psql(
      "BEGIN; INSERT INTO ledger VALUES (100004, 'step'); SELECT pg_current_xact_id(); COMMIT")
    let atXID = try server.psql(Self.digest)
    let atLatest = try step(100_005)
    try installation.archiveWAL()

    for (name, arguments, expected) in [
      ("name", ["--to-name", "before the change"], atName), ("lsn", ["--to-lsn", lsn], atLSN),
      ("time", ["--to-time", time], atTime), ("xid", ["--to-xid", xid], atXID), ("latest", ["--to-latest"], atLatest),
    ] {
      let report = try installation.restore(name, arguments) { query in
        let answer1 = try query(Self.digest)
        #expect(answer1 == expected, "target \(name)")
        let answer2 = try query("SELECT pg_is_in_recovery()")
        #expect(answer2 == "f")
        let answer3 = try query("SHOW archive_mode")
        #expect(answer3 == "off")
      }
      #expect(report["met"] as? Bool == true)
    }
    try installation.restore("end", ["--to-backup-end"]) { query in
      let answer4 = try query("SELECT count(*) FROM ledger WHERE id > 100000")
      #expect(answer4 == "0")
    }
    try verifiesWithPostgresTools(installation)
    try leaksNothing(installation)
    try incremental(installation)
  }

  /// PostgreSQL's own check of the files before recovery.
  private func verifiesWithPostgresTools(_ installation: Installation) throws {
    let target = "\(installation.root)/verified"
    _ = try installation.json(["restore", "--target-directory", target, "--no-start"])
    let binaries = installation.server.version.binDirectory
    let verify = PostgresServer.unprivileged("\(binaries)/pg_verifybackup", ["-n", target])
    let outcome = try ChildProcess.run(verify[0], Array(verify.dropFirst()), workingDirectory: "/")
    #expect(outcome.succeeded, "\(outcome.errorText)")
  }

  /// Nothing that was written into a table is found in a stored object.
  private func leaksNothing(_ installation: Installation) throws {
    for server in installation.servers {
      let found = try ChildProcess.run("grep", ["-rlF", "sealed-words-", server.directory])
      #expect(found.ending == .exited(1), "\(found.outputText)")
    }
  }

  /// A second backup stores little, and each region alone restores it.
  private func incremental(_ installation: Installation) throws {
    let server = installation.server
    // The load changed much of the database; this one settles it.
    _ = try installation.json(["backup"])
    try server.psql("UPDATE ledger SET note = 'changed' WHERE id = 7")
    let backup = try installation.json(["backup"])
    let (new, all) = (backup["newBytes"] as? Int ?? .max, backup["databaseBytes"] as? Int ?? 0)
    #expect(new * 3 < all, "\(new) of \(all) bytes were stored again")
    let expected = try server.psql(Self.digest)
    for region in ["west", "east"] {
      let report = try installation.restore("from-\(region)", ["--to-backup-end", "--from-region", region]) { query in
        let answer5 = try query(Self.digest)
        #expect(answer5 == expected)
        let answer6 = try query("SELECT count(*) FROM pgbench_accounts")
        #expect(answer6 == "200000")
      }
      #expect((report["regions"] as? [String: Any])?.keys.sorted() == [region])
    }
  }
}
