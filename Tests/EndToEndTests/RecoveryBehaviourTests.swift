// Behaviours that PostgreSQL's own tests of recovery and of pg_verifybackup ask for, with our commands in the place of
// cp: prepared transactions (023), databases and tablespaces that come and go (033), PostgreSQL's tools on what was
// restored (pg_verifybackup 003 and 005, pg_amcheck, pg_checksums).
import Foundation
import SystemSupport
import TestSupport
import Testing

@Suite("PostgreSQL's recovery tests", .serialized)
struct RecoveryBehaviourTests {
  @Test(
    "a transaction that is prepared at the target can be committed after it", arguments: PostgresVersion.allAvailable)
  func preparedTransaction(_ version: PostgresVersion) throws {
    let installation = try Installation(version, usesS3: false)
    let server = installation.server
    try server.psql("CREATE TABLE foo (i int)")
    _ = try installation.json(["backup"])
    try server.psql("BEGIN; INSERT INTO foo VALUES (1); PREPARE TRANSACTION 'fooinsert'")
    try server.psql("SELECT pg_create_restore_point('rp')")
    try server.psql("INSERT INTO foo VALUES (2)")
    try server.psql("SELECT pg_switch_wal()")
    try server.psql("COMMIT PREPARED 'fooinsert'")
    try installation.archiveWAL()
    try installation.restore("restored", ["--to-name", "rp"]) { query in
      expectEqual(try query("SELECT count(*) FROM foo"), "0")
      expectEqual(try query("SELECT gid FROM pg_prepared_xacts"), "fooinsert")
      _ = try query("COMMIT PREPARED 'fooinsert'")
      _ = try query("CHECKPOINT")
      expectEqual(try query("SELECT string_agg(i::text, ',') FROM foo"), "1")
    }
  }

  @Test("databases and tablespaces that are dropped and moved after the backup don't stop the replay")
  func drops() throws {
    let installation = try Installation(.v15, usesS3: false)
    let server = installation.server
    let location = try server.createTablespace("source")
    try server.psql("CREATE DATABASE template_db TABLESPACE source")
    _ = try installation.json(["backup"])
    try server.psql("CREATE DATABASE moved TEMPLATE template_db STRATEGY = FILE_COPY")
    try server.psql("ALTER DATABASE moved SET TABLESPACE pg_default")
    try server.psql("CREATE DATABASE gone TEMPLATE template_db STRATEGY = WAL_LOG")
    try server.psql("DROP DATABASE gone")
    try server.psql("DROP DATABASE template_db")
    try server.psql("DROP TABLESPACE source")
    try server.psql("CREATE TABLE ledger AS SELECT 1 AS id")
    try installation.archiveWAL()
    let target = "\(installation.root)/space"
    try installation.restore("restored", ["--tablespace-map", "\(location)=\(target)"]) { query in
      expectEqual(try query("SELECT count(*) FROM ledger"), "1")
      expectEqual(
        try query("SELECT string_agg(datname, ',' ORDER BY datname) FROM pg_database"),
        "moved,postgres,template0,template1")
    }
  }

  @Test(
    "full and incremental pass pg_verifybackup, pg_amcheck and pg_checksums; spoilt files don't",
    arguments: PostgresVersion.allAvailable)
  func tools(_ version: PostgresVersion) throws {
    let installation = try Installation(version, usesS3: false)
    let server = installation.server
    try server.pgbench(["-i", "-q", "-s", "2"])
    try server.psql("CREATE INDEX ON pgbench_accounts (abalance, aid)")
    let load = WorkerThread<Void>("pgbench") { try server.pgbench(["-T", "3", "-c", "2"]) }
    let full = try #require(try installation.json(["backup", "--full"])["label"] as? String)
    try load.join()
    let again = WorkerThread<Void>("pgbench") { try server.pgbench(["-T", "2", "-c", "2"]) }
    let incremental = try #require(try installation.json(["backup"])["label"] as? String)
    try again.join()
    try installation.archiveWAL()
    let digest = "SELECT md5(string_agg(a::text, ',' ORDER BY aid)) FROM pgbench_accounts a"
    let expected = try server.psql(digest)
    for label in [full, incremental] {
      let target = "\(installation.root)/\(label)"
      let report = try installation.json(["restore", "--no-start", "--target-directory", target, "--backup", label])
      try installation.postgres("pg_verifybackup", ["-n", target])
      if label == full { try spoil(installation, target) }
      let started = try installation.cluster(at: target, settings: ["archive_mode": "off"])
      try started.start()
      #expect(try eventually(.seconds(60)) { try started.psql("SELECT pg_is_in_recovery()") == "f" }, "\(report)")
      #expect(try started.psql(digest) == expected)
      let socket = ["-h", started.socketDirectory, "-p", "\(started.port)", "-U", "postgres"]
      try installation.postgres(
        "pg_amcheck", socket + ["--install-missing", "--heapallindexed", "--rootdescend", "--all"])
      try started.stop(.fast)
      try installation.postgres("pg_checksums", ["--check", "-D", target])
    }
  }

  /// pg_verifybackup's 003 and 005: each kind of corruption of what was restored is seen, and undone again here.
  private func spoil(_ installation: Installation, _ target: String) throws {
    func seen(_ what: String, _ words: String) throws {
      let outcome = try installation.postgres("pg_verifybackup", ["-n", target], succeeds: false)
      #expect(!outcome.succeeded && outcome.errorText.contains(words), "\(what): \(outcome.errorText)")
    }
    let path = "\(target)/global/pg_filenode.map"
    let good = try readFile(path)
    func put(_ bytes: [UInt8], at path: String) throws {
      try DurableFile.write(bytes, to: path)
      try PostgresServer.give(path)
    }
    try put(good, at: "\(target)/extra_file")
    try seen("extra", "present on disk but not in the manifest")
    unlink("\(target)/extra_file")
    unlink(path)
    try seen("missing", "present in the manifest but not on disk")
    try put(good + [0], at: path)
    try seen("append", "has size")
    try put(Array(good.dropLast(100)), at: path)
    try seen("truncate", "has size")
    try put(Array(good.reversed()), at: path)
    try seen("replace", "checksum mismatch")
    try put(good, at: path)
    let manifest = "\(target)/backup_manifest"
    let text = try readFile(manifest)
    try put(Array(text.dropLast(20)), at: manifest)
    let parsed = try installation.postgres("pg_verifybackup", ["-n", target], succeeds: false)
    #expect(!parsed.succeeded)
    try put(text, at: manifest)
    try installation.postgres("pg_verifybackup", ["-n", target])
  }
}
