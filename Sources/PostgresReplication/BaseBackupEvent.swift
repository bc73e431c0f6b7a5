// What a base backup's stream tells, in order: started, then for each archive its name and data, then the manifest,
// then finished. Progress may come anywhere between.
import PostgresFormats

/// Something that the stream of a base backup brought.
///
/// The bytes of ``data(_:)`` and ``manifestData(_:)`` belong to libpq and are valid only while the event is handled.
package enum BaseBackupEvent {
  case started(BaseBackupStart)
  /// A new tar archive begins; the one before is complete.
  case archive(BaseBackupArchive)
  /// The next bytes of the archive, not empty.
  case data(UnsafeRawBufferPointer)
  /// What the server has read so far of all archives together, in bytes; about once a second.
  case progress(byteCount: Int64)
  /// All archives are complete; the manifest follows.
  case manifestBegins
  /// The next bytes of the manifest, not empty.
  case manifestData(UnsafeRawBufferPointer)
  /// The server has ended the backup and sent all of it.
  case finished(BaseBackupEnd)
}

/// The first thing that the server tells about a backup.
package struct BaseBackupStart: Sendable, Equatable {
  package var startLSN: LSN
  package var timeline: TimelineID
  /// In the order of their archives. The main data directory is the last.
  package var tablespaces: [BaseBackupTablespace]

  /// The server's estimate of all archives together, in bytes.
  package var estimatedByteCount: Int64 { tablespaces.reduce(0) { $0 &+ ($1.estimatedByteCount ?? 0) } }
}

/// A tablespace, or the main data directory, with the archive that holds it.
package struct BaseBackupTablespace: Sendable, Equatable {
  /// `nil` for the main data directory.
  package var oid: UInt32?
  /// The absolute path on the server; `nil` for the main data directory.
  package var location: String?
  /// The server's estimate. It reports KiB.
  package var estimatedByteCount: Int64?

  /// "16385.tar", or "base.tar" for the main data directory.
  package var archiveName: String { oid.map { "\($0).tar" } ?? "base.tar" }
}

/// A tar archive of the stream.
package struct BaseBackupArchive: Sendable, Equatable {
  package var tablespace: BaseBackupTablespace
  /// The last one, which holds `backup_label`, `tablespace_map` and `global/pg_control`.
  package var isMain: Bool { tablespace.oid == nil }
}

/// The last thing that the server tells.
package struct BaseBackupEnd: Sendable, Equatable {
  package var stopLSN: LSN
  package var timeline: TimelineID
  /// What the server said when page checksums didn't match. The backup is complete but holds damaged pages; the
  /// notices before name the files and blocks.
  package var checksumFailure: String?
}
