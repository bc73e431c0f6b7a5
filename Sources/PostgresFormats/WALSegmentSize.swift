// The size of a WAL segment, fixed by initdb. Sizes that PostgreSQL refuses can't be made.
import Diagnostics

/// The byte count of a WAL segment: a power of two from 1 MiB to 1 GiB (`IsValidWalSegSize`, xlog_internal.h).
package struct WALSegmentSize: Hashable, Sendable, CustomStringConvertible {
  package let byteCount: Int

  /// initdb's default, 16 MiB.
  package static let standard = WALSegmentSize(unchecked: 16 << 20)

  private init(unchecked byteCount: Int) { self.byteCount = byteCount }

  package init?(byteCount: Int) {
    guard byteCount >= 1 << 20, byteCount <= 1 << 30, byteCount & (byteCount - 1) == 0 else { return nil }
    self.byteCount = byteCount
  }

  /// How many segments share the middle eight digits of a name (`XLogSegmentsPerXLogId`).
  var segmentsPerLog: UInt64 { (1 << 32) / UInt64(byteCount) }

  package var description: String { "\(byteCount >> 20)MB" }

  /// The number of the segment that holds `lsn`.
  package func segmentNumber(of lsn: LSN) -> UInt64 { lsn.rawValue / UInt64(byteCount) }

  /// The first position of the segment that holds `lsn`.
  package func segmentStart(of lsn: LSN) -> LSN { LSN(rawValue: lsn.rawValue & ~UInt64(byteCount - 1)) }

  /// The distance of `lsn` from the start of its segment, in bytes.
  package func offset(of lsn: LSN) -> Int { Int(lsn.rawValue & UInt64(byteCount - 1)) }
}
