// What a restore needs and the stream doesn't carry: configuration files outside the data directory, and the
// attachments of the configuration (keys of extensions, files of Patroni and HAProxy).
import BackupRepository
import Diagnostics
import Foundation
import Glibc
import PostgresReplication
import SystemSupport

struct CapturedConfiguration {
  /// Bytes accepted for one file.
  private static let byteCountMax = 16 << 20
  private(set) var files: [BackupManifest.CapturedFile] = []
  private(set) var remarks: [String] = []

  /// - Throws: `local-io` or `local-permission` for an attachment that can't be read: a backup without it would restore
  ///   a database whose secrets nobody can read.
  init(_ server: ServerInspection, attachments: [String]) throws(TidemarkError) {
    for file in server.configurationFiles where !file.isInsideDataDirectory {
      do throws(TidemarkError) { try add(Self.role(file.kind), file.path) } catch {
        remarks.append("a configuration file of the server was not captured: \(error.description)")
      }
    }
    for path in attachments {
      do throws(TidemarkError) { try add(.attachment, path) } catch {
        throw TidemarkError(
          error.code, "an attachment can't be read, and a backup without it would be incomplete", object: path,
          cause: error.cause, kept: "the earlier backups",
          next: "make it readable for this user, or take it out of 'attachments'")
      }
    }
  }

  private mutating func add(_ role: BackupManifest.CapturedFile.Role, _ path: String) throws(TidemarkError) {
    let bytes = try readFile(path, limit: Self.byteCountMax)
    var status = stat()
    let mode = stat(path, &status) == 0 ? UInt32(status.st_mode & 0o7777) : 0o600
    files.append(.init(role: role, path: path, mode: mode, content: Data(bytes)))
  }

  private static func role(_ kind: ConfigurationFile.Kind) -> BackupManifest.CapturedFile.Role {
    switch kind {
    case .main: .configuration
    case .access: .hba
    case .ident: .ident
    case .automatic, .included: .included
    }
  }
}
