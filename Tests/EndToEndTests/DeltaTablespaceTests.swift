// Tablespaces in a delta restore: they keep their places or move, those that the backup doesn't know are set aside, and
// what another cluster has is never written into.
import Foundation
import Glibc
import SystemSupport
import TestSupport
import Testing

@Suite("Delta restore with tablespaces", .serialized)
struct DeltaTablespaceTests {
  private static let rows = "SELECT count(*), sum(id) FROM placed"

  private func contents(_ directory: String) throws -> String {
    try ChildProcess.run(
      "/bin/sh",
      ["-c", "cd \"$1\" && find . | sort && find . -type f -print0 | sort -z | xargs -0 -r sha256sum", "sh", directory]
    ).outputText
  }

  @Test("tablespaces keep their places or move, later ones are set aside, and another cluster's are refused")
  func tablespaces() throws {
    let installation = try Installation(.v15, usesS3: false)
    let (root, server) = (installation.root, installation.server)
    let original = try server.createTablespace("fast")
    try server.psql("CREATE TABLE placed TABLESPACE fast AS SELECT generate_series(1, 200000) AS id")
    let expected = try server.psql(Self.rows)
    _ = try installation.json(["backup"])
    let target = "\(root)/cluster"
    let place = "\(root)/space"
    func run(_ more: String..., start: Bool = true) throws -> [String: Any] {
      try installation.restore("cluster", (start ? [] : ["--no-start"]) + more) { query in
        if start { expectEqual(try query(Self.rows), expected) }
      }
    }
    _ = try run("--to-backup-end", "--tablespace-map", "\(original)=\(place)")
    // A file that isn't PostgreSQL's, and one of another version's cluster: neither is this cluster's.
    for name in ["mine", "PG_16_202307071"] {
      try DurableFile.createDirectories("\(place)/\(name)")
      try DurableFile.write(Array("x".utf8), to: "\(place)/\(name)/file")
      for path in ["\(place)/\(name)", "\(place)/\(name)/file"] { try PostgresServer.give(path) }
    }
    // Later ones: of the copy, and of the original, whose WAL creates it again.
    let later = "\(root)/later"
    try DurableFile.createDirectories(later)
    try PostgresServer.give(later)
    let copy = try installation.cluster(at: target, settings: ["archive_mode": "off"])
    try copy.start()
    try copy.psql("CREATE TABLESPACE later LOCATION '\(later)'")
    try copy.psql("CREATE TABLE young TABLESPACE later AS SELECT 1; UPDATE placed SET id = 0 WHERE id < 10; CHECKPOINT")
    try copy.stop()
    let liveBefore = try contents(original)

    let kept = try run("--to-backup-end", "--delta")
    let delta = try #require(kept["delta"] as? [String: Any])
    #expect(delta["keptBytes"] as? Int ?? 0 > 10 * (delta["writtenBytes"] as? Int ?? .max), "\(delta)")
    let aside = try #require((delta["setAside"] as? [String])?.first { $0.hasPrefix(later) })
    #expect(try !contents(aside).isEmpty && FileManager.default.contentsOfDirectory(atPath: later).count == 1)
    #expect(fileExists("\(place)/mine/file") && fileExists("\(place)/PG_16_202307071/file"))
    let links = try FileManager.default.contentsOfDirectory(atPath: "\(target)/pg_tblspc")
    #expect(links.count == 1)
    let link = "\(target)/pg_tblspc/\(try #require(links.first))"
    #expect(try FileManager.default.destinationOfSymbolicLink(atPath: link) == place)

    // A killed one that moves the tablespace is continued where it moved to.
    let moved = "\(root)/moved"
    let killed = try installation.run(
      [
        "restore", "--delta", "--to-backup-end", "--target-directory", target, "--tablespace-map",
        "\(original)=\(moved)",
      ],
      environment: ["TIDEMARK_CRASH_AT": "restore.before-control-file"])
    try #require(killed.ending == .signalled(SIGKILL), "\(killed.errorText)")
    _ = try run("--to-backup-end", "--delta")
    #expect(try FileManager.default.destinationOfSymbolicLink(atPath: link) == moved)
    #expect(fileExists("\(place)/mine/file"))

    // As after `cp -a` of the original: its link leads to the live cluster's tablespace.
    unlink(link)
    symlink(original, link)
    try PostgresServer.give(link)
    let before = try contents(target)
    let text = try installation.refuse(
      76, "target-in-use", ["restore", "--delta", "--to-backup-end", "--target-directory", target])
    #expect(text.contains(original) && text.contains(server.dataDirectory), "\(text)")
    #expect(try contents(target) == before)
    #expect(try contents(original) == liveBefore)
  }

