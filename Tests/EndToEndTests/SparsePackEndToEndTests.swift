// Packs of which little is alive: a backup stores what is left of them anew, and they go with the backups that needed
// them.
import Foundation
import SystemSupport
import TestSupport
import Testing

@Suite("Backups give up packs of which little is alive") struct SparsePackEndToEndTests {
  @Test("what is left of sparse packs is stored anew once, they are deleted, and the newest backup restores")
  func lifeOfPacks() throws {
    let installation = try Installation(
      .v15, usesS3: false, configure: { $0.settings["autovacuum"] = "off" })
    let configuration = String(decoding: try readFile(installation.configuration), as: UTF8.self)
    try DurableFile.write(
      Array((configuration + "retention: {count: 1, newest: 1, grace: 0s}\n").utf8), to: installation.configuration,
      mode: 0o644)
    try PostgresServer.give(installation.configuration)
    let server = installation.server
    // 40 MB that don't compress: whole packs hold nothing else.
    try server.psql(
      """
      CREATE TABLE t (id int, filler bytea);
      ALTER TABLE t ALTER filler SET STORAGE PLAIN;
      INSERT INTO t SELECT g, (SELECT string_agg(sha512(int8send(g * 100 + n)), '') FROM generate_series(1, 30) n)
        FROM generate_series(1, 17500) g;
      VACUUM FREEZE t
      """)
    let first = try label(installation.json(["backup"]))
    let packCount = try installation.stored("packs/\(first)/", in: "west").count
    #expect(packCount >= 3)
    // Of each ten blocks of 16 KiB one stays as it is.
    try server.psql("DELETE FROM t WHERE (ctid::text::point)[0]::int / 2 % 10 <> 0")
    let second = try installation.json(["backup"])
    #expect(second["retiredPacks"] as? Int == 0)
    #expect(second["rewrittenBytes"] as? Int == 0)

    let third = try installation.json(["backup"])
    let retired = try #require(third["retiredPacks"] as? Int)
    #expect(retired >= 1 && retired < packCount)
    let rewritten = try #require(third["rewrittenBytes"] as? Int)
    #expect(rewritten >= retired << 20 && rewritten < retired * (4 << 20))
    let new = try #require(third["newBytes"] as? Int)
    #expect(new >= rewritten && new - rewritten < 1_000_000)

    // Had it been killed just before its manifest, the next one would store nothing twice, and not go back to the packs.
    for region in ["west", "east"] {
      let path = try #require(try installation.stored("backups/\(label(third))/manifest", in: region).first)
      try FileManager.default.removeItem(atPath: path)
    }
    let again = try installation.json(["backup"])
    #expect(again["retiredPacks"] as? Int == retired)
    #expect(again["rewrittenBytes"] as? Int == 0)
    #expect((again["newBytes"] as? Int ?? .max) < 1_000_000)

    // With nothing changed, nothing more is given up.
    let fourth = try installation.json(["backup"])
    #expect(fourth["retiredPacks"] as? Int == 0)
    #expect(fourth["rewrittenBytes"] as? Int == 0)
    #expect((fourth["newBytes"] as? Int ?? .max) < 1_000_000)

    // Two days later the leases have run out.
    for lease in try installation.stored("/leases/", in: "west") + installation.stored("/leases/", in: "east") {
      try FileManager.default.setAttributes(
        [.modificationDate: Date(timeIntervalSinceNow: -172_800)], ofItemAtPath: lease)
    }
    let before = try byteCount(installation)
    let expired = try installation.json(["expire"])
    let lineage = try #require((expired["lineages"] as? [[String: Any]])?.first)
    let deleted = try #require((lineage["packs"] as? [String: Any])?["deletedBytes"] as? Int)
    #expect(try installation.stored("packs/\(first)/", in: "west").count == packCount - retired)
    #expect(deleted >= retired * (15 << 20))
    #expect(try before - byteCount(installation) == deleted)

    let sum = "SELECT count(*), md5(string_agg(md5(filler), '' ORDER BY id)) FROM t"
    let expected = try server.psql(sum)
    let verified = try installation.run(["verify"])
    #expect(verified.succeeded, "\(String(decoding: verified.output, as: UTF8.self))\(verified.errorText)")
    try installation.restore("restored", ["--to-backup-end"]) { query in
      let restored = try query(sum)
      #expect(restored == expected)
    }
  }

  private func label(_ report: [String: Any]) throws -> String { try #require(report["label"] as? String) }

  /// Bytes of all packs in one region.
  private func byteCount(_ installation: Installation) throws -> Int {
    try installation.stored("/packs/", in: "west").reduce(0) { sum, path in
      sum + (try FileManager.default.attributesOfItem(atPath: path)[.size] as? Int ?? 0)
    }
  }
}
