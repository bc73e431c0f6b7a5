// `keys rotate` by the real program on a real cluster with a failover behind it: killed at each step and repeated, then
// restored with the new key alone, to moments before and after the failover.
import Foundation
import SystemSupport
import TestSupport
import Testing

@Suite("Rotation of keys, end to end", .serialized)
struct KeyRotationEndToEndTests {
  private static let rows = "SELECT string_agg(id::text, ',' ORDER BY id) FROM ledger"

  /// Gives the installation this `encryption` from now on.
  private func configure(_ installation: Installation, _ encryption: String) throws {
    let text = String(decoding: try readFile(installation.configuration), as: UTF8.self)
    let line = try #require(text.split(separator: "\n").first { $0.hasPrefix("encryption:") })
    try DurableFile.write(
      Array(text.replacing(line, with: "encryption: {\(encryption)}").utf8), to: installation.configuration, mode: 0o644
    )
  }

  private func recipient(_ installation: Installation, _ path: String) throws -> String {
    let outcome = try installation.run(["keys", "generate", "--identity", path])
    try #require(outcome.succeeded, "\(outcome.errorText)")
    let line = try #require(outcome.outputText.split(separator: "\n").first { $0.hasPrefix("recipient: ") })
    return String(line.dropFirst("recipient: ".count).prefix { $0 != " " })
  }

  @Test("a restore with the new key alone reaches every moment, over a failover, whatever killed the rotation")
  func rotation() throws {
    let installation = try Installation(.v15, usesS3: false)
    let root = installation.root
    let first = installation.server
    try first.psql("CREATE TABLE ledger (id int PRIMARY KEY); INSERT INTO ledger VALUES (1)")
    _ = try installation.json(["backup"])
    try first.psql("INSERT INTO ledger VALUES (2)")
    try first.psql("SELECT pg_create_restore_point('early')")
    try first.psql("INSERT INTO ledger VALUES (3)")
    try first.psql("SELECT pg_create_restore_point('failover')")
    try installation.archiveWAL()
    try first.stop()
    let second = try installation.successor("second", ["--to-name", "failover"])
    try second.psql("INSERT INTO ledger VALUES (4)")
    try Installation.archiveWAL(second)

    let new = try recipient(installation, "\(root)/new.key")
    let old = try recipient(installation, "\(root)/identity.key")
    let writer = "writer-key-file: \(root)/writer.key"
    let newAlone = "recipients: [\(new)], identity-file: \(root)/new.key, \(writer)"
    let before = try installation.objects()
    try configure(installation, newAlone)
    try installation.refuse(77, "no-key-opens", ["restore", "--target-directory", "\(root)/none"])

    // The new identity stays where it was made: the host that rotates has its public half.
    try configure(installation, "recipients: [\(new)], identity-file: \(root)/identity.key, \(writer)")
    try second.psql("INSERT INTO ledger VALUES (5)")
    try Installation.archiveWAL(second)
    let dry = try installation.json(["keys", "rotate", "--dry-run"])
    #expect(try installation.stored("/rewraps/", in: "west").isEmpty)
    let plan = try #require((dry["lineages"] as? [[String: Any]])?.first)
    for point in [
      "rotate.before-create", "rotate.before-create:2", "create.after-put", "create.after-put:2", "rotate.after-create",
    ] {
      let outcome = try installation.run(["keys", "rotate"], environment: ["TIDEMARK_CRASH_AT": point])
      try #require(outcome.ending == .signalled(SIGKILL), "\(point): \(outcome.ending) \(outcome.errorText)")
    }
    let report = try installation.json(["keys", "rotate"])
    let result = try #require((report["lineages"] as? [[String: Any]])?.first)
    #expect(result["notOpened"] as? Int == 0 && report["findings"] as? [String] == [], "\(report)")
    #expect(result["current"] as? Int ?? 0 >= 1)
    // One for each group, whatever was repeated.
    let made = try installation.stored("/rewraps/", in: "west")
    #expect(made.count == plan["rewraps"] as? Int && Set(made.map(directoryName)).count == made.count, "\(made)")
    let again = try installation.json(["keys", "rotate"])
    #expect((again["lineages"] as? [[String: Any]])?.first?["rewraps"] as? Int == 0)
    #expect(try installation.stored("/rewraps/", in: "east").count == made.count)
    let after = try installation.objects()
    for (name, digest) in before { #expect(after[name] == digest, "\(name)") }

    // The old identity is gone from here on.
    try FileManager.default.moveItem(atPath: "\(root)/identity.key", toPath: "\(root)/old.key")
    try configure(installation, newAlone)
    let text = String(decoding: try readFile(installation.configuration), as: UTF8.self)
    try DurableFile.write(
      Array(text.replacing(first.connectionString, with: second.connectionString).utf8),
      to: installation.configuration, mode: 0o644)
    _ = try installation.json(["backup"])
    try second.psql("INSERT INTO ledger VALUES (6)")
    try Installation.archiveWAL(second)
    let verified = try installation.json(["verify"])
    #expect((verified["counts"] as? [String: Any])?["notOpened"] as? Int == 0, "\(verified)")
    for (name, target, expected) in [
      ("early", ["--to-name", "early"], "1,2"), ("failover", ["--to-name", "failover"], "1,2,3"),
      ("newest", [], "1,2,3,4,5,6"),
    ] {
      try installation.restore("new-\(name)", target) { query in expectEqual(try query(Self.rows), expected, name) }
    }
    // In place, where single frames are fetched.
    let delta = ["restore", "--delta", "--no-start", "--target-directory", "\(root)/new-newest", "--to-name", "early"]
    _ = try installation.json(delta)
    // PostgreSQL's own way of asking, without a plan.
    let names = try installation.stored("/wal/", in: "west").map(baseName)
    let history = try #require(names.first { $0.hasSuffix(".history") })
    let segment = try #require(names.first { $0.count == 24 })
    for name in [history, segment] {
      let fetched = try installation.run(["wal-fetch", name, "\(root)/second/pg_wal/fetched"])
      #expect(fetched.succeeded, "\(fetched.errorText)")
    }

    // Who has the old identity still opens what was sealed to it.
    try configure(installation, "recipients: [\(old)], identity-file: \(root)/old.key, \(writer)")
    let name = try #require(names.last { $0 == segment })
    let fetched = try installation.run(["wal-fetch", name, "\(root)/second/pg_wal/fetched"])
    #expect(fetched.succeeded, "\(fetched.errorText)")
    try second.stop()
  }
}
