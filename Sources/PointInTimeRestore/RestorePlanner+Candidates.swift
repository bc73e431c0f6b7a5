// Which backups can lead to the target, and on which timeline. Unless the operator says otherwise that is the newest
// timeline of which the archive has WAL: a backup on a dead branch never wins silently, however young it is.
import BackupRepository
import Diagnostics
import PostgresFormats

extension RestorePlanner {
  /// A backup with the history of the timeline that a recovery from it follows.
  struct Candidate {
    var backup: CatalogedBackup
    var history: TimelineHistory
    var remarks: [String] = []
  }

  /// How far the clock of a host that takes backups may be off before a backup isn't considered.
  private static let clockTolerance = 3600.0

  /// The backups that may serve, best first.
  /// - Throws: `usage` for an ambiguous label; `target-unreachable` when no backup leads to the timeline.
  func candidates(_ catalog: LineageCatalog, _ wal: WALCatalog) throws(TidemarkError) -> [Candidate] {
    var backups = catalog.backups
    if let label = request.backup {
      backups = backups.filter { $0.label.text.hasPrefix(label) }
      guard backups.count == 1 else {
        throw TidemarkError(
          .usage, "the label is that of several backups", object: label,
          next: "give more of it; 'tidemark list' shows the labels")
      }
    }
    let found = try onTimeline(backups, catalog, wal)
    let ordered = try found.map { (candidate) throws(TidemarkError) in (candidate, try candidate.backup.manifest.stop) }
      .sorted { $0.1 > $1.1 }.map(\.0)
      .filter { request.backup != nil || mayPrecedeTarget($0.backup.manifest) }
    // A backup with damaged pages is the last resort.
    return ordered.filter { $0.backup.manifest.suspect == nil } + ordered.filter { $0.backup.manifest.suspect != nil }
  }

  private func mayPrecedeTarget(_ manifest: BackupManifest) -> Bool {
    switch request.target {
    case .time(let microseconds): manifest.startTime - Self.clockTolerance <= Double(microseconds) / 1_000_000
    // A manifest that was decoded has valid positions.
    case .lsn(let lsn): ((try? manifest.stop) ?? lsn) <= lsn
    default: true
    }
  }

  private func onTimeline(
    _ backups: [CatalogedBackup], _ catalog: LineageCatalog, _ wal: WALCatalog
  ) throws(TidemarkError) -> [Candidate] {
    if let wanted = request.timeline {
      let known = Set(wal.segments.keys).union(wal.histories.keys)
      guard known.contains(wanted) else {
        throw TidemarkError(
          .targetUnreachable, "the archive has nothing of this timeline", object: "timeline \(wanted)",
          kept: "everything: nothing was written",
          next: "timelines here: \(known.sorted().map(\.description).joined(separator: ", "))")
      }
      let history = try wal.history(wanted)
      let found = try leading(to: history, backups)
      if found.isEmpty { throw notOn(wanted, backups) }
      return found
    }
    // The end of a backup is on its own timeline.
    if request.target == .backupEnd {
      var found: [Candidate] = []
      let newest = try wal.newestTimeline.map { (newest) throws(TidemarkError) in
        try leading(to: try wal.history(newest), backups)
      }
      for backup in newest?.isEmpty == false ? newest?.map(\.backup) ?? [] : backups {
        found.append(Candidate(backup: backup, history: try wal.history(TimelineID(backup.manifest.timeline))))
      }
      return found
    }
    guard let newest = wal.newestTimeline else {
      throw unreachable("no WAL is archived", nearest: nil)
    }
    let known = Set(wal.histories.keys).union(wal.unreadableHistories.keys)
    let unborn = known.filter { $0 > newest }.sorted()
    let remarks = unborn.map { "no WAL of timeline \($0) is archived: the recovery ends on an older one" }
    var found: [Candidate] = []
    if request.backup != nil, let backup = backups.first {
      // This backup was asked for: the newest timeline that it leads to.
      for timeline in wal.segments.keys.sorted(by: >) where found.isEmpty {
        let own = timeline == TimelineID(backup.manifest.timeline)
        guard own || known.contains(timeline) else { continue }
        found = try leading(to: try wal.history(timeline), [backup])
      }
    } else {
      found = try leading(to: try wal.history(newest), backups)
      if found.isEmpty { throw notOn(newest, backups) }
    }
    return found.map { Candidate(backup: $0.backup, history: $0.history, remarks: remarks) }
  }

  private func leading(
    to history: TimelineHistory, _ backups: [CatalogedBackup]
  ) throws(TidemarkError) -> [Candidate] {
    var found: [Candidate] = []
    for backup in backups
    where history.contains(TimelineID(backup.manifest.timeline), upTo: try backup.manifest.stop) {
      found.append(Candidate(backup: backup, history: history))
    }
    return found
  }

  private func notOn(_ timeline: TimelineID, _ backups: [CatalogedBackup]) -> TidemarkError {
    let others = Set(backups.map(\.manifest.timeline)).sorted().map(String.init).joined(separator: ", ")
    return TidemarkError(
      .targetUnreachable, "no backup leads to the timeline: it branched off before their ends",
      object: "timeline \(timeline)", cause: "backups of timeline \(others)", kept: "everything: nothing was written",
      next: request.timeline == nil && request.backup == nil
        ? "--timeline \(backups.last.map { String($0.manifest.timeline) } ?? "N") restores the older branch"
        : "choose an earlier backup, or another --timeline")
  }
}
