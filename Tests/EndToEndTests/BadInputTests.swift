// Bad input, as an operator meets it: for each the exit status, the code, and a text that says what happened, why, what
// is still safe and what to do next.
import Foundation
import Glibc
import SystemSupport
import TestSupport
import Testing

@Suite("Bad input", .serialized)
struct BadInputTests {
  let installation: Installation
  private var root: String { installation.root }
  private var server: PostgresServer { installation.server }

  init() throws { installation = try Installation(.v15, usesS3: false) }

  /// The parts of the operator's text.
  private enum Line: String, CaseIterable { case cause, kept, next }

  /// `arguments` must end with `status`, the code, and the lines `says`; each of `mentions` must be in the text.
  @discardableResult
  private func refuse(
    _ status: Int32, _ code: String, _ arguments: [String], says: [Line] = Line.allCases, _ mentions: String...,
    hasDocument: Bool = true, location: SourceLocation = #_sourceLocation
  ) throws -> String {
    let outcome = try installation.run(arguments)
    let text = outcome.errorText
    #expect(outcome.ending == .exited(status), "\(text)", sourceLocation: location)
    #expect(text.contains("[\(code)]") && text.contains("error: "), "\(text)", sourceLocation: location)
    for line in says { #expect(text.contains("\n\(line.rawValue): "), "no \(line): \(text)", sourceLocation: location) }
    for mention in mentions { #expect(text.contains(mention), "no '\(mention)': \(text)", sourceLocation: location) }
    #expect(!text.contains("Fatal error"), sourceLocation: location)
    // With --json the same is a document.
    if !hasDocument { return text }
    let document = try? JSONSerialization.jsonObject(with: Data(installation.run(["--json"] + arguments).output))
    let error = (document as? [String: Any])?["error"] as? [String: Any]
    #expect(error?["code"] as? String == code, sourceLocation: location)
    return text
  }

  /// A changed copy of the configuration, as options for the command line.
  private func configuration(_ changes: (String, String)...) throws -> [String] {
    var text = String(decoding: try readFile(installation.configuration), as: UTF8.self)
    for (old, new) in changes {
      try #require(text.contains(old))
      text = text.replacing(old, with: new)
    }
    let path = "\(root)/changed.yaml"
    try DurableFile.write(Array(text.utf8), to: path, mode: 0o644)
    try PostgresServer.give(path)
    return ["--config", path]
  }

  private func target(_ name: String = "target") -> [String] { ["restore", "--target-directory", "\(root)/\(name)"] }

  @Test("configuration and keys") func configurationAndKeys() throws {
    _ = try installation.json(["backup"])
    try refuse(
      78, "configuration-invalid", ["list"] + configuration(("state-directory", "state-directroy")),
      says: [.cause, .next],
      "state-directroy", "state-directory")
    try refuse(78, "configuration-unreadable", ["list", "--config", "\(root)/none.yaml"], says: [.next], "none.yaml")
    // Attachments.
    try refuse(
      74, "local-io", ["backup"] + configuration(("objectives:", "attachments: [/no/such/file]\nobjectives:")),
      "/no/such/file", "earlier backups")
    if geteuid() == 0 {
      try DurableFile.write([1], to: "\(root)/secret")
      try #require(chown("\(root)/secret", 0, 0) == 0)
      try refuse(
        77, "local-permission",
        ["backup"] + configuration(("objectives:", "attachments: [\(root)/secret]\nobjectives:")),
        "\(root)/secret")
    }
    // Keys: a missing identity, one that opens nothing, modes that let others read.
    let missing = try configuration(("identity-file: \(root)/identity.key", "identity-file: \(root)/none.key"))
    try refuse(77, "no-key-opens", target() + missing, says: [.next], "identity")
    let other = "\(root)/other.key"
    #expect(try installation.run(["keys", "generate", "--identity", other]).succeeded)
    try refuse(
      77, "no-key-opens",
      target()
        + configuration(
          ("identity-file: \(root)/identity.key", "identity-file: \(other)"),
          ("writer-key-file: \(root)/writer.key", "trusted-writers: [\(try trustedWriter())]")), says: [.cause, .next])
    chmod(other, 0o644)
    try refuse(
      77, "key-file-mode-open",
      target() + configuration(("identity-file: \(root)/identity.key", "identity-file: \(other)")),
      says: [.cause, .next], other, "chmod 600")
    try DurableFile.write(Array("not a key\n".utf8), to: other)
    try PostgresServer.give(other)
    let text = try refuse(
      77, "key-file-invalid",
      target() + configuration(("identity-file: \(root)/identity.key", "identity-file: \(other)")),
      says: [], other)
    #expect(!text.contains("not a key"), "a line of a key file may be a secret")
    #expect(!fileExists("\(root)/target") && !fileExists("\(root)/target.tidemark"))
  }

  private func trustedWriter() throws -> String {
    let list = try installation.run(["keys", "list"]).outputText
    return String(try #require(list.firstMatch(of: /tidemark-writer-\w+/)).output)
  }

  @Test("a bucket that isn't there, and a secret that isn't right") func buckets() throws {
    let s3 = try RcloneServer(buckets: ["crm"])
    let credentials = "\(root)/s3.credentials"
    func write(_ secret: String) throws {
      let text = "[default]\naws_access_key_id = \(RcloneServer.accessKey)\naws_secret_access_key = \(secret)\n"
      try DurableFile.write(Array(text.utf8), to: credentials)
      try PostgresServer.give(credentials)
    }
    func region(_ bucket: String) throws -> [String] {
      try configuration(
        (
          "{name: west, endpoint: \"file://\(root)/west\"}",
          "{name: west, endpoint: \"\(s3.endpoint)\", bucket: \(bucket), region: us-1, credentials-file: \(credentials)}"
        ))
    }
    try write(RcloneServer.secretKey)
    try refuse(78, "bucket-missing", ["init"] + region("nobody"), says: [.cause], "nobody")
    try write("wrong-\(RcloneServer.secretKey)")
    let text = try refuse(77, "access-denied", ["init"] + region("crm"), says: [.cause], "crm")
    #expect(!text.contains(RcloneServer.secretKey))
  }

  @Test("files that aren't what their names say") func files() throws {
    try installation.archiveWAL()
    let name = try server.psql("SELECT pg_walfile_name(pg_current_wal_lsn())")
    let foreign = "\(root)/\(name)"
    func write(_ bytes: [UInt8]) throws {
      try DurableFile.write(bytes, to: foreign, mode: 0o644)
      try PostgresServer.give(foreign)
    }
    let options = try configuration(("bin-directory", "data-directory: \(server.dataDirectory)\n  bin-directory"))
    // Garbage of the right length, and of another.
    var numbers = SeededNumbers(3)
    for count in [16 << 20, 5000, 0] {
      try write(numbers.bytes(count))
      try refuse(76, "wal-file-invalid", ["wal-push", foreign] + options, says: [.cause, .kept], name)
    }
    // A real segment of another cluster, and one under another's name.
    var segment = try readFile("\(server.dataDirectory)/pg_wal/\(name)")
    segment[25] ^= 1
    try write(segment)
    try refuse(76, "wal-file-foreign", ["wal-push", foreign] + options, name, "archive_command")
    segment[25] ^= 1
    segment[9] ^= 1
    try write(segment)
    try refuse(76, "wal-file-invalid", ["wal-push", foreign] + options, says: [.cause, .kept])
    let odd = "\(root)/RECOVERYXLOG"
    try DurableFile.move(foreign, to: odd)
    try refuse(76, "wal-file-invalid", ["wal-push", odd] + options, says: [.kept, .next], "RECOVERYXLOG")
    try refuse(
      74, "local-io", ["wal-push", "\(server.dataDirectory)/pg_wal/0000000100000099000000AA"] + options,
      says: [.cause, .kept])
    let history = "\(root)/00000002.history"
    try DurableFile.write(Array("garbage\n".utf8), to: history, mode: 0o644)
    try refuse(76, "wal-file-invalid", ["wal-push", history] + options, says: [.cause, .kept], "00000002.history")
    let stored = try ChildProcess.run(
      "find", ["\(root)/west", "-name", "00000002.history", "-o", "-name", "RECOVERYXLOG"])
    #expect(stored.outputText.isEmpty)
    // restore_command's side: what PostgreSQL can't ask for is no proof of absence.
    #expect(try installation.run(["wal-fetch", "RECOVERYXLOG", "\(root)/x"] + options).ending == .exited(203))
    #expect(try installation.run(["wal-fetch", name, "\(root)/none/x"]).ending == .exited(203))
  }

  @Test("targets that can't be reached, and directories that must not be written") func restores() throws {
    let tablespace = try server.createTablespace("roomy")
    try server.psql("CREATE TABLE t TABLESPACE roomy AS SELECT 1 AS id")
    let backup = try installation.json(["backup"])
    for step in 2...5 {
      try server.psql("INSERT INTO t VALUES (\(step))")
      try installation.archiveWAL()
    }
    let map = ["--tablespace-map", "\(tablespace)=\(root)/roomy"]
    let moved = target() + map
    // Times: with a zone, as dates are written, and between the first and the last reachable moment.
    try refuse(64, "usage", moved + ["--to-time", "2026-11-24 03:15:00"], says: [.cause, .next], "time zone")
    for time in ["tomorrow", "2026-02-30 00:00:00Z", ""] {
      try refuse(64, "usage", moved + ["--to-time", time], says: [.cause, .next])
    }
    try refuse(
      76, "target-unreachable", moved + ["--to-time", "2000-01-01 00:00:00+00"], "the earliest backup",
      try #require(backup["label"] as? String))
    let late = try refuse(
      76, "target-unreachable", moved + ["--to-time", "2099-01-01 00:00:00+00"], "last archived commit")
    // The nearest moment that is told can really be reached.
    let nearest = try #require(late.firstMatch(of: /latest reachable time is (\S+);/)).output.1
    #expect(try installation.run(moved + ["--to-time", String(nearest), "--plan-only"]).succeeded)
    try refuse(76, "target-unreachable", moved + ["--to-lsn", "FFFF/0"], says: [.kept, .next])
    try refuse(76, "target-unreachable", moved + ["--to-lsn", "0/1"], says: [.kept, .next])
    try refuse(
      76, "target-unreachable", moved + ["--to-name", "never made"], says: [.cause, .kept, .next], "never made")
    try refuse(76, "target-unreachable", moved + ["--timeline", "7"], says: [.next], "timeline 7")
    try refuse(76, "backup-not-found", moved + ["--backup", "19990101"], says: [.next], "19990101")
    try refuse(64, "usage", moved + ["--to-latest", "--target-action", "pause"], says: [.next])
    try refuse(64, "usage", moved + ["--to-lsn", "nonsense"], says: [.next], "nonsense")
    try refuse(64, "usage", moved + ["--to-lsn", "0/1", "--to-name", "x"], says: [])
    // Directories.
    try refuse(76, "target-not-empty", ["restore", "--target-directory", root] + map, says: [.cause, .kept, .next])
    try refuse(
      76, "target-in-use", ["restore", "--target-directory", server.dataDirectory] + map, says: [.cause, .kept, .next],
      "\(try #require(server.pid))")
    try refuse(76, "target-not-empty", target(), says: [.cause, .kept, .next], tablespace, "--tablespace-map")
    try refuse(64, "usage", target() + ["--tablespace-map", "/nowhere=/x"], says: [.next], "/nowhere")
    // Taken from the working directory, where this user may not write.
    try refuse(77, "local-permission", ["restore", "--target-directory", "relative"] + map, says: [.cause], "relative")
    let link = "\(root)/link"
    symlink(server.dataDirectory, link)
    let linked = try installation.run(["restore", "--target-directory", link] + map)
    #expect(linked.ending == .exited(76), "\(linked.errorText)")
    if geteuid() == 0 { try smallDisk(map) }
    // A hole on the way.
    let holes = try ChildProcess.run("find", [root + "/west", root + "/east", "-type", "f", "-path", "*/wal/*"])
    let segments = Set(holes.outputText.split(separator: "\n").map { baseName(String($0)) }).filter { $0.count == 24 }
      .sorted()
    let missing = try #require(segments.dropLast(2).last)
    for path in holes.outputText.split(separator: "\n") where path.hasSuffix(missing) { unlink(String(path)) }
    try refuse(65, "wal-hole", moved, missing, "nothing was written")
    #expect(!fileExists("\(root)/target") && !fileExists("\(root)/target.tidemark") && !fileExists("\(root)/roomy"))
    #expect(try server.psql("SELECT count(*) FROM t") == "5")
  }

  /// A file system of 8 MiB, which only root can mount.
  private func smallDisk(_ map: [String]) throws {
    let mount = "\(root)/small"
    try DurableFile.createDirectories(mount)
    let mounted = try ChildProcess.run("mount", ["-t", "tmpfs", "-o", "size=8m,mode=0777", "tmpfs", mount])
    guard mounted.succeeded else { return }
    defer { _ = try? ChildProcess.run("umount", [mount]) }
    try refuse(76, "space-insufficient", ["restore", "--target-directory", "\(mount)/t"] + map, "MiB are needed")
    #expect(!fileExists("\(mount)/t"))
  }

  @Test("servers that can't be backed up") func servers() throws {
    let old = try OldServer(version: "14.9")
    let connection = "connection: \(server.connectionString)"
    try refuse(
      76, "server-unsuitable",
      ["backup"]
        + configuration(
          (connection, "connection: host=127.0.0.1 port=\(old.port) user=x sslmode=disable gssencmode=disable")),
      says: [.cause], "14", hasDocument: false)
    try server.psql("CREATE ROLE plain LOGIN")
    try refuse(
      77, "server-refused",
      ["backup"]
        + configuration((connection, "connection: host=\(server.socketDirectory) port=\(server.port) user=plain")),
      says: [.cause])
    try refuse(
      69, "server-unreachable",
      ["backup"] + configuration((connection, "connection: host=\(root) port=\(server.port) user=x")),
      says: [.cause])
    try server.stop()
    try server.start(settings: ["max_wal_senders": "0"])
    try refuse(69, "server-unreachable", ["backup"], says: [.cause, .next], "max_wal_senders")
    let manifests = try ChildProcess.run("find", ["\(root)/west", "-name", "manifest"])
    #expect(manifests.outputText.isEmpty)
  }
}
