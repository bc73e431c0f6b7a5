// What backups a repository holds, lineage by lineage, read from the manifests in the regions: there is no catalogue
// file that could contradict them.
import Diagnostics
import Envelope
import PostgresFormats
import SystemSupport

/// A complete backup, with where it is.
package struct CatalogedBackup: Sendable {
  package var manifest: BackupManifest
  package var label: BackupLabelName
  package var layout: LineageLayout
  /// Of the sealed manifest, in hexadecimal.
  package var manifestDigest: String
  /// The regions whose listing has the manifest.
  package var regions: [String]
}

/// A manifest that is there and can't be used, with the reason: never hidden from a list.
package struct UnusableBackup: Sendable {
  package var name: ObjectName
  package var error: TidemarkError
}

/// The backups of one lineage, ordered by timeline and stop LSN, not by a clock.
package struct LineageCatalog: Sendable {
  package var layout: LineageLayout
  package var backups: [CatalogedBackup] = []
  package var unusable: [UnusableBackup] = []
  /// Whether every region answered, so that what isn't here is in no region.
  package var isComplete = true
  package var systemIdentifier: SystemIdentifier { layout.systemIdentifier }

  /// Orders the backups by timeline, then by stop LSN.
  package mutating func sort() {
    // A manifest that was decoded has valid positions.
    func lsn(_ backup: CatalogedBackup) -> UInt64 { (try? backup.manifest.stop)?.rawValue ?? 0 }
    backups.sort { left, right in
      (left.manifest.timeline, lsn(left), left.manifest.label) < (
        right.manifest.timeline, lsn(right), right.manifest.label
      )
    }
  }
}

extension Repository {
  /// Plaintext bytes accepted for a manifest: settings and captured files are its bulk.
  package static let manifestByteCountMax = 64 << 20

  /// The lineages that any reachable region holds, ascending by system identifier.
  package func lineages() throws(TidemarkError) -> (lineages: [LineageLayout], failures: [String: TidemarkError]) {
    // One listing for each region, of everything below the cluster, would page through all packs: instead hop from
    // lineage to lineage by the key after all keys of the last one.
    var found: Set<SystemIdentifier> = []
    var failures: [String: TidemarkError] = [:]
    for region in regions.regions {
      do throws(TidemarkError) {
        let limit = regions.limit(region)
        guard try isMarked(region, deadline: limit) else { throw regions.unmarked(region) }
        var after: String? = nil
        while let identifier = try firstLineage(in: region, after: after, deadline: limit) {
          if let valid = identifier.identifier { found.insert(valid) }
          after = identifier.text
        }
      } catch {
        if error.code == .interrupted { throw error }
        regions.log.record(.failed, region: region.name, detail: error.description)
        failures[region.name] = error
      }
    }
    if failures.count == regions.regions.count, let error = failures.values.first { throw error }
    return (found.sorted { $0.rawValue < $1.rawValue }.map(layout.lineage), failures)
  }

  /// The first component below the cluster that follows `after`.
  private func firstLineage(
    in region: Region, after: String?, deadline: Deadline
  ) throws(TidemarkError) -> (text: String, identifier: SystemIdentifier?)? {
    let prefix = region.storePrefix(layout.prefix)
    var component: String?
    try region.request { store throws(TidemarkError) in
      // '~' sorts behind every character of a key, so this is past all keys of the component.
      try store.list(prefix: prefix, startingAfter: after.map { "\(prefix)\($0)/~" }, deadline: deadline) { object in
        component = object.key.text.dropFirst(prefix.count).split(separator: "/").first.map(String.init)
        return false
      }
    }
    return component.map { ($0, SystemIdentifier(text: $0)) }
  }

  /// The backups of `lineage`. Manifests are opened with the identities or the writer's own key.
  package func catalog(_ lineage: LineageLayout) throws(TidemarkError) -> LineageCatalog {
    try catalog(lineage, listing: try regions.list(prefix: lineage.backupsPrefix))
  }

  /// The same from a listing of what is below the lineage's backups. Without `mends` nothing is written.
  package func catalog(
    _ lineage: LineageLayout, listing: RegionListing, mends: Bool = true
  ) throws(TidemarkError) -> LineageCatalog {
    var catalog = LineageCatalog(layout: lineage)
    catalog.isComplete = listing.isComplete
    for entry in listing.entries where entry.name.lastComponent == "manifest" {
      do throws(TidemarkError) {
        let parts = entry.name.text.split(separator: "/")
        let label = try BackupLabelName(String(parts[parts.count - 2]))
        let (plaintext, sealed) = try readSealed(
          .manifest, entry.name, limit: Self.manifestByteCountMax, mends: mends)
        let manifest = try BackupManifest(decoding: plaintext)
        guard manifest.label == label.text, manifest.systemIdentifier == lineage.systemIdentifier.description else {
          throw TidemarkError(.objectDamaged, "the manifest is another backup's", object: entry.name.text)
        }
        catalog.backups.append(
          CatalogedBackup(
            manifest: manifest, label: label, layout: lineage, manifestDigest: SHA256Digest.of(sealed).hexadecimal,
            regions: entry.holders.sorted().map { regions.regions[$0].name }))
      } catch {
        if error.code == .interrupted || error.code == .noKeyOpens { throw error }
        // Every region said that it isn't there: it expired since it was listed.
        if error.code == .objectNotFound { continue }
        catalog.unusable.append(UnusableBackup(name: entry.name, error: error))
      }
    }
    catalog.sort()
    return catalog
  }
}
