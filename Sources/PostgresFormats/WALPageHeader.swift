// The header at the start of every page of WAL. Parsing refuses what no supported server writes; whether a page
// belongs to a given segment is the business of ``WALSegmentCheck`` and ``WALSegmentScanner``.
import Diagnostics

/// `XLogPageHeaderData`, and `XLogLongPageHeaderData` on a segment's first page (xlog_internal.h).
package struct WALPageHeader: Sendable, Hashable {
  package static let shortByteCount = 24
  package static let longByteCount = 40

  package struct Flags: OptionSet, Sendable, Hashable {
    package let rawValue: UInt16
    package init(rawValue: UInt16) { self.rawValue = rawValue }

    /// The page begins with the rest of a record of the page before (`XLP_FIRST_IS_CONTRECORD`).
    package static let continuesRecord = Flags(rawValue: 0x0001)
    /// The long form of header (`XLP_LONG_HEADER`).
    package static let long = Flags(rawValue: 0x0002)
    /// Full-page images of the records can be left out (`XLP_BKP_REMOVABLE`).
    package static let backupRemovable = Flags(rawValue: 0x0004)
    /// The record that the page before began was never completed (`XLP_FIRST_IS_OVERWRITE_CONTRECORD`).
    package static let abandonsRecord = Flags(rawValue: 0x0008)
    /// All that a server sets (`XLP_ALL_FLAGS`).
    static let known: Flags = [.continuesRecord, .long, .backupRemovable, .abandonsRecord]
  }

  /// What a long header has in addition.
  package struct Identity: Sendable, Hashable {
    package var systemIdentifier: SystemIdentifier
    package var segmentSize: WALSegmentSize
    /// The WAL page size in bytes, 8192 unless PostgreSQL was built otherwise.
    package var blockByteCount: Int
  }

  package var version: PostgresVersion
  package var flags: Flags
  /// The timeline that wrote the page: in the first segment of a timeline, pages copied from its parent keep the
  /// parent's.
  package var timeline: TimelineID
  /// The position of the page's first byte.
  package var pageAddress: LSN
  /// How many bytes of the record that the page before began are still to come.
  package var remainingByteCount: UInt32
  /// Present on the first page of a segment.
  package var identity: Identity?

  package var byteCount: Int { identity == nil ? Self.shortByteCount : Self.longByteCount }

  /// Parses the header at the start of `bytes`, which may hold more.
  /// - Throws: `wal-file-invalid` for an unknown magic, impossible values, and too few bytes.
  package init(parsing bytes: UnsafeRawBufferPointer) throws(TidemarkError) {
    guard bytes.count >= Self.shortByteCount else { throw Self.invalid("\(bytes.count) bytes hold no page header") }
    let magic: UInt16 = bytes.number(0)
    guard let version = PostgresVersion(pageMagic: magic) else {
      throw Self.invalid(
        "the page magic is 0x\(hexadecimalText(magic, width: 4)), which is none of PostgreSQL 15 to 18")
    }
    self.version = version
    flags = Flags(rawValue: bytes.number(2))
    guard flags.isSubset(of: .known) else {
      throw Self.invalid("the page flags are 0x\(hexadecimalText(flags.rawValue, width: 4))")
    }
    timeline = TimelineID(bytes.number(4))
    pageAddress = LSN(rawValue: bytes.number(8))
    remainingByteCount = bytes.number(16)
    guard flags.contains(.long) else { return }
    guard bytes.count >= Self.longByteCount else { throw Self.invalid("the page header is cut off") }
    let segmentByteCount: UInt32 = bytes.number(32)
    guard let segmentSize = WALSegmentSize(byteCount: Int(segmentByteCount)) else {
      throw Self.invalid("the segment size is \(segmentByteCount)")
    }
    let blockByteCount: UInt32 = bytes.number(36)
    // configure --with-wal-blocksize: 1 to 64 KiB.
    guard blockByteCount >= 1 << 10, blockByteCount <= 64 << 10, blockByteCount & (blockByteCount - 1) == 0 else {
      throw Self.invalid("the WAL block size is \(blockByteCount)")
    }
    identity = Identity(
      systemIdentifier: SystemIdentifier(rawValue: bytes.number(24)), segmentSize: segmentSize,
      blockByteCount: Int(blockByteCount))
  }

  private static func invalid(_ cause: String) -> TidemarkError {
    TidemarkError(.walFileInvalid, "not a page of WAL", cause: cause)
  }
}
