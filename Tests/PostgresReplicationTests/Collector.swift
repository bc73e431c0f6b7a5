// Base backups taken for tests: archives are kept in memory and go through the real tar program and pg_verifybackup.
import Diagnostics
import PostgresReplication
import SystemSupport
import TestSupport

/// All that a base backup's stream brought.
struct CollectedBackup {
  var start: BaseBackupStart?
  var archives: [(archive: BaseBackupArchive, bytes: [UInt8])] = []
  var manifest: [UInt8] = []
  var end: BaseBackupEnd?

  init(_ server: PostgresServer, _ options: BaseBackupOptions = BaseBackupOptions(label: "test")) throws {
    try self.init(PostgresConnection(ConnectionInfo(server.connectionString), for: .replication), options)
  }

  init(_ connection: PostgresConnection, _ options: BaseBackupOptions = BaseBackupOptions(label: "test")) throws {
    var collected = (
      start: BaseBackupStart?.none, archives: [(archive: BaseBackupArchive, bytes: [UInt8])](), manifest: [UInt8](),
      end: BaseBackupEnd?.none
    )
    try BaseBackupStream(connection, options).run { event in
      switch event {
      case .started(let start): collected.start = start
      case .archive(let archive): collected.archives.append((archive, []))
      case .data(let bytes): collected.archives[collected.archives.count - 1].bytes.append(contentsOf: bytes)
      case .manifestData(let bytes): collected.manifest.append(contentsOf: bytes)
      case .finished(let end): collected.end = end
      case .progress, .manifestBegins: break
      }
    }
    (start, archives, manifest, end) = collected
  }

  /// The names in an archive, by the real tar program, which must like it.
  static func names(inArchive bytes: [UInt8]) throws -> [String] {
    let outcome = try ChildProcess.run("tar", ["-t"], input: bytes)
    guard outcome.succeeded, outcome.error.isEmpty else {
      throw TidemarkError(.streamInvalid, "tar refuses the archive", cause: outcome.errorText)
    }
    return outcome.outputText.split(separator: "\n").map(String.init)
  }

  /// Unpacks the archive of `tablespace`'s number below `directory` and makes what the server needs of it.
  func unpack(into directory: String) throws {
    for (archive, bytes) in archives {
      let target = archive.tablespace.oid.map { "\(directory)/pg_tblspc/\($0)" } ?? directory
      try DurableFile.createDirectories(target)
      let outcome = try ChildProcess.run("tar", ["-x", "-C", target], input: bytes)
      guard outcome.succeeded else {
        throw TidemarkError(.streamInvalid, "tar refuses the archive", cause: outcome.errorText)
      }
    }
    try DurableFile.write(manifest, to: "\(directory)/backup_manifest")
  }
}
