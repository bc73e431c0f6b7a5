// What a backup keeps of the server beside its data files, and what a check looks at, read in one go through an
// ordinary connection. What the role may not see is left out and noted, never an error.
import Diagnostics
import PostgresFormats

/// A server as it describes itself.
///
/// A role with the attribute REPLICATION that is a member of pg_monitor sees enough:
/// `CREATE ROLE tidemark LOGIN REPLICATION; GRANT pg_monitor TO tidemark`. Configuration files that are included but
/// set nothing in force, and those that pg_hba.conf and pg_ident.conf include, show only with
/// `GRANT EXECUTE ON FUNCTION pg_show_all_file_settings(), pg_hba_file_rules(), pg_ident_file_mappings() TO tidemark`,
/// and `GRANT SELECT ON pg_file_settings, pg_hba_file_rules, pg_ident_file_mappings TO tidemark`.
///
/// Settings may hold secrets (`primary_conninfo`, `archive_command`): keep them sealed, and print none but by name.
package struct ServerInspection: Sendable {
  package var version: ServerVersion
  /// "PostgreSQL 15.20 on x86_64…", as version() says it.
  package var versionText: String
  package var systemIdentifier: SystemIdentifier
  package var controlVersion: Int
  package var catalogVersion: Int
  package var isInRecovery: Bool
  /// The timeline that is written to, or replayed on a standby (as of its last restart point there).
  package var timeline: TimelineID
  /// Where WAL is written, or how far it is replayed on a standby; `nil` on a standby that hasn't replayed any.
  package var position: LSN?
  /// The server's clock, in microseconds since 1970 UTC.
  package var clockMicroseconds: Int64

  /// All that the role may see of `pg_settings`, by name.
  package var settings: [ServerSetting]
  package var configurationFiles: [ConfigurationFile]
  package var role: ServerRole
  /// The role with oid 10, which initdb made; `nil` if it can't be seen.
  package var bootstrapRole: String?
  package var databases: [ServerDatabase]
  package var tablespaces: [ServerTablespace]
  /// Of the database that the connection is for.
  package var extensions: [ServerExtension]
  package var archiver: ArchiverStatistics
  package var walSendersInUse: Int
  /// What couldn't be read, and which grant would help.
  package var notes: [String]

  /// The value of a setting in its base unit, if the role may see it.
  package func setting(_ name: String) -> String? { settings.first { $0.name == name }?.value }

  package var dataDirectory: String? { setting("data_directory") }
  package var hasDataChecksums: Bool { setting("data_checksums") == "on" }
  package var blockByteCount: Int? { setting("block_size").flatMap { Int($0) } }
  package var walSegmentByteCount: Int? { setting("wal_segment_size").flatMap { Int($0) } }
  package var walLevel: String? { setting("wal_level") }
  package var archiveMode: String? { setting("archive_mode") }
  package var archiveCommand: String? { setting("archive_command") }
  package var archiveLibrary: String? { setting("archive_library") }
  package var walSendersMax: Int? { setting("max_wal_senders").flatMap { Int($0) } }
}

/// A row of `pg_settings`.
package struct ServerSetting: Sendable, Codable, Equatable {
  package var name: String
  package var value: String?
  /// "8kB", "ms" …: what `value` counts.
  package var unit: String?
  package var type: String
  package var context: String
  /// "default", "configuration file", "command line" …
  package var source: String
  /// Seen only by members of pg_read_all_settings.
  package var sourceFile: String?
  package var sourceLine: Int?
  package var bootValue: String?
  package var resetValue: String?
  package var isPendingRestart: Bool
}

/// A configuration file on the server's host.
package struct ConfigurationFile: Sendable, Codable, Equatable {
  package enum Kind: String, Sendable, Codable {
    /// `config_file`, `hba_file`, `ident_file`.
    case main, access, ident
    /// postgresql.auto.conf, which ALTER SYSTEM writes.
    case automatic
    case included
  }

  package var path: String
  package var kind: Kind
  /// Then a base backup holds it already.
  package var isInsideDataDirectory: Bool
}

/// The role of the connection.
package struct ServerRole: Sendable, Codable, Equatable {
  package var name: String
  package var isSuperuser: Bool
  package var hasReplication: Bool
  package var isMonitor: Bool
}

package struct ServerDatabase: Sendable, Codable, Equatable {
  package var oid: UInt32
  package var name: String
  package var encoding: String
  package var collate: String
  package var characterType: String
  /// "c" libc, "i" ICU, "b" built in.
  package var localeProvider: String
  /// Of ICU and the built-in provider.
  package var locale: String?
  /// With which the text indexes were built; `nil` where the provider has none.
  package var collationVersion: String?
  /// What the host has now. Where the two differ, text indexes may be corrupt.
  package var actualCollationVersion: String?
  package var allowsConnections: Bool
  package var isTemplate: Bool
  /// `nil` when it wasn't asked for or may not be seen.
  package var byteCount: Int64?
}

package struct ServerTablespace: Sendable, Codable, Equatable {
  package var oid: UInt32
  package var name: String
  /// `nil` for `pg_default` and `pg_global`.
  package var location: String?
}

package struct ServerExtension: Sendable, Codable, Equatable {
  package var name: String
  package var version: String
}

/// `pg_stat_archiver`; times in microseconds since 1970 UTC.
package struct ArchiverStatistics: Sendable, Codable, Equatable {
  package var archivedCount: Int64
  package var lastArchivedName: String?
  package var lastArchivedMicroseconds: Int64?
  package var failedCount: Int64
  package var lastFailedName: String?
  package var lastFailedMicroseconds: Int64?

  /// Whether the newest attempt failed.
  package var isFailing: Bool {
    guard let failed = lastFailedMicroseconds else { return false }
    return failed > (lastArchivedMicroseconds ?? .min)
  }
}
