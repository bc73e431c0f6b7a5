// Expiry of one lineage: decide, delete manifests, look again.
import BackupRepository
import Configuration
import Diagnostics
import PostgresFormats
import SystemSupport

struct LineageExpireRun {
  /// Manifests that are deleted between two looks at the holds. Their bytes are in memory until then.
  private static let manifestBatchCount = 32

  let outer: ExpireRun
  let layout: LineageLayout
  let now: Double
  var repository: Repository { outer.repository }
  var policy: RetentionPolicy { outer.options.policy }
  var isDryRun: Bool { outer.options.isDryRun }
  /// Whether all of it goes.
  var isSurrendered: Bool { outer.options.surrender?.systemIdentifier == layout.systemIdentifier }

  init(_ outer: ExpireRun, _ layout: LineageLayout) {
    self.outer = outer
    self.layout = layout
    now = Double(wallClockSeconds())
  }

  func run(_ report: inout ExpireReport) throws(TidemarkError) -> LineageExpiry {
    var expiry = LineageExpiry(systemIdentifier: layout.systemIdentifier)
    let view = try LineageView(repository, layout, now: now)
    report.regionsNotAsked.formUnion(view.listing.failures.keys)
    for unusable in view.catalog.unusable where !isSurrendered {
      report.findings.append(
        "\(unusable.name) can't be read, so it stays, and packs and WAL wait: \(unusable.error.description);"
          + " 'tidemark expire --remove \(LineageView.label(of: unusable.name) ?? "LABEL")' gives it up")
    }
    let holds = try heldLabels()
    expiry.decisions = try decide(view, holds)
    let doomed = try doomedManifests(view, expiry.decisions, holds)
    if isDryRun {
      expiry.expired = doomed.compactMap { LineageView.label(of: $0.name) }
      var after = view
      let names = Set(doomed.map(\.name))
      after.listing.entries.removeAll { names.contains($0.name) }
      after.catalog.backups.removeAll { names.contains(layout.manifest($0.label)) }
      after.catalog.unusable.removeAll { names.contains($0.name) }
      let rewraps = try listRewraps()
      try LineageSweep(self, after, packs: try listPacks(), rewraps: rewraps).run(&expiry, &report)
      return expiry
    }
    expiry.expired = try delete(doomed, &report)
    try step("manifests")
    let rewraps = try listRewraps()
    let packs = try listPacks()
    try step("packs-listed")
    let after = try LineageView(repository, layout, now: now, known: view)
    report.regionsNotAsked.formUnion(after.listing.failures.keys)
    try LineageSweep(self, after, packs: packs, rewraps: rewraps).run(&expiry, &report)
    return expiry
  }

  private func listPacks() throws(TidemarkError) -> RegionListing {
    try repository.regions.list(prefix: layout.packsPrefix)
  }

  /// Before anything that they belong to: one that was just made then has its objects in the later listings.
  private func listRewraps() throws(TidemarkError) -> RegionListing {
    try repository.regions.list(prefix: layout.rewrapsPrefix)
  }

  func step(_ name: String) throws(TidemarkError) {
    do { try outer.onStep(name) } catch { throw TidemarkError.wrapping(error) }
  }

  private func heldLabels() throws(TidemarkError) -> [String: String] {
    var held: [String: String] = [:]
    for hold in try repository.holds(layout, mends: false) where held[hold.label.text, default: ""].isEmpty {
      held[hold.label.text] = hold.reason
    }
    return held
  }

  // MARK: Deciding

  private func decide(_ view: LineageView, _ holds: [String: String]) throws(TidemarkError) -> [BackupDecision] {
    var candidates: [RetentionCandidate] = []
    for backup in view.catalog.backups { candidates.append(try Self.candidate(backup)) }
    var running: [String: String] = [:]
    for backup in view.running { if let predecessor = backup.predecessor { running[predecessor] = backup.label } }
    if isSurrendered {
      return candidates.map { BackupDecision(candidate: $0, explanations: ["its lineage is given up"]) }
    }
    return BackupRetention.decide(policy, candidates, holds: holds, running: running, now: now)
  }

