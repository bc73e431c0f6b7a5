// One region: a store, the prefix under which the repository stands in it, and what is known of its health.
import Diagnostics
import ObjectStorage
import Synchronization
import SystemSupport

/// One bucket and prefix at one endpoint.
package final class Region: Sendable {
  package let name: String
  package let store: any ObjectStore
  package let health: RegionHealth
  private let prefix: String
  /// A moving average of the seconds that a request takes, for choosing the fastest.
  private let averageSeconds = Mutex<Double?>(nil)

  package init(name: String, store: any ObjectStore, prefix: String, health: RegionHealth) {
    self.name = name
    self.store = store
    self.prefix = prefix
    self.health = health
  }

  package func key(_ name: ObjectName) -> ObjectKey {
    prefix.isEmpty ? name.key : ObjectKey(trusted: "\(prefix)/\(name)")
  }

  /// `prefix` below the repository's own prefix.
  package func storePrefix(_ namePrefix: String) -> String { prefix.isEmpty ? namePrefix : "\(prefix)/\(namePrefix)" }

  /// The name of the object with `key`; `nil` when it isn't the repository's.
  package func name(of key: ObjectKey) -> ObjectName? {
    if prefix.isEmpty { return ObjectName(trusted: key.text) }
    guard key.text.hasPrefix("\(prefix)/") else { return nil }
    let rest = String(key.text.dropFirst(prefix.count + 1))
    return ObjectKey.isValid(rest) ? ObjectName(trusted: rest) : nil
  }

  /// Seconds that a request took lately; infinite while the region fails, zero before the first request.
  package var slowness: Double {
    if health.failingFor != nil { return .infinity }
    return averageSeconds.withLock { $0 ?? 0 }
  }

  /// Times `body` as one request and notes how it ended in the region's health: any answer of the store is health,
  /// "there is no such object" too. A request that `cancellation` called off says nothing about the region.
  package func request<Result>(
    cancelledBy cancellation: Cancellation? = nil, _ body: (any ObjectStore) throws(TidemarkError) -> Result
  ) throws(TidemarkError) -> Result {
    let start = ContinuousClock.now
    do throws(TidemarkError) {
      let result = try body(store)
      noteAnswer(since: start)
      return result
    } catch {
      switch error.code {
      case .regionUnreachable, .regionThrottled, .accessDenied, .credentialsMissing, .bucketMissing, .clockSkewed,
        .storeAnswerInvalid, .storeRefused, .localIO, .localPermission:
        if cancellation?.isCancelled == true { break }
        try health.noteFailure(error, elapsed: ContinuousClock.now - start)
      case .objectNotFound: noteAnswer(since: start)
      default: break
      }
      throw error.with(object: name)
    }
  }

  private func noteAnswer(since start: ContinuousClock.Instant) {
    let seconds = (ContinuousClock.now - start).seconds
    averageSeconds.withLock { $0 = $0.map { $0 * 0.8 + seconds * 0.2 } ?? seconds }
    // The file only shortens later waits: failing to remove it does no harm here, and the next success tries again.
    _ = try? health.noteSuccess()
  }
}
