// Where a backup's bytes come from. The pipeline knows only this; a parallel local reader or PostgreSQL 17's
// incremental stream would be other sources.
import Diagnostics
import PostgresFormats

/// What a source delivers, in this order: `started`, then entries (each file with its data and its end), the server's
/// manifest as the last file, and `finished`.
package enum SourceEvent {
  case started(SourceStart)
  case directory(SourceEntry)
  case symbolicLink(SourceEntry, target: String)
  case beginFile(SourceEntry)
  /// Bytes of the current file; valid only during the call.
  case data(UnsafeRawBufferPointer)
  case endFile(crc32c: UInt32)
  case finished(SourceEnd)
}

package struct SourceStart: Sendable {
  package var startLSN: LSN
  package var timeline: TimelineID
  package var tablespaces: [(oid: UInt32, location: String)]
  /// The server's estimate, for the progress bar.
  package var estimatedByteCount: Int64

  package init(
    startLSN: LSN, timeline: TimelineID, tablespaces: [(oid: UInt32, location: String)], estimatedByteCount: Int64
  ) {
    self.startLSN = startLSN
    self.timeline = timeline
    self.tablespaces = tablespaces
    self.estimatedByteCount = estimatedByteCount
  }
}

package struct SourceEntry: Sendable {
  /// Relative to the data directory; below a tablespace it begins with `pg_tblspc/OID/`.
  package var path: String
  package var mode: UInt32

  package init(path: String, mode: UInt32) {
    self.path = path
    self.mode = mode
  }
}

package struct SourceEnd: Sendable {
  package var stopLSN: LSN
  package var timeline: TimelineID
  /// The server's words when it found pages with wrong checksums.
  package var checksumFailure: String?

  package init(stopLSN: LSN, timeline: TimelineID, checksumFailure: String?) {
    self.stopLSN = stopLSN
    self.timeline = timeline
    self.checksumFailure = checksumFailure
  }
}

package protocol BackupSource {
  /// Delivers everything to `receive`, whose errors end the backup.
  mutating func run(_ receive: (SourceEvent) throws -> Void) throws(TidemarkError)
}
