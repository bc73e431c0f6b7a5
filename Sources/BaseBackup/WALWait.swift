// Waiting until all WAL of a backup is durable in the regions: without it the backup can't be restored.
import BackupRepository
import Diagnostics
import Glibc
import PostgresFormats
import PostgresReplication
import SystemSupport

struct WALWait {
  let repository: Repository
  let layout: LineageLayout
  let segmentSize: WALSegmentSize
  let limit: Duration
  /// Set when the backup is from a standby.
  var standby: StandbySource?

  /// Returns when the policy's number of regions, or all that can be asked, list every segment from `start` to `stop`.
  /// - Parameter remarks: is told what stands in the way of a backup from a standby.
  /// - Throws: `wal-not-archived` after the limit, naming the first missing segment and what the archiver says.
  func wait(
    timeline: TimelineID, from start: LSN, to stop: LSN, connection: ConnectionInfo, _ remarks: inout [String]
  ) throws(TidemarkError) {
    let first = WALSegmentName(timeline: timeline, containing: start, size: segmentSize)
    let last = WALSegmentName(timeline: timeline, endingAt: stop, size: segmentSize)
    let deadline = Deadline.after(limit)
    var pause = Duration.milliseconds(100)
    var hasAskedPrimary = false
    while true {
      try Termination.check()
      guard let missing = try firstMissing(first, last) else { return }
      if deadline.hasPassed { throw notArchived(missing, connection) }
      if let standby {
        try standby.requireStandby()
        if !hasAskedPrimary, let remark = standby.finishSegmentOnPrimary() { remarks.append(remark) }
        hasAskedPrimary = true
      }
      usleep(UInt32(pause.milliseconds * 1000))
      pause = min(pause * 2, .seconds(2))
    }
  }

  /// The first segment that too few regions hold, with the number that do.
  private func firstMissing(
    _ first: WALSegmentName, _ last: WALSegmentName
  ) throws(TidemarkError) -> (name: WALSegmentName, holders: Int)? {
    // The listing begins behind the key before the first segment's.
    let listing = try repository.regions.list(prefix: commonPrefix(first, last), patience: limit)
    let regions = repository.regions
    let needed = max(1, min(regions.policy.required, listing.answered.count))
    var holders: [WALSegmentName: Int] = [:]
    for entry in listing.entries {
      guard let name = WALSegmentName(entry.name.lastComponent), first <= name, name <= last else { continue }
      holders[name] = entry.holders.count
    }
    var name = first
    while true {
      let count = holders[name] ?? 0
      // A segment that is owed to a failing region is durable by policy.
      let isOwed =
        count > 0
        && regions.regions.contains {
          regions.debts.contains(Debt(region: $0.name, object: layout.wal(.segment(name))))
        }
      if count < needed && !isOwed { return (name, count) }
      if name == last { return nil }
      name = try name.next(segmentSize)
    }
  }

  private func commonPrefix(_ first: WALSegmentName, _ last: WALSegmentName) -> String {
    let left = layout.wal(.segment(first)).text
    let right = layout.wal(.segment(last)).text
    return String(zip(left, right).prefix { $0 == $1 }.map(\.0))
  }

  private func notArchived(
    _ missing: (name: WALSegmentName, holders: Int), _ connection: ConnectionInfo
  ) -> TidemarkError {
    var cause = "\(missing.holders) regions hold \(missing.name)"
    // What the archiver says explains most; without it the error still stands.
    if let server = try? ServerInspection(reading: PostgresConnection(connection), includesSizes: false),
      let failed = server.archiver.lastFailedName, server.archiver.isFailing
    {
      cause += "; the server's archiver last failed on \(failed), \(server.archiver.failedCount) times in all"
    }
    return TidemarkError(
      .walNotArchived, "the WAL of the backup didn't reach the regions within \(limit.components.seconds) s",
      object: missing.name.description, cause: cause,
      kept: "the earlier backups; what was uploaded is used by the next one",
      next: "look for errors of archive_command in the server's log")
  }
}
