// Hosts with different keys and connections: who can take backups, who can restore, and what is never found in a region.
import Foundation
import Glibc
import SystemSupport
import TestSupport
import Testing

@Suite("Hosts")
struct HostTests {
  /// The libraries are loaded when they are needed, so that the program itself starts without them.
  @Test("a host without libcurl or libpq is told which, keeps its WAL, and ends no recovery")
  func libraries() throws {
    let installation = try Installation(.v15, usesS3: true, degradeAfter: "2s", archives: false)
    let server = installation.server
    let name = try server.psql("SELECT pg_walfile_name(pg_switch_wal())")
    let segment = "\(server.dataDirectory)/pg_wal/\(name)"
    let destination = "\(server.dataDirectory)/pg_wal/RECOVERYXLOG"
    for (library, package, arguments, status) in [
      ("libcurl.so.4", "libcurl4", ["wal-push", segment], Int32(69)),
      ("libcurl.so.4", "libcurl4", ["wal-fetch", name, destination], 203),
      ("libpq.so.5", "libpq5", ["backup"], 74),
    ] {
      let hidden = "\(installation.root)/hides-\(package)"
      try FileManager.default.createDirectory(atPath: hidden, withIntermediateDirectories: true)
      // Found before the host's, and no library.
      try DurableFile.write([], to: "\(hidden)/\(library)", mode: 0o644)
      try PostgresServer.give(hidden)
      let outcome = try installation.run(arguments, environment: ["LD_LIBRARY_PATH": hidden])
      #expect(outcome.ending == .exited(status), "\(arguments): \(outcome.ending) \(outcome.errorText)")
      for part in [library, package] { #expect(outcome.errorText.contains(part), "\(outcome.errorText)") }
      // What needs neither does its work.
      let version = try installation.run(["keys", "list", "--help"], environment: ["LD_LIBRARY_PATH": hidden])
      #expect(version.succeeded, "\(version.errorText)")
    }
    #expect(fileExists(segment) && !fileExists(destination))
    #expect(try installation.run(["wal-push", segment]).succeeded)
  }

  @Test("a writer without an identity backs up and can't restore; each of several recipients can, without a writer key")
  func keys() throws {
    let installation = try Installation(.v15, usesS3: false)
    let root = installation.root
    let original = String(decoding: try readFile(installation.configuration), as: UTF8.self)
    func configure(_ name: String, _ encryption: String) throws -> String {
      let line = original.split(separator: "\n").first { $0.hasPrefix("encryption:") } ?? ""
      let path = "\(root)/\(name).yaml"
      try DurableFile.write(
        Array(original.replacing(line, with: "encryption: {\(encryption)}").utf8), to: path, mode: 0o644)
      return path
    }
    // Three restore hosts' identities; the writer knows the public halves of two of them.
    var recipients: [String] = []
    for name in ["one", "two", "stranger"] {
      let path = try configure(name, "identity-file: \(root)/\(name).key, writer-key-file: \(root)/writer.key")
      let made = try installation.run(["--json", "init"], configuration: path)
      try #require(made.succeeded, "\(made.errorText)")
      let document = try JSONSerialization.jsonObject(with: Data(made.output)) as? [String: Any]
      recipients += try #require(document?["recipients"] as? [String])
    }
    let trusted = try #require(try installation.json(["init"])["trustedWriters"] as? [String])
    let writer = try configure(
      "writer-host", "recipients: [\(recipients[0]), \(recipients[1])], writer-key-file: \(root)/writer.key")
    let server = installation.server
    try server.psql(
      "ALTER SYSTEM SET archive_command = '\(installation.program) --config \(writer) wal-push %p'; ")
    try server.psql("SELECT pg_reload_conf()")
    try server.psql("CREATE TABLE ledger (id int PRIMARY KEY, note text)")
    try server.psql("INSERT INTO ledger SELECT g, 'plainly-readable-' || g FROM generate_series(1, 3000) g")
    try installation.archiveWAL()
    for arguments in [["backup", "--full"], ["backup"]] {
      let outcome = try installation.run(["--json"] + arguments, configuration: writer)
      try #require(outcome.succeeded, "\(outcome.errorText)")
      if arguments.count == 1 {
        let report = try JSONSerialization.jsonObject(with: Data(outcome.output)) as? [String: Any]
        let (new, all) = (report?["newBytes"] as? Int ?? .max, report?["databaseBytes"] as? Int ?? 0)
        #expect(new * 3 < all, "\(new) of \(all) bytes were stored again")
      }
      try installation.archiveWAL()
    }
    // The writer sees what there is, and reads none of it.
    #expect(try installation.run(["list"], configuration: writer).succeeded)
    let text = try installation.refuse(
      77, "no-key-opens", ["restore", "--target-directory", "\(root)/refused"], configuration: writer)
    #expect(text.contains("identity"), "\(text)")
    #expect(!FileManager.default.fileExists(atPath: "\(root)/refused"))
    let segment = baseName(try #require(try installation.stored("/wal/00000001/", in: "west").last))
    let fetched = try installation.run(
      ["wal-fetch", segment, "\(server.dataDirectory)/pg_wal/RECOVERYXLOG"], configuration: writer)
    #expect(fetched.ending == .exited(203), "\(fetched.errorText)")
    // Restore hosts have an identity and no writer key.
    for name in ["one", "two"] {
      let host = try configure(
        "restore-\(name)", "identity-file: \(root)/\(name).key, trusted-writers: [\(trusted[0])]")
      let target = "\(root)/restored-\(name)"
      let outcome = try installation.run(["--json", "restore", "--target-directory", target], configuration: host)
      try #require(outcome.succeeded, "\(outcome.errorText)")
      let report = try JSONSerialization.jsonObject(with: Data(outcome.output)) as? [String: Any]
      let count = try installation.query(target, report?["port"] as? Int ?? 0, "SELECT count(*) FROM ledger")
      #expect(count == "3000")
      try installation.postgres("pg_ctl", ["stop", "-m", "immediate", "-D", target])
    }
    let stranger = try configure(
      "restore-stranger", "identity-file: \(root)/stranger.key, trusted-writers: [\(trusted[0])]")
    try installation.refuse(
      77, "no-key-opens", ["restore", "--target-directory", "\(root)/refused"], configuration: stranger)
    for region in ["west", "east"] {
      let found = try ChildProcess.run("grep", ["-rlaF", "plainly-readable-", "\(root)/\(region)"])
      #expect(found.ending == .exited(1), "\(found.outputText)")
    }
  }

  @Test(
    "init leaves keys alone that lie where it may not write",
    .enabled(if: geteuid() == 0, "only root can give a directory to somebody else"))
  func keysOfAnother() throws {
    let installation = try Installation(.v15, usesS3: false)
    let root = installation.root
    try FileManager.default.createDirectory(atPath: "\(root)/keys", withIntermediateDirectories: false)
    for name in ["identity.key", "writer.key"] {
      try FileManager.default.moveItem(atPath: "\(root)/\(name)", toPath: "\(root)/keys/\(name)")
    }
    let moved = String(decoding: try readFile(installation.configuration), as: UTF8.self)
      .replacing("\(root)/identity.key", with: "\(root)/keys/identity.key")
      .replacing("\(root)/writer.key", with: "\(root)/keys/writer.key")
    try DurableFile.write(Array(moved.utf8), to: installation.configuration, mode: 0o644)
    let before = try readFile("\(root)/keys/writer.key")
    let again = try installation.run(["init"])
    #expect(again.succeeded, "\(again.errorText)")
    #expect(try readFile("\(root)/keys/writer.key") == before)
    #expect(try FileManager.default.contentsOfDirectory(atPath: "\(root)/keys").count == 2)
  }

  @Test("the base backup comes over TLS, with the certificate verified and a password from a file")
  func tls() throws {
    let certificate = try TestCertificate()
    let directory = try TemporaryDirectory()
    let passwords = "\(directory.path)/pgpass"
    try DurableFile.write(Array("*:*:*:tidemark:sesame-word\n".utf8), to: passwords)
    try PostgresServer.give(directory.path)
    try PostgresServer.give(passwords)
    let authority = "\(directory.path)/ca.crt"
    try DurableFile.write(try readFile(certificate.authorityPath), to: authority, mode: 0o644)
    let installation = try Installation(
      .v15, usesS3: false,
      configure: { options in
        options.certificate = certificate
        options.hostAuthentication = "scram-sha-256"
      },
      connection: { server in
        "\"host=localhost port=\(server.port) user=tidemark sslmode=verify-full sslrootcert=\(authority) passfile=\(passwords)\""
      })
    try installation.server.psql(
      "CREATE ROLE tidemark LOGIN REPLICATION PASSWORD 'sesame-word'; GRANT pg_monitor TO tidemark")
    try installation.server.psql("CREATE TABLE ledger AS SELECT generate_series(1, 100) AS id")
    _ = try installation.json(["backup"])
    try installation.restore("restored", ["--to-backup-end"]) { query in
      expectEqual(try query("SELECT count(*) FROM ledger"), "100")
    }
    // An authority that didn't sign the server's certificate is refused.
    let other = try TestCertificate()
    try DurableFile.write(try readFile(other.authorityPath), to: authority, mode: 0o644)
    let refused = try installation.run(["backup"])
    #expect(refused.ending == .exited(69) && refused.errorText.contains("certificate"), "\(refused.errorText)")
    #expect(!refused.errorText.contains("sesame"))
  }
}
