// A full disk where Tidemark writes: nothing is acknowledged that isn't durable, nothing half-written can be started, and
// with room the same command succeeds. The file systems are small ones of the test's own, which only root can mount.
import Foundation
import SystemSupport
import TestSupport
import Testing

@Suite(
  "A full disk", .serialized,
  .enabled(if: SmallFileSystem.canMount, "only root can mount the small file systems of these tests"))
struct FullDiskTests {
  @Test("in the state directory and its journal: nothing is acknowledged that would be forgotten")
  func stateDirectory() throws {
    let installation = try Installation(.v15, usesS3: false, degradeAfter: "1s", archives: false)
    let root = installation.root
    let state = try SmallFileSystem("\(root)/state", "size=256k")
    defer { state.unmount() }
    func segment() throws -> String {
      try installation.server.psql("CREATE TABLE IF NOT EXISTS t (id int); INSERT INTO t VALUES (1)")
      let name = try installation.server.psql("SELECT pg_walfile_name(pg_switch_wal())")
      return "\(installation.server.dataDirectory)/pg_wal/\(name)"
    }
    try state.fill()
    // Both regions hold it: nothing needs to be noted.
    let both = try installation.run(["wal-push", try segment()])
    #expect(both.succeeded, "\(both.errorText)")
    // A debt can't be noted, so the segment isn't acknowledged.
    let path = try segment()
    try FileManager.default.moveItem(atPath: "\(root)/east", toPath: "\(root)/away")
    let refused = try installation.run(["wal-push", path])
    #expect(refused.ending == .exited(74), "\(refused.ending) \(refused.errorText)")
    #expect(refused.errorText.contains("local-io"))
    #expect(refused.errorText.contains("No space left on device"))
    #expect(refused.errorText.contains("kept:"))
    try state.makeRoom()
    let accepted = try installation.run(["wal-push", path])
    #expect(accepted.succeeded, "\(accepted.errorText)")
    let debts = try FileManager.default.contentsOfDirectory(atPath: "\(root)/state/debts/east")
    #expect(debts.count == 1)
    try FileManager.default.moveItem(atPath: "\(root)/away", toPath: "\(root)/east")
    let report = try installation.json(["sync"])
    #expect(report["findings"] as? [String] == [])
  }

  @Test("at the restore's target: refused beforehand where it shows, and not startable where it doesn't")
  func restoreTarget() throws {
    let installation = try Installation(.v15, usesS3: false)
    _ = try installation.json(["backup"])
    let small = try SmallFileSystem("\(installation.root)/small", "size=8m")
    defer { small.unmount() }
    let refused = try installation.run(["restore", "--target-directory", "\(small.path)/data", "--to-backup-end"])
    #expect(refused.ending == .exited(76), "\(refused.errorText)")
    #expect(refused.errorText.contains("space-insufficient"))
    #expect(!FileManager.default.fileExists(atPath: "\(small.path)/data"))

    // Room enough, and too few inodes: a shortage that only shows when the files are made.
    let crowded = try SmallFileSystem("\(installation.root)/crowded", "size=512m,nr_inodes=200")
    defer { crowded.unmount() }
    let failed = try installation.run(["restore", "--target-directory", "\(crowded.path)/data", "--to-backup-end"])
    #expect(failed.ending == .exited(74), "\(failed.ending) \(failed.errorText)")
    #expect(failed.errorText.contains("No space left on device"))
    #expect(!FileManager.default.fileExists(atPath: "\(crowded.path)/data/global/pg_control"))
  }

  @Test("more WAL is replayed than the target has room for")
  func longReplay() throws {
    let installation = try Installation(.v15, usesS3: false)
    let server = installation.server
    try server.psql("CREATE TABLE ledger (id int PRIMARY KEY)")
    _ = try installation.json(["backup"])
    // 1.2 GB of segments, nearly empty, with the checkpoints that a server of any load has.
    let count = 75
    for number in 1...count {
      try server.psql("INSERT INTO ledger VALUES (\(number))")
      if number % 5 == 0 { try server.psql("CHECKPOINT") }
      try server.psql("SELECT pg_switch_wal()")
    }
    try installation.archiveWAL()
    // Everything on the small disk, and the WAL alone.
    for (target, arguments) in [
      ("small/data", []), ("data", ["--wal-directory", "\(installation.root)/small/wal"]),
    ] {
      let small = try SmallFileSystem("\(installation.root)/small", "size=1000m")
      defer { small.unmount() }
      let report = try installation.restore(target, arguments) { query in
        let found = try query("SELECT count(*) FROM ledger")
        #expect(found == "\(count)")
        let settings = try query(
          """
          SELECT current_setting('max_wal_size'), current_setting('checkpoint_timeout'),
            current_setting('bgwriter_delay'), current_setting('recovery_prefetch')
          """)
        #expect(settings == "1GB|1h|200ms|try")
      }
      #expect(try #require(report["walSegments"] as? Int) * 16 > 1000)
    }
  }
}
