// Which WAL a lineage holds: segments, timeline histories and partial segments, from listings of the regions.
import Diagnostics
import Envelope
import PostgresFormats
import SystemSupport

/// Consecutive segments of one timeline without a hole.
package struct WALRange: Sendable, Equatable {
  package var timeline: TimelineID
  package var first: WALSegmentName
  package var last: WALSegmentName
}

/// The WAL of one lineage as the reachable regions list it.
package struct WALCatalog: Sendable {
  /// Segments by timeline, ascending, each with the indexes of the regions that hold it.
  package var segments: [TimelineID: [(name: WALSegmentName, holders: Set<Int>)]] = [:]
  package var histories: [TimelineID: TimelineHistory] = [:]
  package var partials: [WALSegmentName] = []
  package var failures: [String: TidemarkError] = [:]
  package let segmentSize: WALSegmentSize

  /// Whether `name` is held by any region that could be asked.
  package func holds(_ name: WALSegmentName) -> Bool {
    guard let list = segments[name.timeline] else { return false }
    var low = 0
    var high = list.count
    while low < high {
      let middle = (low + high) / 2
      if list[middle].name < name { low = middle + 1 } else { high = middle }
    }
    return low < list.count && list[low].name == name
  }

  /// The last segment of the run without a hole that begins with `first`; `nil` when `first` isn't there.
  package func endOfRun(from first: WALSegmentName) -> WALSegmentName? {
    guard holds(first), let list = segments[first.timeline] else { return nil }
    var last = first
    for entry in list where entry.name > first {
      guard entry.name == (try? last.next(segmentSize)) else { break }
      last = entry.name
    }
    return last
  }

  /// The runs without a hole, timeline by timeline.
  package var ranges: [WALRange] {
    segments.keys.sorted().flatMap { timeline -> [WALRange] in
      var ranges: [WALRange] = []
      for entry in segments[timeline] ?? [] {
        if let last = ranges.last, entry.name == (try? last.last.next(segmentSize)) {
          ranges[ranges.count - 1].last = entry.name
        } else {
          ranges.append(WALRange(timeline: timeline, first: entry.name, last: entry.name))
        }
      }
      return ranges
    }
  }
}

extension Repository {
  /// Bytes accepted for a timeline history or a backup history file.
  package static let historyByteCountMax = 4 << 20

  /// Lists the lineage's WAL and reads its timeline histories.
  package func walCatalog(
    _ lineage: LineageLayout, segmentSize: WALSegmentSize
  ) throws(TidemarkError) -> WALCatalog {
    let listing = try regions.list(prefix: lineage.walPrefix)
    var catalog = WALCatalog(segmentSize: segmentSize)
    catalog.failures = listing.failures
    for entry in listing.entries {
      // In another folder it isn't what a fetch would find.
      guard let file = try? WALFileName(text: entry.name.lastComponent), entry.name == lineage.wal(file) else {
        continue
      }
      switch file {
      case .segment(let name): catalog.segments[name.timeline, default: []].append((name, entry.holders))
      case .partial(let name): catalog.partials.append(name)
      case .history(let timeline):
        let (bytes, _) = try readSealed(.timelineHistory, entry.name, limit: Self.historyByteCountMax)
        catalog.histories[timeline] = try TimelineHistory(timeline: timeline, parsing: bytes)
      case .backupHistory: break
      }
    }
    for timeline in catalog.segments.keys { catalog.segments[timeline]?.sort { $0.name < $1.name } }
    return catalog
  }
}
