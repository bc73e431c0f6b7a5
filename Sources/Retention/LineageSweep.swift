// Clears away what no manifest names any more: packs, file tables, leases, and WAL, after the grace. It judges by what
// stands now, whoever deleted or added manifests, and leaves everything where it can't judge.
import BackupRepository
import Configuration
import Diagnostics
import PostgresFormats
import SystemSupport

struct LineageSweep {
  private let run: LineageExpireRun
  private let view: LineageView
  private let packs: RegionListing
  private let rewraps: RegionListing
  private var repository: Repository { run.repository }
  private var layout: LineageLayout { run.layout }

  /// - Parameters:
  ///   - packs: listed before `view` was made, so that the lease of whoever wrote one of them is in the view.
  ///   - rewraps: listed before everything that they belong to.
  init(_ run: LineageExpireRun, _ view: LineageView, packs: RegionListing, rewraps: RegionListing) {
    self.run = run
    self.view = view
    self.packs = packs
    self.rewraps = rewraps
  }

  /// What nothing needs, with its kind.
  private struct Condemned {
    var packs: [RegionListing.Entry] = []
    var fileTables: [RegionListing.Entry] = []
    var wal: [RegionListing.Entry] = []
    var rewraps: [RegionListing.Entry] = []
  }

  func run(_ expiry: inout LineageExpiry, _ report: inout ExpireReport) throws(TidemarkError) {
    var condemned = Condemned()
    let obstacle = obstacle(report)
    if let obstacle { report.remarks.append("lineage \(layout.systemIdentifier): packs and WAL wait: \(obstacle)") }
    try findPacks(&condemned, &expiry, &report)
    let wal = try findWAL(&condemned, &expiry, &report)
    findRewraps(&condemned, &expiry, &report, wal: wal)
    guard obstacle == nil, report.regionsNotAsked.isEmpty else {
      expiry.packs.waiting += condemned.packs.count
      expiry.fileTables.waiting += condemned.fileTables.count
      expiry.wal.waiting += condemned.wal.count
      expiry.rewraps.waiting += condemned.rewraps.count
      return
    }
    let now = Int64(run.now)
    var journal = try CondemnedJournal(stateDirectory: repository.stateDirectory, layout)
    journal.condemn(
      (condemned.packs + condemned.fileTables + condemned.wal + condemned.rewraps).map(\.name), now: now)
    if !run.isDryRun {
      try journal.save()
      CrashPoint.reach("expire.after-journal")
      try run.step("condemned")
    }
    for (path, entries, stage) in [
      (\LineageExpiry.packs, condemned.packs, "packs"), (\.fileTables, condemned.fileTables, "file-tables"),
      (\.wal, condemned.wal, "wal"), (\.rewraps, condemned.rewraps, "rewraps"),
    ] {
      // A running backup may have begun before the newest complete one, and needs the WAL since then.
      let waits = stage == "wal" && !view.running.isEmpty
      let ripe = waits ? [] : entries.filter { journal.isRipe($0.name, now: now, grace: run.policy.grace) }
      expiry[keyPath: path].waiting += entries.count - ripe.count
      var gone = Set(ripe.map(\.name))
      if !run.isDryRun {
        var deleter = RegionDeleter(repository.regions)
        gone = try deleter.delete(ripe, stage: stage)
        report.locked += deleter.locked
        report.findings += deleter.findings
        try run.settleDebts(gone)
        try run.step(stage)
      }
      expiry[keyPath: path].deleted = gone.count
      expiry[keyPath: path].deletedBytes = ripe.filter { gone.contains($0.name) }.reduce(0) { $0 + $1.byteCount }
    }
  }

