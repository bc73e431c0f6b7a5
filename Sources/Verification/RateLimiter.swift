// A limit on bytes per second for several threads together.
import Diagnostics
import Glibc
import Synchronization
import SystemSupport

/// Makes whoever took bytes wait until the average is below the limit again.
final class RateLimiter: Sendable {
  private let bytesPerSecond: Int?
  /// When everything that was taken so far is paid.
  private let paid: Mutex<ContinuousClock.Instant>

  /// `nil`: no limit.
  init(bytesPerSecond: Int?) {
    self.bytesPerSecond = bytesPerSecond
    paid = Mutex(.now)
  }

  /// Waits after `byteCount` bytes were taken.
  /// - Throws: `interrupted`.
  func take(_ byteCount: Int) throws(TidemarkError) {
    guard let bytesPerSecond else { return }
    let until = paid.withLock { paid in
      paid = max(paid, .now) + .nanoseconds(Int64(Double(byteCount) / Double(bytesPerSecond) * 1e9))
      return paid
    }
    while ContinuousClock.now < until {
      try Termination.check()
      usleep(UInt32(max(1, min(50_000, (until - .now).milliseconds * 1000))))
    }
  }
}
