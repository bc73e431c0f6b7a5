// Retention with a real server: after an expiry the kept backups restore, though they refer to packs of expired ones;
// and an unfinished backup's base survives.
import Foundation
import SystemSupport
import TestSupport
import Testing

@Suite("Expiry of a real cluster's backups", .serialized) struct ExpireTests {
  @Test("kept backups restore to their end and to the latest moment; a killed backup keeps its base") func restores()
    throws
  {
    let installation = try Installation(.v15, usesS3: false)
    let configuration = String(decoding: try readFile(installation.configuration), as: UTF8.self)
    try DurableFile.write(
      Array((configuration + "retention: {count: 2, newest: 1, grace: 0s}\n").utf8), to: installation.configuration,
      mode: 0o644)
    try PostgresServer.give(installation.configuration)
    _ = try installation.server.psql(
      "CREATE TABLE t AS SELECT 0 AS round, repeat('x', 500) AS filler FROM generate_series(1, 20000)")
    var labels: [String] = []
    for round in 1...4 {
      _ = try installation.server.psql("INSERT INTO t VALUES (\(round), '')")
      labels.append(try #require(try installation.json(["backup"])["label"] as? String))
    }
    // A backup that dies before its manifest leaves a lease, which names the fourth as its base.
    let killed = try installation.run(["backup"], environment: ["TIDEMARK_CRASH_AT": "backup.before-manifest"])
    #expect(killed.ending == .signalled(9))

    let expired = try installation.json(["expire"])
    let lineage = try #require((expired["lineages"] as? [[String: Any]])?.first)
    let backups = try #require(lineage["backups"] as? [[String: Any]])
    #expect(backups.filter { $0["deleted"] as? Bool == true }.map { $0["label"] as? String } == [labels[0], labels[1]])
    #expect((lineage["unfinished"] as? [String: String])?.values.map { $0 } == ["running, or used by a backup that is"])
    let packs = try #require(lineage["packs"] as? [String: Any])
    // The table's bulk is in packs of the first backup, which the kept ones still name.
    let names = FileManager.default.enumerator(atPath: "\(installation.root)/west")?.compactMap { $0 as? String } ?? []
    #expect(names.contains { $0.contains("packs/\(labels[0])/") })
    #expect((packs["kept"] as? Int ?? 0) > 0)

    _ = try installation.server.psql("INSERT INTO t VALUES (5, '')")
    try installation.archiveWAL()
    try installation.restore("oldest", ["--backup", labels[2], "--to-backup-end"]) { query in
      let found = try query("SELECT max(round), count(*) FROM t")
      #expect(found == "3|20003")
    }
    try installation.restore("latest", ["--backup", labels[2], "--to-latest"]) { query in
      let found = try query("SELECT max(round), count(*) FROM t")
      #expect(found == "5|20005")
    }
    // The next backup builds on what is left.
    let next = try installation.json(["backup"])
    #expect((next["newBytes"] as? Int ?? .max) < 4_000_000)
  }
}
