// Looks up data keys that were wrapped anew, for objects whose own header no identity here opens. Nobody else pays: an
// object that opens by its header costs no request, and a host without an identity never asks.
import Diagnostics
import Envelope
import ObjectStorage
import Synchronization
import SystemSupport

final class RewrapShelf: Sendable {
  /// Groups in memory, at most 4 MiB for each of their tables; then all are dropped.
  private static let groupCountMax = 32
  /// How long a region that couldn't be asked isn't asked again.
  private static let retryInterval = Duration.seconds(5)

  private struct Group {
    /// By their names; `nil` for one that is closed to this host or can't be used.
    var tables: [ObjectName: DataKeyTable?] = [:]
    /// Why some of them can't be used.
    var refusals: [String] = []
    /// Regions whose re-wraps of the group are all here.
    var asked: Set<String> = []
    /// Why others couldn't be asked, and until when they aren't.
    var failures: [String: TidemarkError] = [:]
    var retry = Deadline.never

    func key(_ header: SHA256Digest) -> DataKey? {
      for case let table? in tables.values { if let key = table[header] { return key } }
      return nil
    }
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
    let found: (key: DataKey?, group: Group)
    do throws(TidemarkError) { found = try search(group, header.digest) } catch {
      if error.code == .interrupted || error.code == .internalFault { throw error }
      throw Self.unknown(name, error)
    }
    if let key = found.key { return key }
    if let failure = found.group.failures.values.first { throw Self.unknown(name, failure) }
    if found.group.refusals.isEmpty { return nil }
    throw TidemarkError(
      .noKeyOpens, "no identity here opens the object, and re-wraps that may have its key can't be used",
      object: name.text, cause: found.group.refusals.joined(separator: "; "), kept: "the object, unchanged",
      next: "'tidemark verify' examines the re-wraps; with an older identity the object opens without them")
  }

  /// Never the code of the re-wrap's own fault: the object would be taken for damaged.
  private static func unknown(_ name: ObjectName, _ error: TidemarkError) -> TidemarkError {
    TidemarkError(
      .regionUnreachable, "it isn't known whether the object's key was wrapped anew for an identity here",
      object: name.text, cause: error.description)
  }

  /// Asks the best region first, and the others only for what it doesn't have: one that is down isn't waited for.
  private func search(
    _ group: RewrapGroup, _ header: SHA256Digest
  ) throws(TidemarkError) -> (key: DataKey?, group: Group) {
    try fetching.withLock { _ throws(TidemarkError) in
      var known = groups.withLock { $0[group] } ?? Group()
      if let key = known.key(header) { return (key, known) }
      if !known.failures.isEmpty, !known.retry.hasPassed { return (nil, known) }
      let rest = regions.byPreference.filter { !known.asked.contains($0.name) }
      for wave in [rest.prefix(1), rest.dropFirst()] where !wave.isEmpty {
        try ask(Array(wave), group, &known)
        groups.withLock { groups in
          if groups.count >= Self.groupCountMax { groups.removeAll() }
          groups[group] = known
        }
        if let key = known.key(header) { return (key, known) }
      }
      return (nil, known)
    }
  }

  private func ask(_ wave: [Region], _ group: RewrapGroup, _ known: inout Group) throws(TidemarkError) {
    let listing: RegionListing
    do throws(TidemarkError) { listing = try regions.list(prefix: group.prefix, among: wave) } catch {
      if error.code == .interrupted || error.code == .internalFault { throw error }
      for region in wave { known.failures[region.name] = error }
      known.retry = .after(Self.retryInterval)
      return
    }
    for entry in listing.entries where known.tables.index(forKey: entry.name) == nil {
      do throws(TidemarkError) {
        known.tables.updateValue(try Self.table(entry.name, regions, keys), forKey: entry.name)
      } catch {
        switch error.code {
        // Expired since it was listed.
        case .objectNotFound: break
        case .objectDamaged, .signatureInvalid, .writerNotTrusted, .formatVersionUnknown:
          known.tables.updateValue(nil, forKey: entry.name)
          known.refusals.append("\(entry.name): \(error.description)")
        default: throw error
        }
      }
    }
    for name in listing.answered.map({ regions.regions[$0].name }) {
      known.asked.insert(name)
      known.failures[name] = nil
    }
    if listing.isComplete { return }
    known.failures.merge(listing.failures) { $1 }
    known.retry = .after(Self.retryInterval)
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
