// What should be there and isn't, from listings and manifests alone: packs and parts that a manifest names, and WAL.
import BackupRepository
import Diagnostics
import PostgresFormats

struct ExistenceCheck {
  private let repository: Repository
  private let lineage: LineageLayout
  private let options: VerificationOptions

  init(_ repository: Repository, _ lineage: LineageLayout, _ options: VerificationOptions) {
    self.repository = repository
    self.lineage = lineage
    self.options = options
  }

  func findings(_ listing: RegionListing) throws(TidemarkError) -> [VerificationFinding] {
    var findings: [VerificationFinding] = []
    var backups = listing
    backups.entries.removeAll { !$0.name.text.hasPrefix(lineage.backupsPrefix) }
    let catalog = try repository.catalog(lineage, listing: backups, mends: false)
    for unusable in catalog.unusable {
      findings.append(VerificationFinding(.unusable, unusable.name.text, detail: unusable.error.description))
    }
    let present = Set(listing.entries.map(\.name))
    let notAsked = listing.isComplete ? "" : "; not asked: \(listing.failures.keys.sorted().joined(separator: ", "))"
    for backup in catalog.backups {
      var needed = (1...backup.manifest.fileTableParts).map { lineage.fileTablePart(backup.label, $0) }
      for reference in backup.manifest.packs {
        let label = try BackupLabelName(reference.label)
        needed += reference.numbers.map { lineage.pack(label, $0) }
      }
      for name in needed where !present.contains(name) {
        findings.append(
          VerificationFinding(
            .lost, name.text, detail: "the backup \(backup.label) needs it, no region holds it\(notAsked)"))
      }
    }
    return findings + (try walFindings(catalog))
  }

  private func walFindings(_ catalog: LineageCatalog) throws(TidemarkError) -> [VerificationFinding] {
    guard let newest = catalog.backups.last, let size = WALSegmentSize(byteCount: newest.manifest.walSegmentSize)
    else { return [] }
    let wal: WALCatalog
    do throws(TidemarkError) { wal = try repository.walCatalog(lineage, segmentSize: size) } catch {
      switch error.code {
      // A history that can't be read is found when it is read; without it nothing is known of the paths.
      case .objectDamaged, .signatureInvalid, .writerNotTrusted, .formatVersionUnknown, .noKeyOpens, .walFileInvalid:
        return [VerificationFinding(.unusable, error.object ?? lineage.walPrefix, detail: error.description)]
      default: throw error
      }
    }
    let continuous = options.continuous(catalog)
    var demands: [WALDemand] = []
    for backup in catalog.backups {
      demands.append(
        WALDemand(
          label: backup.label.text, timeline: TimelineID(backup.manifest.timeline), start: try backup.manifest.start,
          stop: try backup.manifest.stop, isContinuous: continuous.contains(backup.label.text)))
    }
    return WALContinuity.holes(wal, demands).map { hole in
      let upTo = hole.first == hole.last ? "" : " to \(hole.last)"
      return VerificationFinding(
        .walHole, lineage.wal(.segment(hole.first)).text, detail: "\(hole.first)\(upTo) is missing: \(hole.reason)")
    }
  }
}
