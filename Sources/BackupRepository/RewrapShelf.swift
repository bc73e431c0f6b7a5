// Looks up data keys that were wrapped anew, for objects whose own header no identity here opens. Nobody else pays: an
// object that opens by its header costs no request, and a host without an identity never asks.
import Diagnostics
import Envelope
import ObjectStorage
import Synchronization

final class RewrapShelf: Sendable {
  /// Groups in memory, at most 4 MiB for each of their tables; then all are dropped.
  private static let groupCountMax = 32

  private struct Group {
    var tables: [DataKeyTable] = []
    /// Why some of its re-wraps can't be used.
    var refusals: [String] = []
    /// Why a region couldn't be asked, which may hold more of them.
    var gap: TidemarkError?
  }

  private let regions: RegionSet
  private let keys: RepositoryKeys
  private let groups = Mutex<[RewrapGroup: Group]>([:])
  /// Held while a group is fetched: threads that open objects of one backup ask for the same.
  private let fetching = Mutex<Void>(())

  init(_ regions: RegionSet, _ keys: RepositoryKeys) {
    self.regions = regions
    self.keys = keys
  }

  /// The data key of the object `name` with this header; `nil` when no re-wrap has it for an identity of this host.
  /// - Throws: `region-unreachable` when that isn't known; `no-key-opens` when there are re-wraps that can't be used.
  func key(_ name: ObjectName, _ header: SealedHeader) throws(TidemarkError) -> DataKey? {
    guard !keys.identities.isEmpty, let group = RewrapGroup(of: name) else { return nil }
    let digest = header.digest
    let found: Group
    do throws(TidemarkError) { found = try fetched(group) } catch {
      if error.code == .interrupted || error.code == .internalFault { throw error }
      throw Self.unknown(name, error)
    }
    for table in found.tables { if let key = table[digest] { return key } }
    if let gap = found.gap { throw Self.unknown(name, gap) }
    if found.refusals.isEmpty { return nil }
    throw TidemarkError(
      .noKeyOpens, "no identity here opens the object, and re-wraps that may have its key can't be used",
      object: name.text, cause: found.refusals.joined(separator: "; "), kept: "the object, unchanged",
      next: "'tidemark verify' examines the re-wraps; with an older identity the object opens without them")
  }

  /// Never the code of the re-wrap's own fault: the object would be taken for damaged.
  private static func unknown(_ name: ObjectName, _ error: TidemarkError) -> TidemarkError {
    TidemarkError(
      .regionUnreachable, "it isn't known whether the object's key was wrapped anew for an identity here",
      object: name.text, cause: error.description)
  }

  private func fetched(_ group: RewrapGroup) throws(TidemarkError) -> Group {
    try fetching.withLock { _ throws(TidemarkError) in
      if let known = groups.withLock({ $0[group] }) { return known }
      let listing = try regions.list(prefix: group.prefix)
      var result = try fetch(listing)
      result.gap = listing.failures.values.first
      // What isn't known whole is asked for anew each time.
      if listing.isComplete {
        groups.withLock { groups in
          if groups.count >= Self.groupCountMax { groups.removeAll() }
          groups[group] = result
        }
      }
      return result
    }
  }

  private func fetch(_ listing: RegionListing) throws(TidemarkError) -> Group {
    var group = Group()
    for entry in listing.entries {
      do throws(TidemarkError) {
        if let table = try Self.table(entry.name, regions, keys) { group.tables.append(table) }
      } catch {
        switch error.code {
        // Expired since it was listed.
        case .objectNotFound: break
        case .objectDamaged, .signatureInvalid, .writerNotTrusted, .formatVersionUnknown:
          group.refusals.append("\(entry.name): \(error.description)")
        default: throw error
        }
      }
    }
    return group
  }

  /// The table of the re-wrap `name`; `nil` when it is sealed to none of the identities here. Without `mends` nothing is
  /// written: a `verify --no-mend` and a dry run look here too.
  static func table(
    _ name: ObjectName, _ regions: RegionSet, _ keys: RepositoryKeys, mends: Bool = false
  ) throws(TidemarkError) -> DataKeyTable? {
    do throws(TidemarkError) {
      return try regions.read(name, mends: mends) { bytes, _ in
        let object = try SealedObject.open(
          bytes, expectedName: name.text, expectedKind: .rewrap, trustedWriters: keys.trustedWriters,
          identities: keys.identities)
        return try DataKeyTable(decoding: try object.readAll(limit: DataKeyTable.byteCountMax))
      }
    } catch {
      if error.code == .noKeyOpens { return nil }
      throw error
    }
  }
}
