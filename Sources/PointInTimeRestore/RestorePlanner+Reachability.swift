// Whether the archived WAL reaches the target, found out from the segments' headers and, where these don't say, from
// the records. What PostgreSQL would look for during the replay must be there, where it would look for it, behind the
// end of the backup: otherwise the recovery would end without it, after hours (xlogrecovery.c, recoveryStopsBefore,
// recoveryStopsAfter).
import BackupRepository
import Diagnostics
import Envelope
import ObjectStorage
import PostgresFormats
import SystemSupport

extension RestorePlanner {
  /// How far a route has to be followed.
  struct Reach {
    /// An index into the route's segments.
    var lastSegment: Int
    /// Where the recovery stops, as far as that is known.
    var lsn: LSN?
    /// No record that begins behind it is replayed.
    var end: LSN?

    init(lastSegment: Int, lsn: LSN?, end: LSN? = nil) {
      self.lastSegment = lastSegment
      self.lsn = lsn
      self.end = end ?? lsn
    }
  }

  /// The search for what the target names.
  func scan(_ layout: LineageLayout, _ size: WALSegmentSize) -> WALScan {
    let target = request.target
    return WALScan(repository, layout, size) { event in
      switch (target, event) {
      case (.xid(let wanted), .commit(let xid, _, _)), (.xid(let wanted), .abort(let xid, _, _)): xid.rawValue == wanted
      case (.name(let wanted), .restorePoint(let name, _, _)): name == wanted
      default: false
      }
    }
  }

  /// - Throws: `target-unreachable` with what can be reached; `wal-hole` where missing WAL may hold the target.
  func reach(
    _ backup: CatalogedBackup, _ route: WALRoute, _ wal: WALCatalog, _ scan: WALScan
  ) throws(TidemarkError) -> Reach {
    let stop = try backup.manifest.stop
    let last = route.segments.count - 1
    switch request.target {
    case .backupEnd: return Reach(lastSegment: route.index(endingAt: stop) ?? last, lsn: stop)
    case .latest:
      if route.hasHole { throw ends(route, wal) }
      return Reach(lastSegment: last, lsn: nil)
    case .lsn(let wanted): return try reach(wanted, backup, route, wal)
    case .time(let wanted): return try reach(time: wanted, backup, route, wal)
    case .xid, .name:
      guard let event = try scan.first(in: route.segments, from: try backup.manifest.start) else {
        if route.hasHole { throw ends(route, wal) }
        throw unreachable(
          request.target.isXID
            ? "no commit or abort of this transaction is in the WAL after the backup \(backup.label)"
            : "no restore point of this name is in the WAL after the backup \(backup.label)", nearest: nil)
      }
      guard event.lsn >= stop else {
        throw unreachable("it lies at \(event.lsn), before the end of the backup \(backup.label)", nearest: nil)
      }
      // One more, since the record may go on there.
      return Reach(lastSegment: min(last, (route.index(containing: event.lsn) ?? last) + 1), lsn: event.lsn)
    }
  }

  /// PostgreSQL stops at the first record that begins at the position or behind it: one must be there, whole.
  private func reach(
    _ wanted: LSN, _ backup: CatalogedBackup, _ route: WALRoute, _ wal: WALCatalog
  ) throws(TidemarkError) -> Reach {
    guard wanted >= (try backup.manifest.stop) else {
      throw unreachable("the backup \(backup.label) ends at \(backup.manifest.stopLSN)", nearest: nil)
    }
    var end: LSN?
    if let first = route.index(endingAt: wanted) {
      for index in first..<route.segments.count {
        let summary = try summary(backup.layout, route.segments[index])
        end = summary.end
        if let record = summary.lastRecord, record >= wanted {
          return Reach(lastSegment: index, lsn: wanted, end: record)
        }
      }
    }
    if route.hasHole { throw ends(route, wal) }
    if end == nil, let name = route.segments.last { end = try summary(backup.layout, name).end }
    throw unreachable("the archived WAL ends at \(end?.description ?? "no position")", nearest: nil)
  }

