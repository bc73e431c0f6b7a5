// The name of a WAL segment. A name alone doesn't say its position: that takes the segment size, and a name that no
// segment of that size can have is refused there, so that no arithmetic on it can overflow.
import Diagnostics

/// The name of a WAL segment: timeline, and position in units of the segment size (`XLogFileName`, xlog_internal.h).
package struct WALSegmentName: Hashable, Comparable, Sendable, CustomStringConvertible {
  package let timeline: TimelineID
  /// The middle eight digits: the position divided by 4 GiB.
  package let log: UInt32
  /// The last eight digits: the number of the segment within those 4 GiB.
  package let segment: UInt32

  package init(timeline: TimelineID, log: UInt32, segment: UInt32) {
    self.timeline = timeline
    self.log = log
    self.segment = segment
  }

  /// The segment that holds the byte at `lsn`.
  package init(timeline: TimelineID, containing lsn: LSN, size: WALSegmentSize) {
    self.timeline = timeline
    log = UInt32(lsn.rawValue >> 32)
    segment = UInt32((lsn.rawValue & 0xFFFF_FFFF) / UInt64(size.byteCount))
  }

  /// The segment that holds the last byte before `end`: the one that must be archived for WAL up to `end` to be
  /// (`XLByteToPrevSeg`).
  package init(timeline: TimelineID, endingAt end: LSN, size: WALSegmentSize) {
    self.init(timeline: timeline, containing: LSN(rawValue: max(end.rawValue, 1) - 1), size: size)
  }

  /// Reads 24 upper-case hexadecimal digits (`IsXLogFileName`), the first eight of which aren't all zero.
  package init?(_ text: some StringProtocol) { self.init(utf8: Array(text.utf8)[...]) }

  init?(utf8: ArraySlice<UInt8>) {
    guard utf8.count == 24,
      let timeline = hexadecimalNumber(utf8.prefix(8), uppercaseOnly: true), timeline != 0,
      let log = hexadecimalNumber(utf8.dropFirst(8).prefix(8), uppercaseOnly: true),
      let segment = hexadecimalNumber(utf8.dropFirst(16), uppercaseOnly: true)
    else { return nil }
    self.init(timeline: TimelineID(timeline), log: log, segment: segment)
  }

  package var description: String {
    timeline.nameText + hexadecimalText(log, width: 8) + hexadecimalText(segment, width: 8)
  }

  /// Whether segments of `size` can have this name.
  package func isPossible(_ size: WALSegmentSize) -> Bool { UInt64(segment) < size.segmentsPerLog }

  /// The position of the segment's first byte.
  /// - Throws: `wal-file-invalid` where no segment of `size` can have this name.
  package func startLSN(_ size: WALSegmentSize) throws(TidemarkError) -> LSN {
    guard isPossible(size) else {
      throw TidemarkError(
        .walFileInvalid, "no WAL segment of \(size) has this name", object: description,
        next: "check the cluster's WAL segment size with pg_controldata")
    }
    return LSN(rawValue: UInt64(log) << 32 + UInt64(segment) * UInt64(size.byteCount))
  }

  /// The position after the segment's last byte.
  /// - Throws: `wal-file-invalid` where no segment of `size` can have this name, or the WAL's positions end here.
  package func endLSN(_ size: WALSegmentSize) throws(TidemarkError) -> LSN {
    let (end, overflowed) = try startLSN(size).rawValue.addingReportingOverflow(UInt64(size.byteCount))
    if overflowed { throw TidemarkError(.walFileInvalid, "no WAL follows this segment", object: description) }
    return LSN(rawValue: end)
  }

  /// The next segment of the same timeline.
  /// - Throws: `wal-file-invalid` like ``endLSN(_:)``.
  package func next(_ size: WALSegmentSize) throws(TidemarkError) -> WALSegmentName {
    WALSegmentName(timeline: timeline, containing: try endLSN(size), size: size)
  }

  /// The same position on another timeline.
  package func on(_ timeline: TimelineID) -> WALSegmentName {
    WALSegmentName(timeline: timeline, log: log, segment: segment)
  }

  /// The order of the names: by timeline first, as listings have it.
  package static func < (left: WALSegmentName, right: WALSegmentName) -> Bool {
    (left.timeline.rawValue, left.log, left.segment) < (right.timeline.rawValue, right.log, right.segment)
  }
}
