// Deletes objects in every region that holds them. A region that fails or refuses is reported and passed over: what is
// left there is found again by the next run's listing.
import BackupRepository
import Diagnostics
import ObjectStorage
import SystemSupport

struct RegionDeleter {
  /// Objects that one request deletes: as many as S3's DeleteObjects takes.
  private static let batchCount = 1000
  private static let batchLimit = Duration.seconds(120)

  let regions: RegionSet
  private(set) var locked: [RefusedDeletion] = []
  private(set) var findings: [String] = []

  init(_ regions: RegionSet) { self.regions = regions }

  /// Deletes `entries`, in their order.
  /// - Returns: the names that no region holds any more, as far as the listing knew.
  mutating func delete(_ entries: [RegionListing.Entry], stage: String) throws(TidemarkError) -> Set<ObjectName> {
    var left: Set<ObjectName> = []
    for (index, region) in regions.regions.enumerated() {
      let held = entries.filter { $0.holders.contains(index) }
      for start in stride(from: 0, to: held.count, by: Self.batchCount) {
        try Termination.check()
        let batch = held[start..<min(held.count, start + Self.batchCount)]
        CrashPoint.reach("expire.before-\(stage)")
        do throws(TidemarkError) {
          let failures = try region.request { store throws(TidemarkError) in
            try store.delete(batch.map { region.key($0.name) }, deadline: .after(Self.batchLimit))
          }
          for failure in failures { left.formUnion(note(failure, region)) }
        } catch {
          if error.code == .interrupted { throw error }
          findings.append(
            "\(region.name): \(held.count - start) objects are left to the next run: \(error.description)")
          left.formUnion(held[start...].map(\.name))
          break
        }
        CrashPoint.reach("expire.after-\(stage)")
      }
    }
    return Set(entries.map(\.name)).subtracting(left)
  }

  private mutating func note(_ failure: DeletionFailure, _ region: Region) -> [ObjectName] {
    guard let name = region.name(of: failure.key) else { return [] }
    if Self.isLock(failure.reason) {
      locked.append(RefusedDeletion(region: region.name, object: name.text, reason: failure.reason))
    } else {
      findings.append("\(region.name) refuses to delete \(name): \(failure.reason)")
    }
    return [name]
  }

  /// Stores have no common code for an object under a lock: AWS says AccessDenied and that the object is protected by
  /// object lock; an immutable file answers EPERM.
  static func isLock(_ reason: String) -> Bool {
    let text = reason.lowercased()
    return [
      "object lock", "objectlock", "locked", "retention", "legal hold", "worm", "immutable",
      "operation not permitted",
    ].contains { text.contains($0) }
  }
}
