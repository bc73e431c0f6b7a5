// A restore while another host expires what it reads. The policy's grace covers it; where that is too short, the restore
// fails, says why, and leaves nothing that could be started.
import Foundation
import SystemSupport
import TestSupport
import Testing

@Suite("A restore beside expire", .serialized)
struct RestoreBesideExpireTests {
  /// Two backups; a file of some packs' worth is in the first one alone.
  private struct TwoBackups {
    let installation: Installation
    let first: String
    let second: String

    init() throws {
      installation = try Installation(.v15, usesS3: false)
      let server = installation.server
      let file = "\(server.dataDirectory)/filler"
      _ = try ChildProcess.run("dd", ["if=/dev/urandom", "of=\(file)", "bs=1M", "count=100"])
      try PostgresServer.give(file)
      first = try #require(try installation.json(["backup"])["label"] as? String)
      try FileManager.default.removeItem(atPath: file)
      try server.psql("CREATE TABLE kept AS SELECT 7 AS id")
      second = try #require(try installation.json(["backup"])["label"] as? String)
    }

    /// Expires all but the last `count` backups on another host.
    func expire(count: Int = 1, grace: String) throws -> [String: Any] {
      let root = installation.root
      let text = String(decoding: try readFile(installation.configuration), as: UTF8.self)
        .replacing("state-directory: \(root)/state", with: "state-directory: \(root)/other")
      let configuration = "\(root)/other.yaml"
      let policy = "retention: {count: \(count), newest: 1, grace: \(grace)}\n"
      try DurableFile.write(Array((text + policy).utf8), to: configuration, mode: 0o644)
      let outcome = try installation.run(["--json", "expire"], configuration: configuration)
      try #require(outcome.succeeded, "\(outcome.errorText)")
      let report = try JSONSerialization.jsonObject(with: Data(outcome.output)) as? [String: Any]
      return try #require((report?["lineages"] as? [[String: Any]])?.first)
    }
  }

  @Test(
    "that lasts no longer than the grace loses nothing; one that lasts longer fails, and goes on with another backup")
  func grace() throws {
    let backups = try TwoBackups()
    let installation = backups.installation
    // The backups' leases, which would protect the first one for a while longer.
    _ = try backups.expire(count: 2, grace: "0s")
    let (target, other) = ("\(installation.root)/within", "\(installation.root)/beyond")
    func restore(_ target: String) -> [String] {
      ["restore", "--target-directory", target, "--backup", backups.first, "--to-backup-end", "--no-start"]
    }
    // Both have read a part of the packs when their backup expires.
    let (within, beyond) = (
      try installation.hold(at: "restore.after-pack", restore(target)),
      try installation.hold(at: "restore.after-pack", restore(other))
    )
    let expired = try backups.expire(grace: "1h")
    let decisions = try #require(expired["backups"] as? [[String: Any]])
    #expect(decisions.filter { $0["deleted"] as? Bool == true }.map { $0["label"] as? String } == [backups.first])
    let packs = try #require(expired["packs"] as? [String: Any])
    #expect(packs["deleted"] as? Int == 0)
    #expect(packs["waiting"] as? Int ?? 0 > 2, "\(packs)")
    #expect(try within.finish() == .exited(0), "\(within.errorText)")
    try installation.postgres("pg_verifybackup", ["-n", target])

    // The other one goes on when the grace is over.
    let cleared = try #require(try backups.expire(grace: "0s")["packs"] as? [String: Any])
    #expect(cleared["deleted"] as? Int ?? 0 > 2, "\(cleared)")
    #expect(try beyond.finish() == .exited(65), "\(beyond.errorText)")
    let text = beyond.errorText
    #expect(text.contains("[object-not-found]") && text.contains("expired while it was being restored"), "\(text)")
    #expect(text.contains(backups.first) && text.contains("retention.grace") && text.contains("--delta"), "\(text)")
    let start = try installation.postgres(
      "pg_ctl", ["start", "-w", "-t", "20", "-D", other, "-l", "\(other).log"], succeeds: false)
    #expect(!start.succeeded && !fileExists("\(other)/global/pg_control"))
    try installation.refuse(76, "backup-not-found", restore("\(installation.root)/new"))
    // What the error says to do.
    let report = try installation.restore("beyond", ["--delta", "--to-backup-end"]) { query in
      expectEqual(try query("SELECT id FROM kept"), "7")
    }
    #expect(report["backup"] as? String == backups.second)
  }
}
