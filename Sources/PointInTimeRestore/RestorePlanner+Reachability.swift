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

  private func header(_ layout: LineageLayout, _ name: WALSegmentName) throws(TidemarkError) -> SealedHeader? {
    try repository.regions.read(
      layout.wal(.segment(name)), range: .bytes(offset: 0, count: Int64(SealedHeader.prefixByteCountMax))
    ) { bytes, _ in try SealedHeader.parse(bytes) }
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
      let end = try endOfRecords(plan, last)
      if end < wanted { throw unreachable("the archived WAL ends at \(end)", nearest: nil) }
    case .xid(let wanted):
      var found = false
      try scanAll(plan) { record in
        if case .commit(let xid, _, _) = record, xid.rawValue == wanted { found = true }
        if case .abort(let xid, _, _) = record, xid.rawValue == wanted { found = true }
        return !found
      }
      if !found { throw unreachable("no commit of transaction \(wanted) is in the WAL after the backup", nearest: nil) }
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
    var scanner = WALSegmentScanner()
    for name in plan.segments {
      try Termination.check()
      var goesOn = true
      let bytes = try segment(plan.backup.layout, name)
      _ = try bytes.withUnsafeBytes { (buffer) throws(TidemarkError) in
        try scanner.scan(buffer, name: name) { if goesOn { goesOn = visit($0) } }
      }
      if !goesOn { return }
    }
  }

  /// The end of the valid records of the last segment.
  private func endOfRecords(_ plan: RestorePlan, _ name: WALSegmentName) throws(TidemarkError) -> LSN {
    let bytes = try segment(plan.backup.layout, name)
    var scanner = WALSegmentScanner()
    return try bytes.withUnsafeBytes { (buffer) throws(TidemarkError) in
      try scanner.scan(buffer, name: name) { _ in }.end
    }
  }

  private func segment(_ layout: LineageLayout, _ name: WALSegmentName) throws(TidemarkError) -> [UInt8] {
    try repository.readSealed(.walSegment, layout.wal(.segment(name)), limit: 1 << 30).plaintext
  }
}
