// The WAL that a recovery replays from a position on one timeline towards another, as far as the archive has it. It
// follows the history files: what a dead branch archived after it was left is not on the way.
import Diagnostics
import PostgresFormats

package struct WALRoute: Sendable {
  /// Where the recovery goes.
  package let history: TimelineHistory
  package let segmentSize: WALSegmentSize
  /// In the order of replay, without a hole. The segment in which a timeline was left is the next timeline's, which
  /// holds the shared part too.
  package private(set) var segments: [WALSegmentName] = []
  /// The first segment that isn't there.
  package private(set) var missing: WALSegmentName
  /// Whether WAL that lies behind ``missing`` is there: then the archive has a hole, and not its end.
  package private(set) var hasHole = false

  /// The way from `start` on timeline `origin`, which `history` must contain.
  /// - Throws: `wal-file-invalid` for positions that no segment has.
  package init(
    from start: LSN, on origin: TimelineID, towards history: TimelineHistory, in wal: WALCatalog
  ) throws(TidemarkError) {
    self.history = history
    segmentSize = wal.segmentSize
    var name = WALSegmentName(timeline: origin, containing: start, size: wal.segmentSize)
    missing = name
    for leg in history.path(from: origin) ?? [] {
      name = name.on(leg.timeline)
      let last = leg.end.map { WALSegmentName(timeline: leg.timeline, containing: $0, size: wal.segmentSize) }
      while last.map({ name < $0 }) ?? true {
        guard wal.holds(name) else {
          missing = name
          hasHole = next(behind: name, in: wal) != nil
          return
        }
        segments.append(name)
        name = try name.next(wal.segmentSize)
      }
    }
  }

  /// The first segment on the way behind `name` that is there.
  package func next(behind name: WALSegmentName, in wal: WALCatalog) -> WALSegmentName? {
    for range in history.ranges where range.timeline >= name.timeline {
      let end = range.end.map { WALSegmentName(timeline: range.timeline, containing: $0, size: segmentSize) }
      let start = WALSegmentName(timeline: range.timeline, containing: range.start, size: segmentSize)
      for entry in wal.segments[range.timeline] ?? [] where entry.name >= start {
        if let end, entry.name >= end { break }
        if (entry.name.log, entry.name.segment) > (name.log, name.segment) { return entry.name }
      }
    }
    return nil
  }

  /// The segment before `name`, with the timeline of the one that is missing where the two differ.
  package func lastMissing(before name: WALSegmentName) -> WALSegmentName? {
    // A name that no position has has no neighbour.
    guard let start = try? name.startLSN(segmentSize), start.rawValue > 0 else { return nil }
    let before = WALSegmentName(timeline: name.timeline, endingAt: start, size: segmentSize)
    return (before.log, before.segment) < (missing.log, missing.segment) ? nil : before
  }
  /// The index of the segment that holds the byte at `lsn`; `nil` when the route doesn't reach it.
  package func index(containing lsn: LSN) -> Int? {
    // A route begins with a segment that was found by a position.
    guard let first = segments.first, let start = try? first.startLSN(segmentSize), start <= lsn else { return nil }
    // Without a hole, so it can be counted.
    let index = (lsn.rawValue - start.rawValue) / UInt64(segmentSize.byteCount)
    return index < UInt64(segments.count) ? Int(index) : nil
  }

  /// The index of the segment that holds the last byte before `end`.
  package func index(endingAt end: LSN) -> Int? { index(containing: LSN(rawValue: max(end.rawValue, 1) - 1)) }

  /// The timeline on which the record at `lsn` lies.
  package func timeline(of lsn: LSN) -> TimelineID { history.timeline(of: lsn) }
}
