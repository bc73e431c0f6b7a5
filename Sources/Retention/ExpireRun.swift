// One run of `expire`. The order is that of a backup reversed: manifests first, then packs and file tables that no
// manifest names, then WAL. A run that ends anywhere leaves no manifest without its packs, and the next one goes on.
//
// Safe beside everything else, without a lock between hosts:
// - a running backup has a lease that names the backup it builds on (BackupLease); leases are looked at again after
//   manifests were deleted, and before anything that they could name is
// - what nothing names stays for the policy's grace (CondemnedJournal), for restores that began before
// - a manifest that was held in the very moment of its deletion is put back
// - another expire deletes the same; a second deletion of an object is none
import BackupRepository
import Configuration
import Diagnostics
import PostgresFormats
import SystemSupport

package struct ExpireOptions: Sendable {
  package var policy: RetentionPolicy
  package var isDryRun = false
  /// Only these backups, by their whole labels, whatever the policy keeps but its newest; WAL stays.
  package var removes: [String] = []
  /// Only this lineage, with all its backups and all its WAL, whatever the policy keeps.
  package var surrender: LineageSurrender?

  package init(_ policy: RetentionPolicy) { self.policy = policy }
}

package struct ExpireRun {
  /// A clock that differs more from a store's isn't believed about ages.
  private static let clockOffsetMax = 60.0

  let repository: Repository
  let options: ExpireOptions
  /// Called after each step, for tests that let something happen there.
  let onStep: (String) throws -> Void

  package init(
    _ repository: Repository, _ options: ExpireOptions, onStep: @escaping (String) throws -> Void = { _ in }
  ) {
    self.repository = repository
    self.options = options
    self.onStep = onStep
  }

  /// Applies the policy to each lineage.
  /// - Throws: `configuration-invalid` without a policy, `locked` when another expire of this cluster runs on this host,
  ///   `clock-skewed`, `backup-protected` and `backup-not-found` for ``ExpireOptions/removes`` and
  ///   ``ExpireOptions/surrender``, `lineage-in-use` for the latter, and what reading throws.
  package func run() throws(TidemarkError) -> ExpireReport {
    guard options.policy.hasRules || !options.removes.isEmpty || options.surrender != nil else {
      throw TidemarkError(
        .configurationInvalid, "no rule says which backups are kept, so none is deleted",
        next: "set 'retention' or 'retention-file' in the configuration, such as retention: {window: 30d}")
    }
    let locks = "\(repository.stateDirectory)/locks"
    try DurableFile.createDirectories(locks)
    let lock = try FileLock("\(locks)/expire-\(repository.layout.cluster)", purpose: "expire of this cluster")
    defer { withExtendedLifetime(lock) {} }
    var report = ExpireReport(isDryRun: options.isDryRun)
    let (lineages, failures) = try repository.lineages()
    report.regionsNotAsked.formUnion(failures.keys)
    try checkClocks()
    var removed: Set<String> = []
    for lineage in try judged(lineages) {
      let expiry = try LineageExpireRun(self, lineage).run(&report)
      removed.formUnion(expiry.expired)
      report.lineages.append(expiry)
    }
    if let missing = options.removes.first(where: { !removed.contains($0) }) {
      throw TidemarkError(
        .backupNotFound, "there is no such backup", object: missing, next: "'tidemark list' shows the labels")
    }
    for name in report.regionsNotAsked.sorted() {
      report.findings.append(
        "\(name) couldn't be asked: manifests expired elsewhere; packs and WAL wait for it, since a backup that it alone"
          + " holds may need them. The next run does the rest; --without-region \(name) doesn't wait")
    }
    return report
  }

  /// All lineages, or the one alone that is given up, if it may be.
  private func judged(_ lineages: [LineageLayout]) throws(TidemarkError) -> [LineageLayout] {
    guard let surrender = options.surrender else { return lineages }
    guard let layout = lineages.first(where: { $0.systemIdentifier == surrender.systemIdentifier }) else {
      throw TidemarkError(
        .backupNotFound, "there is no such lineage", object: surrender.systemIdentifier.description,
        next: "'tidemark list' shows the lineages")
    }
    let abandoned = AbandonedLineage(repository: repository, surrender: surrender, now: Double(wallClockSeconds()))
    try abandoned.require(layout, others: lineages.filter { $0 != layout })
    return [layout]
  }

  /// The labels of the backups from which the policy promises recovery to any later moment; all of them without rules,
  /// since nothing expires then.
  package static func continuousLabels(_ policy: RetentionPolicy, _ catalog: LineageCatalog) -> Set<String> {
    guard policy.hasRules else { return Set(catalog.backups.map(\.label.text)) }
    // A manifest that was read has valid positions.
    let candidates = catalog.backups.compactMap { try? LineageExpireRun.candidate($0) }
    let decisions = BackupRetention.decide(policy, candidates, now: Double(wallClockSeconds()))
    return Set(decisions.filter(\.isContinuous).map(\.candidate.label))
  }

  /// A clock that runs ahead would make every backup old.
  private func checkClocks() throws(TidemarkError) {
    for region in repository.regions.regions {
      guard let offset = region.store.clockOffset, abs(offset.seconds) > Self.clockOffsetMax else { continue }
      throw TidemarkError(
        .clockSkewed, "this host's clock isn't the region's, so the age of a backup can't be judged",
        object: region.name, cause: "the region's differs by \(Int(offset.seconds)) s", kept: "everything",
        next: "set this host's clock right (timedatectl)")
    }
  }
}
