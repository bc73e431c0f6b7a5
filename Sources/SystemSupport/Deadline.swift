// A moment by which something must have ended, on the clock that goes on during suspend and never jumps.
import Synchronization

/// A moment on the monotonic clock, or never.
package struct Deadline: Sendable {
  private let instant: ContinuousClock.Instant?
  private let cancellation: Cancellation?

  package static let never = Deadline(instant: nil, cancellation: nil)
  package static func after(_ duration: Duration) -> Deadline {
    Deadline(instant: .now + duration, cancellation: nil)
  }

  private init(instant: ContinuousClock.Instant?, cancellation: Cancellation?) {
    self.instant = instant
    self.cancellation = cancellation
  }

  /// The same moment, or the one at which `cancellation` is cancelled.
  package func cancelled(by cancellation: Cancellation) -> Deadline {
    Deadline(instant: instant, cancellation: cancellation)
  }

  /// The time left, zero when it has passed, `nil` for never.
  package var remaining: Duration? {
    if let cancellation, cancellation.isCancelled { return .zero }
    return instant.map { max(.zero, $0 - .now) }
  }
  package var hasPassed: Bool { remaining == .zero }
  /// The earlier of the two.
  package func earlier(_ other: Deadline) -> Deadline {
    guard let instant else { return cancellation.map(other.cancelled(by:)) ?? other }
    guard let theirs = other.instant else { return self }
    let first = instant < theirs ? self : other
    return Deadline(instant: first.instant, cancellation: cancellation ?? other.cancellation)
  }
}

/// A request that somebody else may call off: whoever waits sees its deadline pass.
package final class Cancellation: Sendable {
  private let flag = Atomic<Bool>(false)
  package init() {}
  package var isCancelled: Bool { flag.load(ordering: .relaxed) }
  package func cancel() { flag.store(true, ordering: .relaxed) }
}

extension Duration {
  /// In seconds.
  package var seconds: Double { Double(components.seconds) + Double(components.attoseconds) * 1e-18 }
  /// In whole milliseconds, rounded up.
  package var milliseconds: Int64 {
    components.seconds * 1000 + (components.attoseconds + 999_999_999_999_999) / 1_000_000_000_000_000
  }
}