  @Test(
    "in its own place a cluster goes back before the end of a tablespace that its WAL creates again",
    arguments: [true, false])
  func laterInPlace(_ isDelta: Bool) throws {
    let installation = try Installation(
      .v15, usesS3: false, postgres: "bin-directory: \(PostgresVersion.v15.binDirectory)\n  data-directory: /PLACE")
    let server = installation.server
    let configured = String(decoding: try readFile(installation.configuration), as: UTF8.self)
      .replacing("/PLACE", with: server.dataDirectory)
    try DurableFile.write(Array(configured.utf8), to: installation.configuration, mode: 0o644)
    try server.psql("CREATE TABLE ledger (id int); INSERT INTO ledger VALUES (1)")
    _ = try installation.json(["backup"])
    let location = try server.createTablespace("later")
    try server.psql("CREATE TABLE placed TABLESPACE later AS SELECT generate_series(1, 1000) AS id")
    try server.psql("SELECT pg_create_restore_point('early')")
    // Pages that the moment doesn't have.
    try server.psql("INSERT INTO placed SELECT generate_series(1001, 50000)")
    try installation.archiveWAL()
    try server.stop()
    let port = Int(try LoopbackPort.free())
    // As the runbook has it, or in place.
    let arguments = ["restore", "--target-directory", server.dataDirectory, "--to-name", "early", "--port", "\(port)"]
    if !isDelta {
      let wrong = "\(installation.root)/wrong"
      try FileManager.default.moveItem(atPath: server.dataDirectory, toPath: wrong)
      // Started again where it was moved to, it uses the tablespace still.
      let other = try LoopbackPort.free()
      try installation.postgres(
        "pg_ctl", ["start", "-w", "-D", wrong, "-l", "\(wrong).log", "-o", "-p \(other)"])
      let text = try installation.refuse(76, "target-in-use", arguments)
      #expect(text.contains(location) && text.contains(wrong), "\(text)")
      #expect(try FileManager.default.contentsOfDirectory(atPath: location).count == 1)
      try installation.postgres("pg_ctl", ["stop", "-m", "fast", "-D", wrong])
      try FileManager.default.removeItem(atPath: server.dataDirectory)
      // What a killed one set aside is told by the next.
      let killed = try installation.run(arguments, environment: ["TIDEMARK_CRASH_AT": "tablespace.after-aside"])
      try #require(killed.ending == .signalled(SIGKILL), "\(killed.ending) \(killed.errorText)")
      try installation.postgres("pg_ctl", ["stop", "-m", "immediate", "-D", server.dataDirectory], succeeds: false)
      try FileManager.default.removeItem(atPath: server.dataDirectory)
    }
    let aside = try FileManager.default.contentsOfDirectory(atPath: location).filter { $0.contains("kept") }
    #expect(aside.isEmpty == isDelta)
    let report = try installation.json(arguments + (isDelta ? ["--delta"] : []))
    defer {
      _ = try? installation.postgres(
        "pg_ctl", ["stop", "-m", "immediate", "-D", server.dataDirectory], succeeds: false)
    }
    let found = try installation.query(server.dataDirectory, port, Self.rows)
    #expect(found == "1000|500500")
    let size = try installation.query(server.dataDirectory, port, "SELECT pg_relation_size('placed') < 100000")
    #expect(size == "t")
    let kept = try FileManager.default.contentsOfDirectory(atPath: location).filter { $0.contains("kept") }
    #expect(!kept.isEmpty && Set(kept).isSuperset(of: aside))
    for name in kept {
      #expect((report["remarks"] as? [String])?.contains { $0.contains("\(location)/\(name)") } == true, "\(report)")
    }
  }
}
