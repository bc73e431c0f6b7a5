// All regions of a repository, as one place to create objects in and read them from. This is where one buffer goes
// to all regions, where durability is counted, where reads fall over, and where what is missing or damaged is mended.
//
// It never overwrites: the one deletion is that of a copy that is proven damaged while a good one is in hand.
import Diagnostics
import ObjectStorage
import Synchronization
import SystemSupport

/// When an object counts as durable.
package struct DurabilityPolicy: Sendable, Equatable {
  /// How many regions must hold an object before it is acknowledged.
  package var required: Int
  /// How long a region may fail before one region is enough and the missing copy becomes a debt.
  package var degradeAfter: Duration

  package init(required: Int, degradeAfter: Duration) {
    self.required = required
    self.degradeAfter = degradeAfter
  }
}

/// The limits of reading.
package struct ReadLimits: Sendable {
  /// How long one region is asked before the next one is. A body that comes isn't cut by it.
  package var perRegion: Duration = .seconds(5)
  /// How long all regions together are asked, again and again, before the read gives up.
  package var total: Duration = .seconds(60)
  /// The same where all that is left to ask refuse: credentials may be about to be renewed, and a wrong key won't mend.
  package var denial: Duration = .seconds(5)
  package init() {}
}

package final class RegionSet: Sendable {
  package let regions: [Region]
  package let policy: DurabilityPolicy
  package let debts: DebtJournal
  package let log: RegionEventLog
  package let readLimits: ReadLimits
  /// The marker, without which a region's "not there" proves nothing.
  let marker: ObjectName
  private let markerSeen = Mutex<Set<String>>([])

  package init(
    regions: [Region], policy: DurabilityPolicy, marker: ObjectName, debts: DebtJournal, log: RegionEventLog,
    readLimits: ReadLimits = ReadLimits()
  ) {
    precondition(!regions.isEmpty)
    self.regions = regions
    self.policy = policy
    self.marker = marker
    self.debts = debts
    self.log = log
    self.readLimits = readLimits
  }

  /// The regions, fastest first; those that fail come last.
  package var byPreference: [Region] {
    regions.enumerated().sorted { ($0.element.slowness, $0.offset) < ($1.element.slowness, $1.offset) }.map(\.element)
  }

  /// The same set with one region alone, for `--from-region`.
  /// - Throws: `usage` when there is no such region.
  package func only(_ name: String) throws(TidemarkError) -> RegionSet {
    guard let region = regions.first(where: { $0.name == name }) else {
      throw TidemarkError(
        .usage, "no such region", object: name,
        next: "choose one of: \(regions.map(\.name).joined(separator: ", "))")
    }
    return RegionSet(
      regions: [region], policy: DurabilityPolicy(required: 1, degradeAfter: policy.degradeAfter), marker: marker,
      debts: debts, log: log, readLimits: readLimits)
  }

  /// The same set without the regions `names`.
  /// - Throws: `usage` when one isn't here, or none is left.
  package func without(_ names: [String]) throws(TidemarkError) -> RegionSet {
    for name in names { _ = try only(name) }
    let left = regions.filter { !names.contains($0.name) }
    guard !left.isEmpty else { throw TidemarkError(.usage, "no region is left", next: "leave one in") }
    return RegionSet(
      regions: left,
      policy: DurabilityPolicy(required: min(policy.required, left.count), degradeAfter: policy.degradeAfter),
      marker: marker, debts: debts, log: log, readLimits: readLimits)
  }

  /// How long `region` may be asked, where the others can be asked as well. One that is known to fail gets one attempt
  /// while another is well.
  func limit(_ region: Region, _ limits: ReadLimits? = nil) -> Deadline {
    let limits = limits ?? readLimits
    if regions.count == 1 { return .after(limits.total) }
    let isOutdone = region.health.failingFor != nil && regions.contains { $0.health.failingFor == nil }
    return .after(isOutdone ? .zero : limits.perRegion)
  }

  /// Asks a region that is known to fail for its marker, once. Returns whether it is well again.
  func probe(_ region: Region) -> Bool {
    do throws(TidemarkError) {
      _ = try region.request { store throws(TidemarkError) in
        try store.information(region.key(marker), deadline: .after(.zero))
      }
      log.record(.recovered, region: region.name)
      return true
    } catch {
      log.record(.failed, region: region.name, detail: error.description)
      return false
    }
  }

  /// Whether the region holds the repository's marker, so that its "not there" is an answer about this repository.
  func hasMarker(_ region: Region, deadline: Deadline) throws(TidemarkError) -> Bool {
    if markerSeen.withLock({ $0.contains(region.name) }) { return true }
    let found = try region.request { store throws(TidemarkError) in
      try store.information(region.key(marker), deadline: deadline) != nil
    }
    if found { markerSeen.withLock { _ = $0.insert(region.name) } }
    return found
  }

  /// The error for a region that answers without the marker.
  func unmarked(_ region: Region) -> TidemarkError {
    TidemarkError(
      .repositoryMissing, "the region lacks the repository's marker, so its 'not there' proves nothing",
      object: region.name, next: "'tidemark init' marks a new region; check its bucket and prefix")
  }
}
