// Plans a restore: which lineage, timeline, backup and WAL, and whether the target can be reached. What would make the
// recovery fail late is refused here, with what is missing and what can be reached instead.
import BackupRepository
import Diagnostics
import Envelope
import ObjectStorage
import PostgresFormats
import SystemSupport

package struct RestorePlanner {
  let repository: Repository
  let request: RestoreRequest

  package init(_ repository: Repository, _ request: RestoreRequest) {
    self.repository = repository
    self.request = request
  }

  /// Makes the plan. Nothing is written.
  /// - Throws: `backup-not-found`, `target-unreachable`, `wal-hole`, and what reading the regions throws.
  package func plan() throws(TidemarkError) -> RestorePlan {
    if repository.keys.identities.isEmpty {
      throw TidemarkError(
        .noKeyOpens, "this host has no identity, so it can't open backups",
        next: "put the identity's secret, which 'tidemark init' made, into encryption.identity-file")
    }
    try requireSensible()
    let catalog = try chooseLineage()
    guard let anyBackup = catalog.backups.last, let size = WALSegmentSize(byteCount: anyBackup.manifest.walSegmentSize)
    else {
      // Manifests that can't be used are what happened; only without any of them is there no backup.
      if let unusable = catalog.unusable.first { throw Self.refusal(unusable) }
      throw TidemarkError(
        .backupNotFound, "there is no usable backup", object: "system identifier \(catalog.systemIdentifier)",
        next: "'tidemark list' shows what there is")
    }
    let wal = try repository.walCatalog(catalog.layout, segmentSize: size)
    let scan = scan(catalog.layout, size)
    var refusal: TidemarkError?
    for candidate in try candidates(catalog, wal) {
      do throws(TidemarkError) { return try plan(candidate, wal, scan) } catch {
        // A later backup may not lie on the way to the target where an earlier one does.
        guard error.code == .targetUnreachable || error.code == .walHole else { throw error }
        refusal = refusal ?? error
        if request.target == .latest || request.target == .backupEnd { break }
      }
    }
    throw refusal
      ?? TidemarkError(
        .targetUnreachable, "no backup ends before the target", object: request.target.description,
        cause: earliest(catalog), kept: "everything: nothing was written",
        next: "choose a target after the end of the earliest backup; 'tidemark list' shows the recoverable window")
  }

  /// What PostgreSQL would silently ignore is refused.
  private func requireSensible() throws(TidemarkError) {
    switch request.target {
    case .time, .lsn, .xid: return
    case .name, .backupEnd, .latest:
      if request.isExclusive {
        throw TidemarkError(
          .usage, "--exclusive has no meaning for this target", object: request.target.description,
          next: "use it with --to-time, --to-lsn or --to-xid")
      }
    }
  }

  private func earliest(_ catalog: LineageCatalog) -> String? {
    catalog.backups.min { $0.manifest.stopTime < $1.manifest.stopTime }.map { backup in
      let time = RecoveryTime(microseconds: Int64(backup.manifest.stopTime * 1_000_000))
      return "the earliest backup, \(backup.label), ends at \(backup.manifest.stopLSN), \(time)"
    }
  }

  /// The lineage to restore: the one asked for, or that of the newest backup.
  private func chooseLineage() throws(TidemarkError) -> LineageCatalog {
    let (lineages, _) = try repository.lineages()
    var best: LineageCatalog?
    for lineage in lineages {
      if let wanted = request.systemIdentifier, wanted != lineage.systemIdentifier { continue }
      let catalog = try repository.catalog(lineage)
      if let label = request.backup, !catalog.backups.contains(where: { $0.label.text.hasPrefix(label) }) {
        if let unusable = catalog.unusable.first(where: { Self.label(of: $0).hasPrefix(label) }) {
          throw Self.refusal(unusable)
        }
        continue
      }
      let newest = catalog.backups.map(\.manifest.stopTime).max() ?? 0
      let bestNewest = best?.backups.map(\.manifest.stopTime).max() ?? -1
      if newest > bestNewest { best = catalog }
    }
    if let best { return best }
    throw TidemarkError(
      .backupNotFound, request.backup == nil ? "there is no backup of this cluster" : "there is no such backup",
      object: request.backup ?? repository.layout.cluster, next: "'tidemark list' shows what there is")
  }

  /// The label in the name of a manifest.
  private static func label(of backup: UnusableBackup) -> Substring {
    backup.name.text.split(separator: "/").dropLast().last ?? ""
  }

  private static func refusal(_ backup: UnusableBackup) -> TidemarkError {
    backup.error.with(object: backup.name.text).with(
      kept: "everything: nothing was written", next: "'tidemark list' shows which backups can be used")
  }

  /// The plan from one backup.
  private func plan(
    _ candidate: Candidate, _ wal: WALCatalog, _ scan: WALScan
  ) throws(TidemarkError) -> RestorePlan {
    let backup = candidate.backup
    let route = try WALRoute(
      from: try backup.manifest.start, on: TimelineID(backup.manifest.timeline), towards: candidate.history, in: wal)
    // Without all WAL of the backup itself nothing can be reached.
    guard route.index(endingAt: try backup.manifest.stop) != nil else { throw ends(route, wal) }
    let end = try reach(backup, route, wal, scan)
    var segments = Array(route.segments[...end.lastSegment])
    var history = candidate.history
    if let lsn = end.lsn, let older = try olderHistory(lsn, segments, history, wal) {
      // The new timeline then branches off the one on which the target lies, and not off a later one.
      history = older
      segments = segments.map { $0.timeline > older.timeline ? $0.on(older.timeline) : $0 }
    }
    var plan = RestorePlan(
      backup: backup, target: request.target, targetTimeline: history.timeline, legs: Self.legs(segments),
      segments: segments, histories: wal.histories.keys.sorted(), segmentSize: wal.segmentSize,
      regionsNotAsked: wal.failures.keys.sorted())
    plan.remarks = candidate.remarks
    plan.end = end.end
    if let suspect = backup.manifest.suspect { plan.remarks.append("the backup has damaged pages: \(suspect)") }
    return plan
  }

  /// The history of the timeline on which the record at `lsn` lies, when that is an older one and its own segments
  /// reach the target.
  private func olderHistory(
    _ lsn: LSN, _ segments: [WALSegmentName], _ history: TimelineHistory, _ wal: WALCatalog
  ) throws(TidemarkError) -> TimelineHistory? {
    let timeline = history.timeline(of: lsn)
    guard timeline < history.timeline,
      segments.allSatisfy({ $0.timeline <= timeline || wal.holds($0.on(timeline)) })
    else { return nil }
    return try wal.history(timeline)
  }

  private static func legs(_ segments: [WALSegmentName]) -> [TimelineLeg] {
    var legs: [TimelineLeg] = []
    for name in segments {
      if let last = legs.last, last.timeline == name.timeline.rawValue {
        legs[legs.count - 1].lastSegment = name.description
      } else {
        legs.append(
          TimelineLeg(
            timeline: name.timeline.rawValue, firstSegment: name.description, lastSegment: name.description))
      }
    }
    return legs
  }

  // MARK: Refusals

  /// Why nothing behind the route's end can be reached.
  func ends(_ route: WALRoute, _ wal: WALCatalog) -> TidemarkError {
    if route.hasHole || route.segments.isEmpty { return hole(route.missing, wal) }
    return unreachable("the archive ends with segment \(route.segments.last?.description ?? "none")", nearest: nil)
  }

  private func hole(_ name: WALSegmentName, _ wal: WALCatalog) -> TidemarkError {
    TidemarkError(
      .walHole, "a WAL segment on the way to the target is missing", object: name.description,
      cause: wal.failures.isEmpty
        ? "no region holds it"
        : "no region that could be asked holds it; not asked: \(wal.failures.keys.sorted().joined(separator: ", "))",
      kept: "everything: nothing was written",
      next: "choose a target before it, or if a server still has it in pg_wal: 'tidemark wal-push' it")
  }

  func unreachable(_ cause: String, nearest: Int64?) -> TidemarkError {
    TidemarkError(
      .targetUnreachable, "the archived WAL doesn't reach the target", object: request.target.description,
      cause: cause, kept: "everything: nothing was written",
      next: nearest.map { "the latest reachable time is \(RecoveryTime(microseconds: $0)); or use --to-latest" }
        ?? "'tidemark list' shows the recoverable window; --timeline chooses another timeline")
  }
}