  /// Why it can't be known what is needed; `nil` when it can.
  private func obstacle(_ report: ExpireReport) -> String? {
    if let unusable = view.catalog.unusable.first { return "\(unusable.name) can't be read" }
    // Nobody keeps a lineage for its packs alone: an empty listing would be a store's fault, or the first backup's time.
    if view.catalog.backups.isEmpty, !run.isSurrendered {
      return "no backup of the lineage stands; if it was left behind, 'tidemark expire --give-up-lineage"
        + " \(layout.systemIdentifier)' clears it away"
    }
    let labels = view.labelsWithManifest
    for running in view.running {
      if running.isObscure { return "the lease of the running backup \(running.label) can't be read" }
      if let predecessor = running.predecessor, !labels.contains(predecessor) {
        return "the running backup \(running.label) builds on \(predecessor), whose manifest is gone"
      }
    }
    return nil
  }

  // MARK: Packs and file tables

  private func findPacks(
    _ condemned: inout Condemned, _ expiry: inout LineageExpiry, _ report: inout ExpireReport
  ) throws(TidemarkError) {
    var needed: [String: Set<Int>] = [:]
    for backup in view.catalog.backups {
      for reference in backup.manifest.packs { needed[reference.label, default: []].formUnion(reference.numbers) }
    }
    let running = Set(view.running.flatMap { [$0.label] + $0.interrupted })
    let complete = view.labelsWithManifest
    report.regionsNotAsked.formUnion(packs.failures.keys)
    // A backup that is still being written shows by what it wrote last, too.
    var lastWritten: [String: Int64] = [:]
    for entry in packs.entries + view.listing.entries {
      guard let label = LineageView.label(of: entry.name) else { continue }
      lastWritten[label] = max(lastWritten[label] ?? 0, entry.modified)
    }
    func isRecent(_ label: String) -> Bool {
      run.now - Double(lastWritten[label] ?? 0) < run.policy.grace.seconds
    }
    var protected = (packs: 0, fileTables: 0)
    for entry in packs.entries {
      // What has no pack's name is left alone, with a remark.
      guard let label = LineageView.label(of: entry.name), let name = try? BackupLabelName(label),
        let number = Int(entry.name.lastComponent), entry.name == layout.pack(name, number)
      else {
        report.remarks.append("\(entry.name) isn't a pack's name: left alone")
        continue
      }
      if needed[label]?.contains(number) == true {
        expiry.packs.kept += 1
      } else if complete.contains(label) || !(running.contains(label) || isRecent(label)) {
        condemned.packs.append(entry)
      } else {
        protected.packs += 1
      }
    }
    for entry in view.listing.entries {
      guard let label = LineageView.label(of: entry.name), entry.name.lastComponent != "manifest" else { continue }
      let isLease = entry.name.text.split(separator: "/").dropLast().last == "leases"
      if complete.contains(label) {
        // The manifest stands for what the lease stood for.
        if isLease { condemned.fileTables.append(entry) } else { expiry.fileTables.kept += 1 }
      } else if running.contains(label) || isRecent(label) {
        protected.fileTables += 1
      } else {
        condemned.fileTables.append(entry)
      }
    }
    expiry.packs.waiting = protected.packs
    expiry.fileTables.waiting = protected.fileTables
    let expired = Set(expiry.expired)
    for label in lastWritten.keys
    where !complete.contains(label) && needed[label] == nil && !expired.contains(label) {
      expiry.unfinished[label] =
        running.contains(label)
        ? "running, or used by a backup that is"
        : isRecent(label) ? "without a manifest, written to lately" : "without a manifest"
    }
  }

  // MARK: WAL

