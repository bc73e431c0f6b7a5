// What `expire` sees of a lineage's backups at one moment: the manifests with their content, and the leases of backups
// whose manifest doesn't stand. Made twice: before manifests are deleted, and after.
import BackupRepository
import Diagnostics
import Foundation
import PostgresFormats
import SystemSupport

struct LineageView {
  /// A backup that is running, as far as its lease says.
  struct RunningBackup: Equatable {
    var label: String
    var predecessor: String?
    /// Backups without a manifest whose packs it refers to.
    var interrupted: [String] = []
    /// Whether the lease can't be read, so that it isn't known what the backup refers to.
    var isObscure = false
  }

  /// Tolerance for the clocks of stores and hosts.
  static let clockTolerance = 300.0
  private static let leaseByteCountMax = 64 << 10

  var listing: RegionListing
  var catalog: LineageCatalog
  var running: [RunningBackup] = []

  /// - Parameter known: a view from before, whose manifests aren't read again.
  init(
    _ repository: Repository, _ layout: LineageLayout, now: Double, known: LineageView? = nil
  ) throws(TidemarkError) {
    listing = try repository.regions.list(prefix: layout.backupsPrefix)
    var unread = listing
    if let known {
      let there = Set(listing.entries.map(\.name))
      let read = Set(known.catalog.backups.map { $0.layout.manifest($0.label) })
      unread.entries.removeAll { read.contains($0.name) }
      catalog = try repository.catalog(layout, listing: unread, mends: false)
      catalog.backups += known.catalog.backups.filter { there.contains($0.layout.manifest($0.label)) }
      catalog.sort()
    } else {
      catalog = try repository.catalog(layout, listing: unread, mends: false)
    }
    try findRunning(repository, layout, now)
  }

  /// The labels that have a manifest, readable or not.
  var labelsWithManifest: Set<String> {
    Set(listing.entries.filter { $0.name.lastComponent == "manifest" }.compactMap { Self.label(of: $0.name) })
  }

  /// The fourth component: CLUSTER/SYSTEM/backups/LABEL/… and CLUSTER/SYSTEM/packs/LABEL/….
  static func label(of name: ObjectName) -> String? {
    let parts = name.text.split(separator: "/")
    return parts.count >= 5 ? String(parts[3]) : nil
  }

  private mutating func findRunning(
    _ repository: Repository, _ layout: LineageLayout, _ now: Double
  ) throws(TidemarkError) {
    let finished = labelsWithManifest
    var leases: [String: RegionListing.Entry] = [:]
    for entry in listing.entries where entry.name.text.split(separator: "/").dropLast().last == "leases" {
      guard let label = Self.label(of: entry.name), !finished.contains(label) else { continue }
      // Later numbers follow in the listing.
      leases[label] = entry
    }
    for (label, entry) in leases.sorted(by: { $0.key < $1.key }) {
      var content = BackupLeaseContent(
        label: label, predecessor: nil, seconds: BackupLease.usualLength.seconds)
      var isObscure = false
      do throws(TidemarkError) {
        let (bytes, _) = try repository.readSealed(.lease, entry.name, limit: Self.leaseByteCountMax, mends: false)
        do { content = try JSONDecoder().decode(BackupLeaseContent.self, from: Data(bytes)) } catch {
          isObscure = true
        }
      } catch {
        switch error.code {
        case .objectDamaged, .signatureInvalid, .writerNotTrusted, .formatVersionUnknown, .noKeyOpens: isObscure = true
        // Its backup was completed or cleared away in this moment.
        case .objectNotFound: continue
        default: throw error
        }
      }
      if now - Double(entry.modified) < content.seconds + Self.clockTolerance {
        running.append(
          RunningBackup(
            label: label, predecessor: isObscure ? nil : content.predecessor, interrupted: content.interrupted ?? [],
            isObscure: isObscure))
      }
    }
  }
}
