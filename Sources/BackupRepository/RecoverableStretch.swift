// What can be restored: for each way through the timelines the stretches of WAL without a hole, and the backups that
// they begin with. A moment between two stretches, or before the first backup's end, can't be reached.
import Diagnostics
import Envelope
import ObjectStorage
import PostgresFormats
import SystemSupport

/// A stretch of time to any moment of which the cluster can be restored.
package struct RecoverableStretch: Sendable {
  /// The timeline that a recovery through it follows.
  package var timeline: TimelineID
  /// By end, ascending.
  package var backups: [CatalogedBackup]
  package var lastSegment: WALSegmentName
  /// Unix microseconds: the end of the first backup, and the last commit.
  package var from: Int64
  package var to: Int64
  /// Whether it leads to the newest timeline's end, which a restore without a target reaches.
  package var isNewest: Bool
  /// When the last segment was sealed, in Unix microseconds.
  package var lastSegmentSealed: Int64
}

/// Consecutive segments that a recovery would need and no region that could be asked holds.
package struct MissingWAL: Sendable, Equatable {
  package var first: WALSegmentName
  package var last: WALSegmentName
}

/// The windows of one lineage.
package struct Recoverability: Sendable {
  /// The newest first.
  package var windows: [RecoverableStretch] = []
  package var missing: [MissingWAL] = []
  /// Backups whose own WAL isn't whole.
  package var incomplete: [CatalogedBackup] = []
}

extension Repository {
  /// Follows the WAL of every backup.
  /// - Parameter commitSearch: in how many segments at a stretch's end the last commit is looked for: an idle server
  ///   archives some without one. Where none of them has any, the stretch's end is that of its newest backup.
  package func recoverability(
    _ catalog: LineageCatalog, _ wal: WALCatalog, commitSearch: Int = .max
  ) throws(TidemarkError) -> Recoverability {
    var result = Recoverability()
    var rest = catalog.backups
    // Every way that a backup can be rolled forward on, the newest timeline's first.
    for timeline in wal.segments.keys.sorted(by: >) where !rest.isEmpty {
      // A timeline whose history is missing can't be followed; `verify` tells of the history.
      guard let history = try? wal.history(timeline) else { continue }
      let isNewest = timeline == wal.newestTimeline
      var own: [CatalogedBackup] = []
      var others: [CatalogedBackup] = []
      for backup in rest {
        let leads = history.contains(TimelineID(backup.manifest.timeline), upTo: try backup.manifest.stop)
        if leads { own.append(backup) } else { others.append(backup) }
      }
      rest = others
      try follow(own, history, isNewest: isNewest, wal, commitSearch, &result)
    }
    result.incomplete += rest
    return result
  }

  private func follow(
    _ backups: [CatalogedBackup], _ history: TimelineHistory, isNewest: Bool, _ wal: WALCatalog,
    _ commitSearch: Int, _ result: inout Recoverability
  ) throws(TidemarkError) {
    let ordered = try backups.map { (backup) throws(TidemarkError) in (backup, try backup.manifest.start) }
      .sorted { $0.1 < $1.1 }
    guard let (earliest, start) = ordered.first else { return }
    var routes: [WALRoute] = []
    var next =
      WALSegmentName(
        timeline: TimelineID(earliest.manifest.timeline), containing: start, size: wal.segmentSize) as WALSegmentName?
    while let begin = next {
      let position = try begin.startLSN(wal.segmentSize)
      let route = try WALRoute(from: position, on: begin.timeline, towards: history, in: wal)
      if !route.segments.isEmpty { routes.append(route) }
      next = route.hasHole ? route.next(behind: route.missing, in: wal) : nil
      if let next, let end = route.lastMissing(before: next) {
        result.missing.append(MissingWAL(first: route.missing, last: end))
      }
    }
    var windows: [RecoverableStretch] = []
    var placed: Set<String> = []
    for (index, route) in routes.enumerated() {
      guard let last = route.segments.last else { continue }
      var inside: [CatalogedBackup] = []
      for (backup, start) in ordered {
        let end = route.index(endingAt: try backup.manifest.stop)
        guard route.index(containing: start) != nil, end != nil else { continue }
        inside.append(backup)
        placed.insert(backup.label.text)
      }
      inside.sort { $0.manifest.stopTime < $1.manifest.stopTime }
      guard let first = inside.first, let newest = inside.last else { continue }
      let from = Int64(first.manifest.stopTime * 1_000_000)
      var end = try lastCommit(first.layout, route.segments.suffix(commitSearch))
      if end == nil, commitSearch < route.segments.count { end = Int64(newest.manifest.stopTime * 1_000_000) }
      windows.append(
        RecoverableStretch(
          timeline: last.timeline, backups: inside, lastSegment: last, from: from,
          to: max(from, end ?? from), isNewest: isNewest && index == routes.count - 1,
          lastSegmentSealed: try signedHeader(first.layout.wal(.segment(last))).created))
    }
    result.windows += windows.reversed()
    result.incomplete += ordered.map(\.0).filter { !placed.contains($0.label.text) }
  }

  /// The time of the last commit or abort in `segments`, from their headers, in Unix microseconds.
  package func lastCommit(
    _ layout: LineageLayout, _ segments: some BidirectionalCollection<WALSegmentName>
  ) throws(TidemarkError) -> Int64? {
    for name in segments.reversed() {
      try Termination.check()
      if let time = try signedHeader(layout.wal(.segment(name))).attributes.latestCommit { return time }
    }
    return nil
  }

  /// The header of an object, from its two ends alone. It is to be believed only once the signature behind the last frame
  /// was checked: whoever can write to a region could otherwise make a target look reachable, or unreachable.
  private func signedHeader(_ object: ObjectName) throws(TidemarkError) -> SealedHeader {
    let head = ByteRange.bytes(offset: 0, count: Int64(SealedHeader.prefixByteCountMax))
    // Of the same copy: two hosts may have sealed the same WAL apart.
    return try regions.read(object, range: head, mends: false) { head, region in
      func end(_ byteCount: Int) throws(TidemarkError) -> [UInt8] {
        try region.request { store throws(TidemarkError) in
          try store.read(
            region.key(object), range: .suffix(count: Int64(byteCount)), deadline: .after(regions.readLimits.perRegion))
        }
      }
      var tail = try end(Self.footerByteCountUsual)
      let byteCount = try SealedFooter.byteCount(endingWith: tail)
      if byteCount > tail.count { tail = try end(byteCount) }
      return try SealedObject.verify(
        head: head, tail: tail, byteCount: nil, expectedName: object.text, trustedWriters: keys.trustedWriters
      ).header
    }
  }

  /// That of a segment of 16 MB, and of some larger ones.
  private static let footerByteCountUsual = 4 << 10
}
