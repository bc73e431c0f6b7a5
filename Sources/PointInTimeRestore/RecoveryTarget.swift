// What a restore aims at, in PostgreSQL's terms (manual, "Recovery Target").
import Diagnostics
import PostgresFormats
import SystemSupport

package enum RecoveryTarget: Sendable, Equatable {
  /// Unix microseconds.
  case time(Int64)
  case lsn(LSN)
  case xid(UInt32)
  case name(String)
  /// The end of the backup: the earliest consistent state.
  case backupEnd
  /// The end of the archived WAL.
  case latest

  package var description: String {
    switch self {
    case .time(let microseconds): "time \(RecoveryTime(microseconds: microseconds))"
    case .lsn(let lsn): "LSN \(lsn)"
    case .xid(let xid): "transaction \(xid)"
    case .name(let name): "restore point '\(name)'"
    case .backupEnd: "the end of the backup"
    case .latest: "the latest archived moment"
    }
  }
}

package enum TargetAction: String, Sendable, CaseIterable {
  case promote, pause, shutdown
}

/// What the operator asked for.
package struct RestoreRequest: Sendable {
  package var targetDirectory: String
  package var target = RecoveryTarget.latest
  /// Stop just before the target instead of just after it.
  package var isExclusive = false
  package var timeline: TimelineID?
  package var backup: BackupLabel?
  package var systemIdentifier: SystemIdentifier?
  /// Old location → new location.
  package var tablespaceMap: [String: String] = [:]
  /// Where tablespaces go that the map doesn't name, each into a directory named by its OID. `nil`: where they were.
  package var tablespaceDirectory: String?
  /// Where `pg_wal` leads, as initdb's `--waldir`. `nil`: it is a directory, whatever it was in the original.
  package var walDirectory: String?
  /// What the restore may take on disk, in bytes.
  package var byteCountMax: Int64?
  package var action = TargetAction.promote
  package var starts = true
  package var port: Int?
  /// Threads that fetch and write files; fewer where ``memoryByteCount`` ends.
  package var workerCount = max(4, processorCount())
  /// Bytes of memory for buffers.
  package var memoryByteCount = 256 << 20
  /// A scratch copy: nobody but this program reaches the server, and it touches nothing outside its directory. See
  /// `RecoverySettings.isolation`.
  package var isIsolated = false
  /// The target may hold the same cluster, stopped: what is there already isn't fetched.
  package var isDelta = false
  /// More settings for the server's command line, where they outrank every file.
  package var serverSettings: [(name: String, value: String)] = []

  package typealias BackupLabel = String

  package init(targetDirectory: String) { self.targetDirectory = targetDirectory }
}

/// Where PostgreSQL runs on this host.
package struct RestoreHost: Sendable {
  /// `nil` when it isn't configured and none was found.
  package var binDirectory: String?
  /// The configured data directory: a restore into it is a recovery of the cluster itself.
  package var dataDirectory: String?
  /// As whom PostgreSQL runs when we are root.
  package var osUser: String
  /// This program and its configuration file, for `restore_command`.
  package var program: String
  package var configurationPath: String

  package init(
    binDirectory: String?, dataDirectory: String?, osUser: String, program: String, configurationPath: String
  ) {
    self.binDirectory = binDirectory
    self.dataDirectory = dataDirectory
    self.osUser = osUser
    self.program = program
    self.configurationPath = configurationPath
  }
}
