// Whether a lineage may be given up whole: only one that was left behind, as after `pg_upgrade`. What is alive is refused
// by what the stores say, not by this host's idea of it: a lineage that anything was written to lately, or since another
// one was last backed up, isn't abandoned.
import BackupRepository
import Diagnostics
import PostgresFormats
import SystemSupport

/// The lineage that `expire` is told to give up.
package struct LineageSurrender: Sendable {
  package var systemIdentifier: SystemIdentifier
  /// Give it up though no other lineage of the cluster has a good backup.
  package var needsNoSuccessor = false
  /// What the clusters that this host knows of are.
  package var live: Set<SystemIdentifier> = []

  package init(_ systemIdentifier: SystemIdentifier) { self.systemIdentifier = systemIdentifier }
}

struct AbandonedLineage {
  /// For so long nothing was written to it. Longer than a lease holds: no backup of it can be running.
  static let quietMin = Duration.seconds(2 * 86400)

  let repository: Repository
  let surrender: LineageSurrender
  let now: Double

  /// Makes sure that `layout` was left behind and that nothing of it is held.
  /// - Throws: `lineage-in-use`, `backup-protected`, and what asking a region throws: with one that can't be asked
  ///   nobody knows what was written there.
  func require(_ layout: LineageLayout, others: [LineageLayout]) throws(TidemarkError) {
    if surrender.live.contains(layout.systemIdentifier) {
      throw inUse("the cluster of this host has this system identifier", next: "name the lineage that was left behind")
    }
    let held = try repository.holds(layout, mends: false)
    let manifests = try list(layout.backupsPrefix).entries.filter { $0.name.lastComponent == "manifest" }
    let labels = Set(manifests.compactMap { LineageView.label(of: $0.name) })
    if let hold = held.first(where: { labels.contains($0.label.text) }) {
      throw TidemarkError(
        .backupProtected, "the lineage can't be given up", object: hold.label.text,
        cause: "this backup is held\(hold.reason.isEmpty ? "" : ": \(hold.reason)")", kept: "everything",
        next: "tidemark release \(hold.label)")
    }
    var written: Int64 = 0
    for prefix in [layout.backupsPrefix, layout.packsPrefix, layout.walPrefix] {
      written = max(written, try list(prefix).entries.map(\.modified).max() ?? 0)
    }
    let quiet = now - Double(written)
    if quiet < Self.quietMin.seconds {
      throw inUse(
        "its last object was written \(Int(max(0, quiet) / 3600)) hours ago",
        next: "wait until nothing was written to it for \(Int(Self.quietMin.seconds / 3600)) hours")
    }
    if surrender.needsNoSuccessor { return }
    for other in others {
      for backup in try repository.catalog(other, listing: try list(other.backupsPrefix), mends: false).backups
      where backup.manifest.suspect == nil {
        let name = other.manifest(backup.label)
        // By the stores' clocks: positions of two lineages can't be compared.
        if let entry = try list(name.text).entries.first(where: { $0.name == name }), entry.modified > written {
          return
        }
      }
    }
    throw inUse(
      "no other lineage of the cluster has a good backup that is newer than everything in it",
      next: "back up the cluster that took its place; --no-successor gives up the last one of a cluster that is no more"
    )
  }

  private func list(_ prefix: String) throws(TidemarkError) -> RegionListing {
    let listing = try repository.regions.list(prefix: prefix)
    if let failure = listing.failures.min(by: { $0.key < $1.key }) { throw failure.value }
    return listing
  }

  private func inUse(_ cause: String, next: String) -> TidemarkError {
    TidemarkError(
      .lineageInUse, "the lineage can't be given up", object: surrender.systemIdentifier.description, cause: cause,
      kept: "everything", next: next)
  }
}
