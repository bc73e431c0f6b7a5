// Asks the regions and this host's state directory for everything that `status` shows. What can't be found out is said
// and never stops the rest: status is asked when something is wrong.
import BackupRepository
import Diagnostics
import Envelope
import Foundation
import ObjectStorage
import PostgresFormats
import SystemSupport

package struct StatusGathering {
  /// How long a region may take to say that it is there.
  private static let regionLimit = Duration.seconds(10)
  private static let drillByteCountMax = 16 << 20
  /// Segments that are looked at for a stretch's last commit: status is asked often.
  private static let commitSearch = 16

  private let repository: Repository
  private let continuous: (LineageCatalog) -> Set<String>

  /// - Parameter continuous: the labels of the backups from which all WAL is promised.
  package init(_ repository: Repository, continuous: @escaping (LineageCatalog) -> Set<String>) {
    self.repository = repository
    self.continuous = continuous
  }

  /// - Throws: `interrupted`, and `local-io` when the state directory can't be read.
  package func gather() throws(TidemarkError) -> RepositoryStatus {
    var status = RepositoryStatus(now: Double(wallClockSeconds()))
    let debts = Dictionary(grouping: try repository.regions.debts.debts(), by: \.region)
    for region in repository.regions.regions {
      status.regions.append(try self.region(region, debts: debts[region.name]?.count ?? 0))
    }
    for (name, owed) in debts where !repository.regions.regions.contains(where: { $0.name == name }) {
      status.unknown.append("\(owed.count) objects are owed to \(name), which the configuration doesn't have")
    }
    status.verification = VerificationJournal(
      stateDirectory: repository.stateDirectory, cluster: repository.layout.cluster
    ).finished()
    do throws(TidemarkError) {
      for layout in try repository.lineages().lineages { status.lineages.append(try lineage(layout, &status.unknown)) }
    } catch { try Self.note(error, "the lineages", &status.unknown) }
    return status
  }

  private static func note(_ error: TidemarkError, _ what: String, _ unknown: inout [String]) throws(TidemarkError) {
    if error.code == .interrupted { throw error }
    unknown.append("\(what): \(error.description)")
  }

  private func region(_ region: Region, debts: Int) throws(TidemarkError) -> RegionStatus {
    var status = RegionStatus(name: region.name, location: region.store.location, debts: debts)
    do throws(TidemarkError) {
      if try !repository.isMarked(region, deadline: .after(Self.regionLimit)) {
        status.failure = "it lacks the repository's marker: 'tidemark init' marks a new region"
      }
    } catch {
      if error.code == .interrupted { throw error }
      status.failure = error.description
    }
    status.failingForSeconds = region.health.failingFor?.seconds
    status.clockOffsetSeconds = region.store.clockOffset?.seconds
    return status
  }

  private func lineage(
    _ layout: LineageLayout, _ unknown: inout [String]
  ) throws(TidemarkError) -> LineageStatus {
    var status = LineageStatus(systemIdentifier: layout.systemIdentifier)
    do throws(TidemarkError) {
      let listing = try repository.regions.list(prefix: layout.backupsPrefix)
      let catalog = try repository.catalog(layout, listing: listing, mends: false)
      status.backupCount = catalog.backups.count
      status.newest = catalog.backups.last.map(Self.newest)
      status.newestGood = catalog.backups.last { $0.manifest.suspect == nil }.map(Self.newest)
      status.unusable = catalog.unusable.map(\.name.text)
      try wal(catalog, &status)
    } catch { try Self.note(error, "backups and WAL of \(layout.systemIdentifier)", &unknown) }
    do throws(TidemarkError) { status.holds = try repository.holds(layout, mends: false) } catch {
      try Self.note(error, "holds of \(layout.systemIdentifier)", &unknown)
    }
    do throws(TidemarkError) { status.drill = try drill(layout) } catch {
      try Self.note(error, "drills of \(layout.systemIdentifier)", &unknown)
    }
    return status
  }

  private static func newest(_ backup: CatalogedBackup) -> NewestBackup {
    NewestBackup(
      label: backup.label.text, stopTime: backup.manifest.stopTime, isSuspect: backup.manifest.suspect != nil)
  }

  private func wal(_ catalog: LineageCatalog, _ status: inout LineageStatus) throws(TidemarkError) {
    guard let newest = catalog.backups.last, let size = WALSegmentSize(byteCount: newest.manifest.walSegmentSize)
    else { return }
    let wal = try repository.walCatalog(catalog.layout, segmentSize: size)
    let found = try repository.recoverability(catalog, wal, commitSearch: Self.commitSearch)
    status.window =
      found.windows.first(where: \.isNewest)
      ?? found.windows.first { $0.backups.contains { $0.label == newest.label } }
    let inside = Set((status.window?.backups ?? []).map(\.label))
    status.singleMoments = catalog.backups.map(\.label).filter { !inside.contains($0) }.map(\.text)
    let promised = continuous(catalog)
    var demands: [WALDemand] = []
    for backup in catalog.backups {
      demands.append(
        WALDemand(
          label: backup.label.text, timeline: TimelineID(backup.manifest.timeline), start: try backup.manifest.start,
          stop: try backup.manifest.stop, isContinuous: promised.contains(backup.label.text)))
    }
    status.walHoles = WALContinuity.holes(wal, demands)
  }

  /// The fields of a drill's report that count here.
  private struct DrillFields: Decodable {
    var ok: Bool?
    var rtoSeconds: Double?
    var rtoMet: Bool?
    var rpoMet: Bool?
  }

  private func drill(_ layout: LineageLayout) throws(TidemarkError) -> DrillStatus? {
    let listing = try repository.regions.list(prefix: layout.drillsPrefix)
    // Names begin with their time, so the last one is the newest.
    guard let entry = listing.entries.last else { return nil }
    var status = DrillStatus(name: entry.name.lastComponent, stored: Double(entry.modified))
    do throws(TidemarkError) {
      let (document, sealed) = try repository.readSealed(
        .report, entry.name, limit: Self.drillByteCountMax, mends: false)
      status.stored = Double(try SealedHeader.parse(sealed).created) / 1e6
      // A report of another version counts as one without a result.
      if let fields = try? JSONDecoder().decode(DrillFields.self, from: Data(document)) {
        status.ok = fields.ok
        status.rtoSeconds = fields.rtoSeconds
        status.rtoMet = fields.rtoMet
        status.rpoMet = fields.rpoMet
      }
    } catch { if error.code != .noKeyOpens { throw error } }
    return status
  }
}