  /// - Returns: what is listed below the lineage's WAL; `nil` when WAL isn't judged.
  private func findWAL(
    _ condemned: inout Condemned, _ expiry: inout LineageExpiry, _ report: inout ExpireReport
  ) throws(TidemarkError) -> RegionListing? {
    if !run.outer.options.removes.isEmpty { return nil }
    let listing = try repository.regions.list(prefix: layout.walPrefix)
    report.regionsNotAsked.formUnion(listing.failures.keys)
    // Of a lineage that is given up a backup that was put back, or is locked, keeps its WAL.
    let isWanted = !run.isSurrendered || !view.labelsWithManifest.isEmpty
    var files: [(WALFileName, RegionListing.Entry)] = []
    var histories: [TimelineID: TimelineHistory] = [:]
    for entry in listing.entries {
      // What has no WAL's name is left alone, with a remark.
      guard let file = try? WALFileName(text: entry.name.lastComponent), entry.name == layout.wal(file) else {
        report.remarks.append("\(entry.name) isn't a WAL file's name: left alone")
        continue
      }
      files.append((file, entry))
      guard isWanted, case .history(let timeline) = file else { continue }
      do throws(TidemarkError) {
        let (bytes, _) = try repository.readSealed(
          .timelineHistory, entry.name, limit: Repository.historyByteCountMax, mends: false)
        histories[timeline] = try TimelineHistory(timeline: timeline, parsing: bytes)
      } catch {
        switch error.code {
        // A writer's host can't open it, and doesn't need to: its timeline's WAL stays.
        case .noKeyOpens, .objectNotFound: break
        case .objectDamaged, .signatureInvalid, .writerNotTrusted, .formatVersionUnknown, .walFileInvalid:
          report.findings.append("\(entry.name) can't be read, so the WAL of its timeline stays: \(error.description)")
        default: throw error
        }
      }
    }
    let retention = WALRetention(try standing(expiry.decisions), histories: histories, segmentSize: segmentSize)
    expiry.continuousFrom = retention.continuousFrom
    for (file, entry) in files {
      if !isWanted || retention.reason(file) == nil { condemned.wal.append(entry) } else { expiry.wal.kept += 1 }
    }
    return listing
  }

  // MARK: Re-wraps

  /// A re-wrap is needed while any object of its group is listed: what this run deletes counts as there, so a re-wrap
  /// never goes before or with its last object, but in a later run.
  private func findRewraps(
    _ condemned: inout Condemned, _ expiry: inout LineageExpiry, _ report: inout ExpireReport, wal: RegionListing?
  ) {
    report.regionsNotAsked.formUnion(rewraps.failures.keys)
    if rewraps.entries.isEmpty { return }
    let belongings = packs.entries + view.listing.entries + (wal?.entries ?? [])
    let groups = Set(belongings.compactMap { RewrapGroup(of: $0.name) })
    // A dry run's listing leaves out the manifests that would be gone.
    let expired = Set(
      expiry.expired.compactMap { label in
        // Labels that were decided about are labels.
        (try? BackupLabelName(label)).flatMap { RewrapGroup(of: layout.manifest($0)) }
      })
    for entry in rewraps.entries {
      guard let group = RewrapGroup(ofRewrap: entry.name) else {
        report.remarks.append("\(entry.name) isn't a re-wrap's name: left alone")
        continue
      }
      let isJudged = wal != nil || !group.isOfWAL
      if group.isPermanent || !isJudged || groups.contains(group) || expired.contains(group) {
        expiry.rewraps.kept += 1
      } else {
        condemned.rewraps.append(entry)
      }
    }
  }

  private func segmentSize(_ label: String) -> WALSegmentSize {
    let byteCount = view.catalog.backups.first { $0.label.text == label }?.manifest.walSegmentSize
    return byteCount.flatMap { WALSegmentSize(byteCount: $0) } ?? .standard
  }

  /// The decisions about the backups that stand now: one that should be gone and isn't needs its WAL, and one that came
  /// since belongs to the newest.
  private func standing(_ decisions: [BackupDecision]) throws(TidemarkError) -> [BackupDecision] {
    var standing: [BackupDecision] = []
    for backup in view.catalog.backups {
      let candidate = try LineageExpireRun.candidate(backup)
      var decision =
        decisions.first { $0.candidate == candidate } ?? BackupDecision(candidate: candidate, rules: [.newest])
      if decision.expires { decision.rules = [.hold] }
      standing.append(decision)
    }
    return standing
  }
}
