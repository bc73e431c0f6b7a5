// The values of the manifest that the server sends with a base backup. ``ServerManifestReader`` reads them.
// PostgreSQL's documentation describes the format in "Backup Manifest Format".

/// What a server's backup manifest says beside the files.
package struct ServerManifest: Sendable, Hashable {
  /// 1 for PostgreSQL 15 and 16, 2 for 17 and 18.
  package var version: Int
  /// Absent in version 1.
  package var systemIdentifier: SystemIdentifier?
  /// The WAL that makes the backup consistent; more than one range where a timeline began during the backup.
  package var walRanges: [WALRange]
  package var fileCount: Int

  /// WAL from `start` up to, not including, `end`.
  package struct WALRange: Sendable, Hashable {
    package var timeline: TimelineID
    package var start: LSN
    package var end: LSN

    package init(timeline: TimelineID, start: LSN, end: LSN) {
      self.timeline = timeline
      self.start = start
      self.end = end
    }
  }

  /// One file of the backup as the server saw it.
  package struct File: Sendable, Hashable {
    /// Relative to the data directory; files of tablespaces as `pg_tblspc/OID/…`. Never with `.` or `..`.
    package var path: String
    /// In bytes.
    package var size: UInt64
    package var checksum: Checksum

    package init(path: String, size: UInt64, checksum: Checksum) {
      self.path = path
      self.size = size
      self.checksum = checksum
    }
  }

  /// A file's checksum by the server.
  package enum Checksum: Sendable, Hashable {
    case none
    case crc32c(UInt32)
    /// `SHA224`, `SHA256`, `SHA384` or `SHA512`.
    case sha2(bitCount: Int, [UInt8])

    package var algorithm: String {
      switch self {
      case .none: "NONE"
      case .crc32c: "CRC32C"
      case .sha2(let bitCount, _): "SHA\(bitCount)"
      }
    }
  }
}
