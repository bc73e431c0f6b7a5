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
  /// Histories that are there and no region has a good copy of.
  package var unreadableHistories: [TimelineID: TidemarkError] = [:]
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

  /// The newest timeline of which a segment is there: one whose history alone is there has nothing to restore yet.
  package var newestTimeline: TimelineID? { segments.keys.max() }

  /// The history of `timeline`; that of the first timeline needs no file.
  /// - Throws: `wal-hole` when no region holds it, or why its copies can't be used.
  package func history(_ timeline: TimelineID) throws(TidemarkError) -> TimelineHistory {
    if let history = histories[timeline] { return history }
    if let error = unreadableHistories[timeline] { throw error }
    if timeline == TimelineID(1) { return TimelineHistory(root: timeline) }
    throw TidemarkError(
      .walHole, "the history of a timeline is missing", object: timeline.historyFileName,
      cause: failures.isEmpty ? "no region holds it" : "not asked: \(failures.keys.sorted().joined(separator: ", "))",
      kept: "everything: nothing was written",
      next: "if a server of the cluster still has it in pg_wal, 'tidemark wal-push' it; or choose another --timeline")
  }

  /// The last segment of the run without a hole that begins with `first`; `nil` when `first` isn't there.
  package func endOfRun(from first: WALSegmentName) -> WALSegmentName? {
    guard holds(first), let list = segments[first.timeline] else { return nil }
    var last = first
    for entry in list where entry.name > first {
      // Behind the last name of a timeline the run ends.
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
        // As above.
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
      // What has no WAL's name isn't WAL.
      guard let file = try? WALFileName(text: entry.name.lastComponent), entry.name == lineage.wal(file) else {
        continue
      }
      switch file {
      case .segment(let name): catalog.segments[name.timeline, default: []].append((name, entry.holders))
      case .partial(let name): catalog.partials.append(name)
      case .history(let timeline):
        do throws(TidemarkError) {
          let (bytes, _) = try readSealed(.timelineHistory, entry.name, limit: Self.historyByteCountMax)
          catalog.histories[timeline] = try TimelineHistory(timeline: timeline, parsing: bytes)
        } catch {
          switch error.code {
          // One spoilt history must not stand in the way of what doesn't need it.
          case .objectDamaged, .signatureInvalid, .writerNotTrusted, .formatVersionUnknown, .walFileInvalid,
            .noKeyOpens:
            catalog.unreadableHistories[timeline] = error
          default: throw error
          }
        }
      case .backupHistory: break
      }
    }
    for timeline in catalog.segments.keys { catalog.segments[timeline]?.sort { $0.name < $1.name } }
    return catalog
  }
}
