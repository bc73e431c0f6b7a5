// Protection against an `expire` on another host while the backup runs: a lease, the look at the previous manifest after
// it, and the look at every pack before the manifest is written.
import BackupRepository
import Diagnostics
import PostgresFormats
import SystemSupport

extension BackupRun {
  /// Creates the lease and makes sure that the backup it names is still there.
  /// - Throws: `lease-expired` when that one expired in this moment.
  func takeLease(
    _ layout: LineageLayout, _ label: BackupLabelName, _ base: Base
  ) throws(TidemarkError) -> BackupLease {
    let lease = try BackupLease(
      repository, layout, label, predecessor: base.predecessor?.label,
      interrupted: Array(base.labels.suffix(base.interruptedCount)), length: options.leaseLength)
    guard let predecessor = base.predecessor else { return lease }
    let manifest = layout.manifest(predecessor.label)
    do throws(TidemarkError) {
      if try repository.regions.list(prefix: manifest.text).entries.contains(where: { $0.name == manifest }) {
        return lease
      }
    } catch {
      lease.release()
      throw error
    }
    lease.release()
    throw TidemarkError(
      .leaseExpired, "the backup that this one builds on expired in this moment", object: predecessor.label.text,
      kept: "the other backups", next: "take the backup again")
  }

  /// Makes sure that every pack that the manifest names is there, as far as the regions can be asked.
  /// - Throws: `object-not-found` naming one that every region says it lacks.
  func requirePacks(_ layout: LineageLayout, _ manifest: BackupManifest) throws(TidemarkError) {
    for reference in manifest.packs {
      try Termination.check()
      let label = try BackupLabelName(reference.label)
      let listing = try repository.regions.list(prefix: layout.packsPrefix(label), patience: options.walWaitLimit)
      guard listing.isComplete else { continue }
      let present = Set(listing.entries.map(\.name))
      if let missing = reference.numbers.first(where: { !present.contains(layout.pack(label, $0)) }) {
        throw TidemarkError(
          .objectNotFound, "a pack that the backup refers to is gone, so it can't be completed",
          object: layout.pack(label, missing).text, kept: "the earlier backups", next: "take the backup again")
      }
    }
  }

  /// Writes the manifest while the lease holds, and makes sure afterwards that it did.
  func commit(
    _ manifest: BackupManifest, _ layout: LineageLayout, _ label: BackupLabelName, _ lease: BackupLease
  ) throws(TidemarkError) {
    let name = layout.manifest(label)
    try requirePacks(layout, manifest)
    try lease.check()
    CrashPoint.reach("backup.before-manifest")
    try repository.regions.create(name, try repository.seal(.manifest, name, try manifest.encoded()))
    CrashPoint.reach("backup.after-manifest")
    // A host that slept between the check and the manifest may have lost what the manifest names.
    do throws(TidemarkError) { try lease.check() } catch { try requirePacks(layout, manifest) }
  }
}
