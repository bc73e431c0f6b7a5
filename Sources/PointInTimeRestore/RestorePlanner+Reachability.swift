// Whether the archived WAL reaches the target, found out from the segments' headers and, where these don't say, from
// the records.
import BackupRepository
import Diagnostics
import Envelope
import ObjectStorage
import PostgresFormats
import SystemSupport

extension RestorePlanner {
  /// The time of the last commit in `segments`, from the headers, newest first.
  func lastCommit(_ layout: LineageLayout, _ segments: [WALSegmentName]) throws(TidemarkError) -> Int64? {
    for name in segments.reversed().prefix(64) {
      if let time = try header(layout, name)?.attributes.latestCommit { return time }
    }
    return nil
  }

  /// The header, which is to be believed only once the signature behind the last frame was checked: whoever can write to
  /// a region could otherwise make a target look reachable, or unreachable.
  private func header(_ layout: LineageLayout, _ name: WALSegmentName) throws(TidemarkError) -> SealedHeader? {
    let object = layout.wal(.segment(name))
    return try repository.regions.read(object) { bytes, _ in
      try SealedObject.verify(
        bytes, expectedName: object.text, trustedWriters: repository.keys.trustedWriters
      ).header
    }
  }

  /// - Throws: `target-unreachable` with what can be reached.
  func requireReachable(_ plan: RestorePlan, _ wal: WALCatalog) throws(TidemarkError) {
    switch plan.target {
    case .backupEnd, .latest: return
    case .time(let wanted):
      guard let last = plan.lastCommit else {
        throw unreachable("no transaction was committed after the backup", nearest: nil)
      }
      // PostgreSQL stops at the first commit after the target: one must exist (xlogrecovery.c, recoveryStopsBefore).
      if request.isExclusive ? last < wanted : last <= wanted {
        throw unreachable("the last archived commit was at \(RecoveryTime(microseconds: last))", nearest: last - 1)
      }
    case .lsn(let wanted):
      guard let last = plan.segments.last else { throw unreachable("no WAL is archived", nearest: nil) }
      let summary = try scan(plan.backup.layout, last) { _ in }
      // PostgreSQL stops at a record that begins at the target or later: one must exist.
      guard let record = summary.lastRecord, record >= wanted else {
        throw unreachable(
          "the archived WAL ends at \(summary.end)\(summary.lastRecord.map { ", its last record begins at \($0)" } ?? "")",
          nearest: nil)
      }
    case .xid:
      // A prepared transaction's number isn't where others are, so only the replay knows: it fails with PostgreSQL's
      // own words when it ends without the transaction.
      return
    case .name(let wanted):
      var found = false
      try scanAll(plan) { record in
        if case .restorePoint(let name, _, _) = record, name == wanted { found = true }
        return !found
      }
      if !found { throw unreachable("no restore point of this name is in the WAL after the backup", nearest: nil) }
    }
  }

  /// Reads and scans every segment of the plan, in order, until `visit` returns `false`.
  private func scanAll(_ plan: RestorePlan, _ visit: (WALRecordEvent) -> Bool) throws(TidemarkError) {
    for name in plan.segments {
      try Termination.check()
      var goesOn = true
      _ = try scan(plan.backup.layout, name) { if goesOn { goesOn = visit($0) } }
      if !goesOn { return }
    }
  }

  private func scan(
    _ layout: LineageLayout, _ name: WALSegmentName, _ visit: (WALRecordEvent) -> Void
  ) throws(TidemarkError) -> WALSegmentSummary {
    let bytes = try segment(layout, name)
    return try bytes.withUnsafeBytes { buffer in
      Result { () throws(TidemarkError) in try WALSegmentScanner.scan(buffer, name: name, visit) }
    }.get()
  }

  private func segment(_ layout: LineageLayout, _ name: WALSegmentName) throws(TidemarkError) -> [UInt8] {
    try repository.readSealed(.walSegment, layout.wal(.segment(name)), limit: 1 << 30).plaintext
  }
}