  static func candidate(_ backup: CatalogedBackup) throws(TidemarkError) -> RetentionCandidate {
    let manifest = backup.manifest
    return RetentionCandidate(
      label: manifest.label, timeline: TimelineID(manifest.timeline), start: try manifest.start,
      stop: try manifest.stop, stopTime: manifest.stopTime, isSuspect: manifest.suspect != nil)
  }

  private func doomedManifests(
    _ view: LineageView, _ decisions: [BackupDecision], _ holds: [String: String]
  ) throws(TidemarkError) -> [RegionListing.Entry] {
    var labels = Set(decisions.filter(\.expires).map(\.candidate.label))
    if !outer.options.removes.isEmpty {
      labels = []
      for label in outer.options.removes where view.labelsWithManifest.contains(label) {
        let rules = decisions.first { $0.candidate.label == label }?.rules ?? []
        if let rule = rules.first(where: { [.newest, .hold, .runningBackup, .lastResort].contains($0) })
          ?? (holds[label] == nil ? nil : .hold)
        {
          throw TidemarkError(
            .backupProtected, "the backup can't be removed", object: label,
            cause: "it is protected as \(rule.rawValue)",
            kept: "everything", next: rule == .hold ? "tidemark release \(label)" : "take newer backups first")
        }
        labels.insert(label)
      }
    }
    var doomed: [RegionListing.Entry] = []
    for entry in view.listing.entries where entry.name.lastComponent == "manifest" {
      if let label = LineageView.label(of: entry.name), isSurrendered || labels.contains(label) { doomed.append(entry) }
    }
    return doomed
  }

  // MARK: Deleting manifests

  /// Deletes the manifests and returns the labels of those that no reachable region has any more.
  private func delete(
    _ doomed: [RegionListing.Entry], _ report: inout ExpireReport
  ) throws(TidemarkError) -> [String] {
    var expired: [String] = []
    for start in stride(from: 0, to: doomed.count, by: Self.manifestBatchCount) {
      let batch = Array(doomed[start..<min(doomed.count, start + Self.manifestBatchCount)])
      var bytes: [ObjectName: [UInt8]] = [:]
      // One that can't be read can't be put back either; only an explicit removal comes here with such.
      for entry in batch {
        do throws(TidemarkError) {
          bytes[entry.name] = try repository.readSealed(
            .manifest, entry.name, limit: Repository.manifestByteCountMax, mends: false
          ).sealed
        } catch {
          switch error.code {
          case .objectDamaged, .signatureInvalid, .writerNotTrusted, .formatVersionUnknown, .noKeyOpens,
            .objectNotFound:
            break
          // It may be held in this moment, and could not be put back: nothing of the batch was deleted yet.
          default: throw error
          }
        }
      }
      var deleter = RegionDeleter(repository.regions)
      let gone = try deleter.delete(batch, stage: "manifests")
      report.locked += deleter.locked
      report.findings += deleter.findings
      try step("manifests-deleted")
      let held = try heldLabels()
      for name in gone.sorted() {
        guard let label = LineageView.label(of: name) else { continue }
        guard held[label] != nil, let sealed = bytes[name] else {
          expired.append(label)
          continue
        }
        try repository.regions.create(name, sealed)
        report.remarks.append("\(label) was held while it was being deleted: its manifest was put back")
      }
      try settleDebts(gone)
    }
    return expired
  }

  /// A debt for an object that was just deleted everywhere would never be repaid.
  func settleDebts(_ gone: Set<ObjectName>) throws(TidemarkError) {
    if gone.isEmpty { return }
    for debt in try repository.regions.debts.debts() where gone.contains(debt.object) {
      try repository.regions.debts.settle(debt)
    }
  }
}
