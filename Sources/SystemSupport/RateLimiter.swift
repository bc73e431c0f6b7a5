// A limit on bytes per second for several threads together. It is one on average: what is taken at once, an object at most,
// is moved as fast as it goes. Time in which nothing was taken isn't made up for later.
import Diagnostics
import Glibc
import Synchronization

/// Makes whoever takes bytes wait until the average is below the limit again.
package final class RateLimiter: Sendable {
  private let bytesPerSecond: Int?
  /// When everything that was taken so far is paid.
  private let paid: Mutex<ContinuousClock.Instant>

  /// `nil`: no limit.
  package init(bytesPerSecond: Int?) {
    self.bytesPerSecond = bytesPerSecond
    paid = Mutex(.now)
  }

  /// Takes `byteCount` bytes, and waits for as long as they last at the limit, or until it is called off.
  /// - Throws: `interrupted`.
  package func take(_ byteCount: Int, cancelledBy cancellation: Cancellation? = nil) throws(TidemarkError) {
    guard let bytesPerSecond else { return }
    let until = paid.withLock { paid in
      paid = max(paid, .now) + .nanoseconds(Int64(Double(byteCount) / Double(bytesPerSecond) * 1e9))
      return paid
    }
    while ContinuousClock.now < until, cancellation?.isCancelled != true {
      try Termination.check()
      usleep(UInt32(max(1, min(50_000, (until - .now).milliseconds * 1000))))
    }
  }
}
