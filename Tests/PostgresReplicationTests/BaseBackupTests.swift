// Base backups over the protocol from real servers, compared with what PostgreSQL's own tools say.
import Diagnostics
import Glibc
import PostgresReplication
import Synchronization
import SystemSupport
import TestSupport
import Testing

@Suite("Base backups") struct BaseBackupTests {
  @Test(
    "a backup with tablespaces unpacks with tar and passes pg_verifybackup", arguments: PostgresVersion.allAvailable)
  func verifies(version: PostgresVersion) throws {
    let server = try PostgresServer(version)
    let locations = [try server.createTablespace("fast"), try server.createTablespace("slow")]
    try server.psql(
      """
      CREATE TABLE plain AS SELECT generate_series(1, 50000) AS n;
      CREATE TABLE quick TABLESPACE fast AS SELECT * FROM plain;
      CREATE TABLE lame TABLESPACE slow AS SELECT * FROM plain;
      """)
    let backup = try CollectedBackup(server, BaseBackupOptions(label: "it's \\ a test"))

    let start = try #require(backup.start)
    let end = try #require(backup.end)
    #expect(start.timeline.rawValue == 1)
    #expect(end.stopLSN > start.startLSN)
    #expect(end.checksumFailure == nil)
    #expect(start.tablespaces.dropLast().map(\.location) == locations)
    #expect(start.tablespaces.last?.oid == nil)
    #expect(backup.archives.map(\.archive.tablespace) == start.tablespaces)
    #expect(backup.archives.last?.archive.isMain == true)
    let byteCount = backup.archives.reduce(0) { $0 + $1.bytes.count }
    #expect(abs(Int64(byteCount) - start.estimatedByteCount) < 4 << 20)

    let temporary = try TemporaryDirectory()
    let directory = "\(temporary.path)/data"
    try backup.unpack(into: directory)
    let label = String(decoding: try readFile("\(directory)/backup_label"), as: UTF8.self)
    #expect(label.contains("START WAL LOCATION: \(start.startLSN) "))
    #expect(label.contains("LABEL: it's \\ a test\n"))
    let map = String(decoding: try readFile("\(directory)/tablespace_map"), as: UTF8.self)
    for location in locations { #expect(map.contains(location)) }
    let verified = try ChildProcess.run("\(version.binDirectory)/pg_verifybackup", ["-n", directory])
    #expect(verified.succeeded, "\(verified.errorText)")
  }

  @Test("the archives hold the same files as pg_basebackup's", arguments: PostgresVersion.allAvailable)
  func sameFiles(version: PostgresVersion) throws {
    let server = try PostgresServer(version)
    _ = try server.createTablespace("fast")
    try server.psql("CREATE TABLE quick TABLESPACE fast AS SELECT generate_series(1, 1000) AS n")
    let temporary = try TemporaryDirectory()
    let theirs = "\(temporary.path)/theirs"
    try server.run("pg_basebackup", ["-U", "postgres", "-F", "t", "-X", "none", "-c", "fast", "-D", theirs])
    let ours = try CollectedBackup(server)
    for (archive, bytes) in ours.archives {
      let listed = try ChildProcess.run("tar", ["-tf", "\(theirs)/\(archive.tablespace.archiveName)"])
      #expect(listed.succeeded)
      #expect(try CollectedBackup.names(inArchive: bytes) == listed.outputText.split(separator: "\n").map(String.init))
    }
    #expect(ours.archives.count == 2)
  }

  @Test(
    "a damaged page is reported with the stop position, and its file by a warning",
    arguments: PostgresVersion.allAvailable)
  func damagedPage(version: PostgresVersion) throws {
    let server = try PostgresServer(version)
    let path = try server.psql(
      """
      CREATE TABLE damaged AS SELECT generate_series(1, 5000) AS n; CHECKPOINT;
      SELECT pg_relation_filepath('damaged')
      """)
    try server.stop()
    do {
      let file = try OpenFile("\(server.dataDirectory)/\(path)", O_WRONLY)
      let garbage = [UInt8](repeating: 0xA5, count: 64)
      var failure: (any Error)?
      garbage.withUnsafeBytes { do { try file.write($0, at: 8192 + 4000) } catch { failure = error } }
      #expect(failure == nil)
      try file.close()
    }
    try server.start()

    let connection = try PostgresConnection(ConnectionInfo(server.connectionString), for: .replication)
    var warnings: [ServerMessage] = []
    connection.noticeHandler = { warnings.append($0) }
    let backup = try CollectedBackup(connection)
    let end = try #require(backup.end)
    #expect(end.stopLSN > (try #require(backup.start).startLSN))
    #expect(end.checksumFailure?.contains("XX001") == true)
    #expect(
      warnings.contains { $0.severity == "WARNING" && $0.message.contains(path) && $0.message.contains("block 1") })
    // The connection is still good.
    #expect(try connection.identifySystem().timeline.rawValue == 1)

    var options = BaseBackupOptions(label: "unverified")
    options.verifiesChecksums = false
    #expect(try CollectedBackup(connection, options).end?.checksumFailure == nil)
  }

  @Test("a label or a rate that the server would refuse is refused")
  func usage() throws {
    let server = try PostgresServer(.v15)
    func code(_ change: (inout BaseBackupOptions) -> Void) throws -> ErrorCode? {
      var options = BaseBackupOptions(label: "test")
      change(&options)
      return #expect(throws: TidemarkError.self) { try CollectedBackup(server, options) }?.code
    }
    #expect(try code { $0.label = "" } == .usage)
    #expect(try code { $0.label = String(repeating: "x", count: 1025) } == .usage)
    #expect(try code { $0.label = "two\nlines" } == .usage)
    #expect(try code { $0.transferRateMax = 31 } == .usage)
    var options = BaseBackupOptions(label: String(repeating: "x", count: 1024))
    options.transferRateMax = 1_048_576
    options.checkpoint = .spread
    // A spread checkpoint on an idle server is soon done.
    #expect(try CollectedBackup(server, options).end != nil)
  }
}
