// Listing what the regions hold, as a union with each object's holders.
import Diagnostics
import Glibc
import ObjectStorage
import Synchronization
import SystemSupport

/// What the regions that could be asked hold.
package struct RegionListing: Sendable {
  package struct Entry: Sendable, Equatable {
    package var name: ObjectName
    package var byteCount: Int64
    /// Seconds since 1970, the earliest that a region says.
    package var modified: Int64
    /// Indexes into ``RegionSet/regions``.
    package var holders: Set<Int>
    /// Whether two regions hold it with different sizes.
    package var sizesDiffer = false
  }
  /// Ascending by name.
  package var entries: [Entry] = []
  /// Indexes of the regions that answered.
  package var answered: Set<Int> = []
  /// Why the others did not.
  package var failures: [String: TidemarkError] = [:]

  /// Whether every region answered, so that what isn't listed isn't there.
  package var isComplete: Bool { failures.isEmpty }
}

extension RegionSet {
  /// Objects that are listed under one deadline: two pages of S3's ListObjectsV2.
  private static let stretchCount = 2000

  /// Lists the objects whose names begin with `prefix`, in all regions at once.
  ///
  /// A region that can't be asked is named in the result's failures, and costs ``ReadLimits/perRegion`` at most for the
  /// marker and for each stretch of ``stretchCount`` objects: a region that dies meanwhile isn't waited for longer.
  /// With `among` the other regions aren't asked, and are neither in the result nor among its failures.
  /// - Parameter patience: how long they are asked again and again while none answers and none refuses.
  /// - Throws: the first region's error when no region could be asked.
  package func list(
    prefix: String, startingAfter: ObjectName? = nil, among: [Region]? = nil, patience: Duration = .zero
  ) throws(TidemarkError) -> RegionListing {
    let deadline = Deadline.after(patience)
    var pause = Duration.milliseconds(100)
    while true {
      do throws(TidemarkError) { return try listOnce(prefix, startingAfter, among) } catch {
        guard !error.isDenial, error.code != .interrupted, let rest = deadline.remaining, rest > pause else {
          throw error
        }
      }
      usleep(UInt32(pause.milliseconds * 1000))
      try Termination.check()
      pause = min(pause * 2, .seconds(5))
    }
  }

  private func listOnce(
    _ prefix: String, _ startingAfter: ObjectName?, _ among: [Region]?
  ) throws(TidemarkError) -> RegionListing {
    let collected = Mutex<[Int: [ObjectInformation]]>([:])
    let asked = regions.enumerated().filter { entry in among.map { $0.contains { $0 === entry.element } } ?? true }
    let threads = asked.map { index, region in
      WorkerThread<Void>("list-\(region.name)") { [self] in
        guard try hasMarker(region, deadline: limit(region)) else { throw unmarked(region) }
        var found: [ObjectInformation] = []
        var after = startingAfter.map { region.key($0).text }
        var count = Self.stretchCount
        while count == Self.stretchCount {
          count = 0
          try region.request { store throws(TidemarkError) in
            try store.list(prefix: region.storePrefix(prefix), startingAfter: after, deadline: limit(region)) {
              found.append($0)
              count += 1
              return count < Self.stretchCount
            }
          }
          after = found.last?.key.text
        }
        collected.withLock { $0[index] = found }
      }
    }
    var listing = RegionListing()
    for (index, thread) in zip(asked.map(\.offset), threads) {
      do throws(TidemarkError) {
        try thread.join()
        listing.answered.insert(index)
      } catch {
        listing.failures[regions[index].name] = error
        log.record(.failed, region: regions[index].name, detail: error.description)
      }
    }
    if let interrupted = listing.failures.values.first(where: { $0.code == .interrupted }) { throw interrupted }
    if listing.answered.isEmpty, let error = listing.failures.values.first { throw error }
    merge(collected.withLock { $0 }, into: &listing)
    return listing
  }

  private func merge(_ collected: [Int: [ObjectInformation]], into listing: inout RegionListing) {
    var entries: [ObjectName: RegionListing.Entry] = [:]
    for (index, objects) in collected {
      for object in objects {
        guard let name = regions[index].name(of: object.key) else { continue }
        if var entry = entries[name] {
          entry.holders.insert(index)
          entry.modified = min(entry.modified, object.modified)
          if entry.byteCount != object.byteCount { entry.sizesDiffer = true }
          entries[name] = entry
        } else {
          entries[name] = RegionListing.Entry(
            name: name, byteCount: object.byteCount, modified: object.modified, holders: [index])
        }
      }
    }
    listing.entries = entries.values.sorted { $0.name < $1.name }
  }
}
