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

  @Test("a backup that runs while another host expires is complete and restores") func besideABackup() throws {
    let installation = try Installation(.v15, usesS3: false)
    let configuration = String(decoding: try readFile(installation.configuration), as: UTF8.self)
    func configure(_ addition: String) throws {
      try DurableFile.write(
        Array((configuration + addition).utf8), to: installation.configuration, mode: 0o644)
      try PostgresServer.give(installation.configuration)
    }
    try configure("")
    try installation.server.psql(
      "CREATE TABLE t AS SELECT 1 AS round, repeat('x', 500) AS filler FROM generate_series(1, 9000)")
    for _ in 1...2 { _ = try installation.json(["backup"]) }
    try installation.server.psql("INSERT INTO t VALUES (2, '')")
    // Slow enough that it runs while everything else happens.
    try configure("limits: {upload-rate: 5KiB}\n")
    let backup = WorkerThread("backup") { try installation.run(["--json", "backup"]) }
    let west = "\(installation.root)/west"
    func objects(_ part: String) -> Int {
      FileManager.default.enumerator(atPath: west)?.count { "\($0)".contains(part) } ?? 0
    }
    // The leases of the first two stay until they expire; the third is the running one's.
    #expect(try eventually(.seconds(60)) { objects("/leases/0") == 3 })
    // Another backup is completed meanwhile, on another host, so that the base isn't the newest any more.
    let other = configuration.replacing(
      "state-directory: \(installation.root)/state", with: "state-directory: \(installation.root)/other")
    try DurableFile.write(
      Array((other + "retention: {count: 1, newest: 1, grace: 0s}\n").utf8), to: "\(installation.root)/other.yaml",
      mode: 0o644)
    try PostgresServer.give("\(installation.root)/other.yaml")
    let elsewhere = ["--config", "\(installation.root)/other.yaml"]
    #expect(try installation.run(["backup"] + elsewhere).succeeded)
    let expired = try installation.run(["expire"] + elsewhere)
    #expect(expired.succeeded, "\(expired.errorText)")
    #expect(expired.outputText.contains("builds on it"))
    let outcome = try backup.join()
    #expect(outcome.succeeded, "\(outcome.errorText)")
    #expect(try installation.run(["verify"] + elsewhere).succeeded)
    try installation.restore("after", ["--to-latest"]) { query in
      let found = try query("SELECT max(round), count(*) FROM t")
      #expect(found == "2|9001")
    }
  }
}
