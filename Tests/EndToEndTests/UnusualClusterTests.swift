// A cluster of 20 000 tables with names as long as they may be, whose pg_wal lies elsewhere and in whose directory lie
// files that PostgreSQL doesn't know.
import Foundation
import Glibc
import SystemSupport
import TestSupport
import Testing

@Suite("An unusual cluster", .serialized)
struct UnusualClusterTests {
  private static let tableCount = 20_000
  /// 63 bytes, PostgreSQL's longest, with everything that must be quoted somewhere.
  private static let name = "ü'\"\\ $HOME %f %p;" + String(repeating: "n", count: 63 - 18)
  private static let sum = "SELECT count(*), sum(pg_relation_size(oid)) FROM pg_class WHERE relname ~ '^many_'"

  @Test("is what it was after a restore, and after one in its own place")
  func unusual() throws {
    try #require(Self.name.utf8.count == 63)
    let elsewhere = try TemporaryDirectory()
    try PostgresServer.give(elsewhere.path)
    let installation = try Installation(.v15, usesS3: false) {
      $0.initdbArguments += ["--waldir=\(elsewhere.path)/wal"]
      $0.settings["max_locks_per_transaction"] = "256"
    }
    let server = installation.server
    let data = server.dataDirectory
    try #require(try FileManager.default.destinationOfSymbolicLink(atPath: "\(data)/pg_wal").hasPrefix(elsewhere.path))
    try server.psql(
      """
      CREATE PROCEDURE many() LANGUAGE plpgsql AS $$ BEGIN FOR i IN 1..\(Self.tableCount) LOOP
        EXECUTE format('CREATE TABLE many_%s AS SELECT %s AS id', i, i);
        IF i % 500 = 0 THEN COMMIT; END IF; END LOOP; END $$
      """)
    try server.psql("CALL many()")
    let quoted = "\"" + Self.name.replacing("\"", with: "\"\"") + "\""
    try server.psql("CREATE DATABASE \(quoted)")
    try server.psql("CREATE SCHEMA \(quoted); CREATE TABLE \(quoted).\(quoted) AS SELECT 42 AS id", database: Self.name)

    // The longest that tar has room for. A link is no part of a base backup, which must not go unsaid.
    let long = String(repeating: "l", count: 99)
    for name in [long, "known"] {
      try DurableFile.write(Array(name.utf8), to: "\(data)/\(name)")
      try PostgresServer.give("\(data)/\(name)")
    }
    try #require(symlink("\(data)/known", "\(data)/a-link") == 0)
    let wanted = try server.psql(Self.sum)
    #expect(wanted.hasPrefix("\(Self.tableCount)|"))
    let backup = try installation.json(["backup"])
    #expect((backup["remarks"] as? [String])?.contains { $0.contains("a-link") } == true, "\(backup["remarks"] ?? "")")
    #expect(try #require(backup["fileCount"] as? Int) > Self.tableCount)

    func expectAll(_ psql: (_ sql: String, _ database: String) throws -> String) throws {
      expectEqual(try psql(Self.sum, "postgres"), wanted)
      expectEqual(try psql("SELECT id FROM \(quoted).\(quoted)", Self.name), "42")
    }
    let target = "\(installation.root)/copy"
    let wal = "\(elsewhere.path)/copy's wal"
    let arguments = ["restore", "--to-latest", "--target-directory", target, "--wal-directory", wal]
    let killed = try installation.run(arguments, environment: ["TIDEMARK_CRASH_AT": "restore.before-control-file"])
    try #require(killed.ending == .signalled(SIGKILL), "\(killed.errorText)")
    let restored = try installation.json(arguments + ["--delta"])
    let port = try #require(restored["port"] as? Int)
    try expectAll { try installation.query(target, port, $0, database: $1) }
    #expect(try readFile("\(target)/\(long)") == Array(long.utf8))
    #expect(try FileManager.default.destinationOfSymbolicLink(atPath: "\(target)/pg_wal") == wal)
    #expect(try FileManager.default.contentsOfDirectory(atPath: wal).contains { $0.hasPrefix("00000002") })
    try installation.postgres("pg_ctl", ["stop", "-w", "-D", target])
    let taken = try installation.refuse(
      76, "target-not-empty",
      ["restore", "--to-latest", "--target-directory", "\(target)-2", "--wal-directory", wal])
    #expect(taken.contains(wal))

    try server.psql("DROP TABLE many_7")
    try server.stop()
    let old = try FileManager.default.destinationOfSymbolicLink(atPath: "\(data)/pg_wal")
    let kept = try FileManager.default.contentsOfDirectory(atPath: old).sorted()
    let delta = try installation.json(
      ["restore", "--to-backup-end", "--delta", "--target-directory", data, "--no-start"])
    // The link may lead to what somebody else uses by now, so it is moved, and what it leads to stays as it is.
    #expect((delta["remarks"] as? [String])?.contains { $0.contains("a link to \(old)") } == true)
    #expect(try FileManager.default.contentsOfDirectory(atPath: old).sorted() == kept)
    try server.start()
    try #require(try eventually(.seconds(60)) { try server.psql("SELECT pg_is_in_recovery()") == "f" })
    try expectAll { try server.psql($0, database: $1) }
    #expect(try readFile("\(data)/\(long)") == Array(long.utf8))
  }
}
