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
  /// - Throws: `backup-not-found`, `target-unreachable`, `wal-hole`, `walAbsent`, and what reading the regions throws.
  package func plan() throws(TidemarkError) -> RestorePlan {
    if repository.keys.identities.isEmpty {
      throw TidemarkError(
        .noKeyOpens, "this host has no identity, so it can't open backups",
        next: "put the identity's secret, which 'tidemark init' made, into encryption.identity-file")
    }
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
    var refusal: TidemarkError?
    for backup in try candidates(catalog) {
      do throws(TidemarkError) { return try plan(backup, wal, size) } catch {
        // A later backup may not lie on the way to the target where an earlier one does.
        guard error.code == .targetUnreachable || error.code == .walHole || error.code == .walAbsent else {
          throw error
        }
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

  /// The backups that may serve, best first.
  private func candidates(_ catalog: LineageCatalog) throws(TidemarkError) -> [CatalogedBackup] {
    if let label = request.backup {
      let matching = catalog.backups.filter { $0.label.text.hasPrefix(label) }
      guard matching.count == 1 else {
        throw TidemarkError(
          .usage, "the label is that of several backups", object: label,
          next: "give more of it; 'tidemark list' shows the labels")
      }
      return matching
    }
    let newestFirst = catalog.backups.reversed().filter { backup in
      switch request.target {
      case .time(let microseconds): Int64(backup.manifest.stopTime * 1_000_000) <= microseconds
      case .lsn(let lsn): ((try? backup.manifest.stop) ?? lsn) <= lsn
      default: true
      }
    }
    // A backup with damaged pages is the last resort.
    return newestFirst.filter { $0.manifest.suspect == nil } + newestFirst.filter { $0.manifest.suspect != nil }
  }

  private func plan(
    _ backup: CatalogedBackup, _ wal: WALCatalog, _ size: WALSegmentSize
  ) throws(TidemarkError) -> RestorePlan {
    let origin = TimelineID(backup.manifest.timeline)
    let start = try backup.manifest.start
    let stop = try backup.manifest.stop
    let history = try targetTimeline(origin, stop, wal)
    let path = history.path(from: origin) ?? TimelineHistory(root: origin).ranges
    var legs: [TimelineLeg] = []
    var segments: [WALSegmentName] = []
    var position = WALSegmentName(timeline: origin, containing: start, size: size)
    for leg in path {
      if let end = leg.end {
        // The segment with the switch is taken from the next timeline, which holds the shared part too.
        let last = WALSegmentName(timeline: leg.timeline, containing: end, size: size)
        var names: [WALSegmentName] = []
        var name = position.on(leg.timeline)
        while name < last {
          guard wal.holds(name) else { throw hole(name, wal) }
          names.append(name)
          name = try name.next(size)
        }
        append(names, leg.timeline, &legs, &segments)
        position = max(name, position.on(leg.timeline))
        continue
      }
      let first = position.on(leg.timeline)
      let names = try lastLeg(first, stop: stop, origin: origin, wal, size)
      append(names, leg.timeline, &legs, &segments)
    }
    let reached = try lastCommit(backup.layout, segments)
    let plan = RestorePlan(
      backup: backup, target: request.target, targetTimeline: history.timeline, legs: legs, segments: segments,
      histories: wal.histories.keys.sorted(), segmentSize: size, lastCommit: reached,
      regionsNotAsked: wal.failures.keys.sorted())
    try requireReachable(plan, wal)
    return plan
  }

  private func append(
    _ names: [WALSegmentName], _ timeline: TimelineID, _ legs: inout [TimelineLeg], _ segments: inout [WALSegmentName]
  ) {
    legs.append(
      TimelineLeg(
        timeline: timeline.rawValue, firstSegment: names.first?.description, lastSegment: names.last?.description))
    segments += names
  }

  /// The segments of the last timeline on the way, as many as there are or as the target needs.
  private func lastLeg(
    _ first: WALSegmentName, stop: LSN, origin: TimelineID, _ wal: WALCatalog, _ size: WALSegmentSize
  ) throws(TidemarkError) -> [WALSegmentName] {
    // The backup itself needs the WAL up to its end.
    var needed = first.timeline == origin ? WALSegmentName(timeline: origin, endingAt: stop, size: size) : first
    if case .lsn(let lsn) = request.target {
      needed = max(needed, WALSegmentName(timeline: first.timeline, endingAt: lsn, size: size))
    }
    guard let end = wal.endOfRun(from: first) else { throw hole(first, wal) }
    if end < needed {
      let missing = try end.next(size)
      let later = wal.segments[first.timeline]?.last?.name
      if let later, later > missing { throw hole(missing, wal) }
      throw unreachable("the archive ends with segment \(end)", nearest: nil)
    }
    var last = end
    switch request.target {
    case .backupEnd: last = needed
    // One more, so that a record that begins at the target and spans two segments can be read.
    case .lsn: last = min(end, (try? needed.next(size)) ?? needed)
    default:
      let missing = try end.next(size)
      // Segments behind a hole: the end of the archive is a fault, not an end.
      if let later = wal.segments[first.timeline]?.last?.name, later > missing { throw hole(missing, wal) }
    }
    var names: [WALSegmentName] = []
    var name = first
    while name <= last {
      names.append(name)
      name = try name.next(size)
    }
    return names
  }

  /// The history of the timeline to recover to: the one asked for, or the newest that the backup lies on.
  private func targetTimeline(
    _ origin: TimelineID, _ stop: LSN, _ wal: WALCatalog
  ) throws(TidemarkError) -> TimelineHistory {
    if let wanted = request.timeline {
      if wanted == origin { return TimelineHistory(root: origin) }
      guard let history = wal.histories[wanted] else {
        throw TidemarkError(
          .targetUnreachable, "no region holds the history of the timeline", object: "timeline \(wanted)",
          next: "timelines here: \(([origin] + wal.histories.keys.sorted()).map(\.description).joined(separator: ", "))"
        )
      }
      guard history.contains(origin, upTo: stop) else {
        throw TidemarkError(
          .targetUnreachable, "the timeline branched off before the end of the backup",
          object: "timeline \(wanted)", cause: "the backup ends at \(stop) on timeline \(origin)",
          next: "choose an earlier backup with --backup, or another --timeline")
      }
      return history
    }
    if request.target == .backupEnd { return TimelineHistory(root: origin) }
    return wal.histories.values.filter { $0.timeline > origin && $0.contains(origin, upTo: stop) }
      .max { $0.timeline < $1.timeline } ?? TimelineHistory(root: origin)
  }

  func hole(_ name: WALSegmentName, _ wal: WALCatalog) -> TidemarkError {
    TidemarkError(
      .walHole, "a WAL segment on the way to the target is missing", object: name.description,
      cause: wal.failures.isEmpty
        ? "no region holds it" : "no region that could be asked holds it; not asked: \(wal.failures.keys.sorted())",
      kept: "everything: nothing was written",
      next: "choose a target before it, or if the server still has it in pg_wal: 'tidemark wal-push' it")
  }

  func unreachable(_ cause: String, nearest: Int64?) -> TidemarkError {
    TidemarkError(
      .targetUnreachable, "the archived WAL doesn't reach the target", object: request.target.description,
      cause: cause, kept: "everything: nothing was written",
      next: nearest.map { "the latest reachable time is \(RecoveryTime(microseconds: $0)); or use --to-latest" }
        ?? "'tidemark list' shows the recoverable window")
  }
}
