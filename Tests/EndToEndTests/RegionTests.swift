// What regions that fail, lack or damage objects do to archiving and restoring: nothing is lost, nothing is silent.
import Foundation
import SystemSupport
import TestSupport
import Testing

@Suite("Regions")
struct RegionTests {
  private func segments(_ installation: Installation, _ region: String) throws -> [String] {
    let list = try ChildProcess.run("find", ["\(installation.root)/\(region)", "-type", "f", "-path", "*/wal/*"])
    return list.outputText.split(separator: "\n").map(String.init).sorted()
  }

  @Test("a region that is down leaves debts, which sync repays")
  func debts() throws {
    let installation = try Installation(.v15, usesS3: false, degradeAfter: "2s")
    let root = installation.root
    try FileManager.default.moveItem(atPath: "\(root)/east", toPath: "\(root)/away")
    try installation.archiveWAL()
    _ = try installation.json(["backup"])
    // The backup's history file is archived before the next segment: nothing is pushed while the region comes back.
    try installation.archiveWAL()
    #expect(FileManager.default.fileExists(atPath: "\(root)/state/debts/east"))
    try FileManager.default.moveItem(atPath: "\(root)/away", toPath: "\(root)/east")
    let report = try installation.json(["sync"])
    #expect((report["repaid"] as? Int ?? 0) > 0)
    #expect(report["findings"] as? [String] == [])
    let difference = try ChildProcess.run("diff", ["-rq", "-x", "probes", "\(root)/west", "\(root)/east"])
    #expect(difference.succeeded, "\(difference.outputText)")
    let left = try FileManager.default.contentsOfDirectory(atPath: "\(root)/state/debts/east")
    #expect(left.isEmpty)
  }

  @Test("the same segment again succeeds, other content under its name is refused and changes nothing")
  func conflict() throws {
    let installation = try Installation(.v15, usesS3: false)
    let server = installation.server
    try server.psql("CREATE TABLE t AS SELECT generate_series(1, 100) AS id")
    let name = try server.psql("SELECT pg_walfile_name(pg_current_wal_lsn())")
    let live = "\(server.dataDirectory)/pg_wal/\(name)"
    let copy = "\(installation.root)/\(name)"
    try installation.archiveWAL()
    try FileManager.default.copyItem(atPath: live, toPath: copy)
    try PostgresServer.give(copy)
    #expect(try installation.run(["wal-push", live]).succeeded)
    let stored = try segments(installation, "west").map { try Data(contentsOf: URL(filePath: $0)) }
    let file = try FileHandle(forUpdating: URL(filePath: copy))
    try file.seek(toOffset: 9000)
    try file.write(contentsOf: Data([0xAB, 0xCD]))
    try file.close()
    let refused = try installation.run(["wal-push", copy])
    // A foreign or damaged copy lies outside the data directory, so its control file isn't beside it.
    #expect(refused.ending == .exited(76), "\(refused.errorText)")
    #expect(refused.errorText.contains("wal-conflict"))
    let after = try segments(installation, "west").map { try Data(contentsOf: URL(filePath: $0)) }
    #expect(after == stored)
  }

  @Test("wal-fetch says 'not there' only when every region said so")
  func provenAbsence() throws {
    let installation = try Installation(.v15, usesS3: false)
    let root = installation.root
    try installation.archiveWAL()
    let pg = installation.server.dataDirectory
    let target = "\(pg)/pg_wal/RECOVERYXLOG"
    let name = baseName(try #require(try segments(installation, "west").first))
    #expect(try installation.run(["wal-fetch", "0000000900000009000000AA", target]).ending == .exited(1))
    #expect(try installation.run(["wal-fetch", name, target]).succeeded)
    try FileManager.default.removeItem(atPath: target)
    try FileManager.default.moveItem(atPath: "\(root)/east", toPath: "\(root)/away")
    let unknown = try installation.run(["wal-fetch", "0000000900000009000000AA", target])
    #expect(unknown.ending == .exited(202), "\(unknown.errorText)")
    #expect(try installation.run(["wal-fetch", name, target]).succeeded)
    try FileManager.default.moveItem(atPath: "\(root)/away", toPath: "\(root)/east")
  }

  @Test("a damaged segment comes from the other region and is mended; damaged in both it is an error")
  func damage() throws {
    let installation = try Installation(.v15, usesS3: false)
    try installation.archiveWAL()
    let west = try #require(try segments(installation, "west").first)
    let east = try #require(try segments(installation, "east").first)
    let good = try Data(contentsOf: URL(filePath: west))
    let target = "\(installation.server.dataDirectory)/pg_wal/RECOVERYXLOG"
    var bad = good
    bad[bad.count / 2] ^= 1
    try bad.write(to: URL(filePath: west))
    #expect(try installation.run(["wal-fetch", baseName(west), target]).succeeded)
    #expect(try Data(contentsOf: URL(filePath: west)) == good)
    try FileManager.default.removeItem(atPath: target)
    try bad.write(to: URL(filePath: west))
    try bad.write(to: URL(filePath: east))
    #expect(try installation.run(["wal-fetch", baseName(west), target]).ending == .exited(201))
    #expect(!FileManager.default.fileExists(atPath: target))
  }

  @Test("a restore refuses what can't work before it writes a byte")
  func refusals() throws {
    let installation = try Installation(.v15, usesS3: false)
    let root = installation.root
    _ = try installation.json(["backup"])
    try installation.archiveWAL()
    func refuse(_ status: Int32, _ code: String, _ arguments: [String]) throws {
      let outcome = try installation.run(["restore"] + arguments)
      #expect(outcome.ending == .exited(status), "\(outcome.errorText)")
      #expect(outcome.errorText.contains("[\(code)]"), "\(outcome.errorText)")
    }
    let target = "\(root)/target"
    try refuse(64, "usage", ["--target-directory", target, "--to-time", "2026-11-24 03:15:00"])
    try refuse(64, "usage", ["--target-directory", target, "--to-lsn", "nonsense"])
    try refuse(64, "usage", ["--target-directory", target, "--to-latest", "--target-action", "pause"])
    try refuse(76, "target-unreachable", ["--target-directory", target, "--to-time", "2000-01-01 00:00:00+00"])
    try refuse(76, "target-unreachable", ["--target-directory", target, "--to-time", "2099-01-01 00:00:00+00"])
    try refuse(76, "target-unreachable", ["--target-directory", target, "--to-name", "never made"])
    try refuse(76, "target-not-empty", ["--target-directory", root])
    try refuse(76, "target-in-use", ["--target-directory", installation.server.dataDirectory])
    #expect(!FileManager.default.fileExists(atPath: target))
  }
}
