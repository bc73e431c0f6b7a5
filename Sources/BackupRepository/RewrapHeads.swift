// Reads the heads of objects, every region's copy: two hosts may have sealed the same WAL apart, so one region's header
// says nothing about the other's. A region that fails is passed over from then on, and named.
import Diagnostics
import Envelope
import ObjectStorage
import Synchronization
import SystemSupport

final class RewrapHeads: Sendable {
  struct Found: Sendable {
    /// One for each different header.
    var headers: [(header: SealedHeader, region: String)] = []
    var failures: [RewrapFailure] = []
  }
  private static let limit = Duration.seconds(60)

  private let repository: Repository
  /// Regions that failed, with the reason; those that had failed before without one.
  private let failed: Mutex<[String: String?]>

  init(_ repository: Repository, failed: Set<String>) {
    self.repository = repository
    self.failed = Mutex(Dictionary(uniqueKeysWithValues: failed.map { ($0, nil) }))
  }

  var failures: [String: String] { failed.withLock { $0.compactMapValues { $0 } } }

  func read(_ entries: [RegionListing.Entry], threadCount: Int) throws(TidemarkError) -> Found {
    let next = Counter()
    let results = ResultSlots<Found>(entries.count)
    try withThreads("heads", count: min(threadCount, entries.count)) { [self] _ in
      while true {
        try Termination.check()
        let index = next.add(1) - 1
        guard index < entries.count else { return }
        results.put(try read(entries[index]), at: index)
      }
    }
    var found = Found()
    for result in results.all {
      found.headers += result.headers
      found.failures += result.failures
    }
    return found
  }

  private func read(_ entry: RegionListing.Entry) throws(TidemarkError) -> Found {
    var found = Found()
    for index in entry.holders.sorted() {
      let region = repository.regions.regions[index]
      if failed.withLock({ $0.keys.contains(region.name) }) { continue }
      let head: [UInt8]
      do throws(TidemarkError) {
        head = try region.request { store throws(TidemarkError) in
          try store.read(
            region.key(entry.name), range: .bytes(offset: 0, count: Int64(SealedHeader.prefixByteCountMax)),
            deadline: .after(Self.limit))
        }
      } catch {
        switch error.code {
        // Expired since it was listed.
        case .objectNotFound: continue
        case .interrupted, .internalFault: throw error
        default:
          failed.withLock { $0[region.name] = error.description }
          continue
        }
      }
      do throws(TidemarkError) {
        let header = try check(entry.name, head)
        if !found.headers.contains(where: { $0.header.digest == header.digest }) {
          found.headers.append((header, region.name))
        }
      } catch {
        found.failures.append(
          RewrapFailure(object: entry.name.text, region: region.name, reason: error.description))
      }
    }
    return found
  }

  /// The signature, which is at the object's end, isn't needed: a re-wrap names a header by its digest, and whoever made
  /// one up gains a key to an object that no reader takes.
  private func check(_ name: ObjectName, _ head: [UInt8]) throws(TidemarkError) -> SealedHeader {
    let header = try SealedHeader.parse(head)
    guard header.name == name.text else {
      throw TidemarkError(.objectDamaged, "another object stands here", cause: "its header names \(header.name)")
    }
    guard repository.keys.trustedWriters.contains(where: { $0.id == header.writer }) else {
      throw TidemarkError(
        .writerNotTrusted, "the object's writer is not trusted", cause: "it names writer \(header.writer)")
    }
    return header
  }
}
