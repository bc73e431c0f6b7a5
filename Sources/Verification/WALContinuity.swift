// Where WAL is missing: pure. A backup's own WAL must be there, and from the backups that promise continuity on all WAL
// of their timeline and of every timeline that branched off behind them, up to where each ends.
import BackupRepository
import PostgresFormats

/// A backup's need for WAL.
package struct WALDemand: Sendable, Equatable {
  package var label: String
  package var timeline: TimelineID
  package var start: LSN
  package var stop: LSN
  /// Whether recovery from it to any later moment is promised.
  package var isContinuous: Bool

  package init(label: String, timeline: TimelineID, start: LSN, stop: LSN, isContinuous: Bool) {
    self.label = label
    self.timeline = timeline
    self.start = start
    self.stop = stop
    self.isContinuous = isContinuous
  }
}

/// Consecutive segments that no region holds.
package struct WALHole: Sendable, Hashable {
  package var first: WALSegmentName
  package var last: WALSegmentName
  /// What needs them.
  package var reason: String
}

package enum WALContinuity {
  /// The holes, by timeline and position.
  package static func holes(_ wal: WALCatalog, _ demands: [WALDemand]) -> [WALHole] {
    let size = wal.segmentSize
    var holes: [WALHole] = []
    for demand in demands {
      let first = WALSegmentName(timeline: demand.timeline, containing: demand.start, size: size)
      let last = max(first, WALSegmentName(timeline: demand.timeline, endingAt: demand.stop, size: size))
      holes += missing(wal, first, last, "the backup \(demand.label) can't be restored without it")
    }
    // For each timeline the first segment from which on nothing may be missing, and the last one that must be there.
    var begins: [TimelineID: WALSegmentName] = [:]
    var ends: [TimelineID: WALSegmentName] = [:]
    func begin(_ name: WALSegmentName) { begins[name.timeline] = min(begins[name.timeline] ?? name, name) }
    for demand in demands where demand.isContinuous {
      begin(WALSegmentName(timeline: demand.timeline, containing: demand.start, size: size))
      for history in wal.histories.values
      where history.timeline > demand.timeline && history.contains(demand.timeline, upTo: demand.stop) {
        for leg in history.path(from: demand.timeline) ?? [] {
          if leg.timeline != demand.timeline {
            begin(WALSegmentName(timeline: leg.timeline, containing: leg.start, size: size))
          }
          // The segment with the switch is taken from the next timeline.
          if let end = leg.end, end > leg.start {
            let name = WALSegmentName(
              timeline: leg.timeline, containing: LSN(rawValue: size.segmentStart(of: end).rawValue &- 1), size: size)
            if size.segmentStart(of: end).rawValue > 0 { ends[leg.timeline] = max(ends[leg.timeline] ?? name, name) }
          }
        }
      }
    }
    for (timeline, first) in begins {
      let reason = "recovery along timeline \(timeline) is promised from \(first) on"
      guard let last = [wal.segments[timeline]?.last?.name, ends[timeline]].compactMap({ $0 }).max(), last >= first
      else { continue }
      holes += missing(wal, first, last, reason)
    }
    // What a backup needs itself is said once.
    var seen: Set<WALSegmentName> = []
    return holes.filter { seen.insert($0.first).inserted }.sorted { $0.first < $1.first }
  }

  /// The runs of segments from `first` to `last` that aren't there.
  private static func missing(
    _ wal: WALCatalog, _ first: WALSegmentName, _ last: WALSegmentName, _ reason: String
  ) -> [WALHole] {
    var holes: [WALHole] = []
    var expected: WALSegmentName? = first
    func note(upTo end: WALSegmentName) {
      guard let begin = expected, begin <= end else { return }
      holes.append(WALHole(first: begin, last: end, reason: reason))
    }
    for entry in wal.segments[first.timeline] ?? [] where entry.name >= first && entry.name <= last {
      if let begin = expected, begin < entry.name, let before = entry.name.previous(wal.segmentSize) {
        note(upTo: before)
      }
      // Behind the last name of a timeline nothing is expected.
      expected = try? entry.name.next(wal.segmentSize)
    }
    note(upTo: last)
    return holes
  }
}

extension WALSegmentName {
  /// The segment before this one on the same timeline; `nil` for the first.
  fileprivate func previous(_ size: WALSegmentSize) -> WALSegmentName? {
    // A name that no position has has no neighbour.
    guard let start = try? startLSN(size), start.rawValue > 0 else { return nil }
    return WALSegmentName(timeline: timeline, containing: LSN(rawValue: start.rawValue - 1), size: size)
  }
}
