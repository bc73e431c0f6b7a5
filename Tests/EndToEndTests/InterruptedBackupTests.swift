// A backup that is killed loses nothing that it had uploaded: the next one refers to it.
import Foundation
import SystemSupport
import TestSupport
import Testing

@Suite("Interrupted backups")
struct InterruptedBackupTests {
  @Test("what a killed backup uploaded isn't stored again, and what it was uploading isn't relied on")
  func resumes() throws {
    let installation = try Installation(.v15, usesS3: false)
    let server = installation.server
    // Random bytes, so that the packs are as large as the data: a part of the file table is closed after some of them.
    for table in 1...12 {
      try server.psql(
        """
        CREATE TABLE part\(table) AS SELECT g AS id,
          (SELECT string_agg(uuid_send(gen_random_uuid()), '') FROM generate_series(1, 500) WHERE g > 0) AS bytes
        FROM generate_series(1, 1400) g
        """)
    }
    try server.psql("VACUUM FREEZE")
    try server.psql("CHECKPOINT")
    let killed = try installation.run(["backup"], environment: ["TIDEMARK_CRASH_AT": "backup.after-upload:7"])
    #expect(killed.ending == .signalled(SIGKILL), "\(killed.ending) \(killed.errorText)")
    let listed = try installation.json(["list"])
    #expect((listed["lineages"] as? [[String: Any]])?.allSatisfy { ($0["backups"] as? [Any])?.isEmpty == true } == true)

    let resumed = try installation.json(["backup"])
    let (new, all) = (resumed["newBytes"] as? Int ?? .max, resumed["databaseBytes"] as? Int ?? 0)
    #expect(all > 130_000_000)
    #expect(new < all - 30_000_000, "\(new) of \(all) bytes were stored again")
    let sum = "SELECT md5(string_agg(md5(t::text), '' ORDER BY id)) FROM part3 t"
    let expected = try server.psql(sum)
    for region in ["west", "east"] {
      try installation.restore("from-\(region)", ["--to-backup-end", "--from-region", region]) { query in
        let restored = try query(sum)
        #expect(restored == expected)
      }
    }

    // Killed just before the commit: everything is there, and nothing of it was a backup.
    let late = try installation.run(["backup", "--full"], environment: ["TIDEMARK_CRASH_AT": "backup.before-manifest"])
    #expect(late.ending == .signalled(SIGKILL))
    let last = try installation.json(["backup"])
    #expect((last["newBytes"] as? Int ?? .max) * 10 < all)
  }
}