  /// PostgreSQL stops at the first commit or abort behind the time: one must be there.
  private func reach(
    time wanted: Int64, _ backup: CatalogedBackup, _ route: WALRoute, _ wal: WALCatalog
  ) throws(TidemarkError) -> Reach {
    let isBehind = { (time: Int64) in request.isExclusive ? time >= wanted : time > wanted }
    guard let latest = try repository.lastCommit(backup.layout, route.segments[...]) else {
      if route.hasHole { throw ends(route, wal) }
      throw unreachable("no transaction was committed after the backup \(backup.label)", nearest: nil)
    }
    guard isBehind(latest) else {
      if route.hasHole { throw ends(route, wal) }
      throw unreachable("the last archived commit was at \(RecoveryTime(microseconds: latest))", nearest: latest - 1)
    }
    try requireEnded(backup, before: wanted, isBehind, route)
    return try stop(isBehind, backup, route)
  }

  /// A commit behind the target and before the end of the backup would stop the recovery before it is consistent.
  private func requireEnded(
    _ backup: CatalogedBackup, before wanted: Int64, _ isBehind: (Int64) -> Bool, _ route: WALRoute
  ) throws(TidemarkError) {
    let stop = try backup.manifest.stop
    guard let last = route.index(endingAt: stop) else { return }
    var found: Int64?
    _ = try summary(backup.layout, route.segments[last]) { event in
      guard event.lsn < stop, let time = event.commitTime, isBehind(time) else { return }
      found = min(found ?? time, time)
    }
    if found == nil, last > 0, let time = try repository.lastCommit(backup.layout, route.segments[..<last]),
      isBehind(time)
    {
      found = time
    }
    guard let found else { return }
    throw unreachable(
      "the backup \(backup.label) ended after it: at \(RecoveryTime(microseconds: found)) it was still running",
      nearest: nil)
  }

  /// Where the first commit behind the time lies. Commits are about in the order of their times: where they aren't, the
  /// place may be a later one, and PostgreSQL stops before it.
  private func stop(
    _ isBehind: (Int64) -> Bool, _ backup: CatalogedBackup, _ route: WALRoute
  ) throws(TidemarkError) -> Reach {
    var low = 0
    var high = route.segments.count - 1
    while low < high {
      let middle = (low + high) / 2
      let time = try repository.lastCommit(backup.layout, route.segments[low...middle])
      if let time, isBehind(time) { high = middle } else { low = middle + 1 }
    }
    var found: LSN?
    _ = try summary(backup.layout, route.segments[low]) { event in
      if found == nil, let time = event.commitTime, isBehind(time) { found = event.lsn }
    }
    // One more, since the record may go on there.
    return Reach(lastSegment: min(low + 1, route.segments.count - 1), lsn: found)
  }

  private func summary(
    _ layout: LineageLayout, _ name: WALSegmentName, _ visit: (WALRecordEvent) -> Void = { _ in }
  ) throws(TidemarkError) -> WALSegmentSummary {
    try Termination.check()
    let bytes = try repository.readSealed(.walSegment, layout.wal(.segment(name)), limit: 1 << 30).plaintext
    return try bytes.withUnsafeBytes { buffer in
      Result { () throws(TidemarkError) in try WALSegmentScanner.scan(buffer, name: name, visit) }
    }.get()
  }
}

extension WALRecordEvent {
  /// Of a commit or an abort, which a target time is compared with.
  fileprivate var commitTime: Int64? {
    switch self {
    case .commit(_, let time, _), .abort(_, let time, _): time
    case .restorePoint, .createTablespace: nil
    }
  }
}

extension RecoveryTarget {
  fileprivate var isXID: Bool { if case .xid = self { true } else { false } }
}
