// Which backup an incremental one builds on, and what of it can be used.
import BackupRepository
import Diagnostics
import Envelope
import PostgresFormats
import PostgresReplication

extension BackupRun {
  /// The backup that this one refers to.
  struct Base {
    var backup: CatalogedBackup
    /// The labels of the old table that packs still need, in the new table's order from 1.
    var keptLabels: [String]
    var table: PreviousFileTable
  }

  /// The newest usable backup of the lineage; `nil` for a full backup. What stands in the way is remarked, never fatal:
  /// a full backup is always right.
  func previousBackup(
    _ layout: LineageLayout, _ server: ServerInspection, _ remarks: inout [String]
  ) throws(TidemarkError) -> Base? {
    if options.isFull { return nil }
    do throws(TidemarkError) {
      let catalog = try repository.catalog(layout)
      guard
        let newest = catalog.backups.last(where: {
          $0.manifest.suspect == nil && $0.manifest.blockSize == Self.blockSize
        })
      else { return nil }
      let kept = newest.manifest.packs.map(\.label)
      let labels = newest.manifest.labels.map { label in kept.firstIndex(of: label).map { $0 + 1 } }
      let missing = try missingPacks(layout, newest.manifest)
      if !missing.isEmpty {
        remarks.append("\(missing.count) packs of earlier backups are in no region; their blocks are stored again")
      }
      let table = try PreviousFileTable(repository, newest, labels: labels, missingPacks: missing)
      return Base(backup: newest, keptLabels: kept, table: table)
    } catch {
      switch error.code {
      case .noKeyOpens, .writerNotTrusted, .objectDamaged, .signatureInvalid, .objectNotFound, .formatVersionUnknown:
        remarks.append("this backup is full, since the previous one can't be used: \(error.description)")
        return nil
      default: throw error
      }
    }
  }

  /// The packs that the manifest needs and no region lists. With a region that can't be asked nothing is known to be
  /// missing.
  private func missingPacks(
    _ layout: LineageLayout, _ manifest: BackupManifest
  ) throws(TidemarkError) -> Set<PreviousFileTable.PackID> {
    let listing = try repository.regions.list(prefix: layout.packsPrefix)
    guard listing.isComplete else { return [] }
    let present = Set(listing.entries.map(\.name))
    var missing: Set<PreviousFileTable.PackID> = []
    for (index, reference) in manifest.packs.enumerated() {
      let label = try BackupLabelName(reference.label)
      for number in reference.numbers where !present.contains(layout.pack(label, number)) {
        missing.insert(PreviousFileTable.PackID(label: index + 1, number: number))
      }
    }
    return missing
  }
}
