// A moment by which something must have ended, on the clock that goes on during suspend and never jumps.

/// A moment on the monotonic clock, or never.
package struct Deadline: Sendable {
  private let instant: ContinuousClock.Instant?

  package static let never = Deadline(instant: nil)
  package static func after(_ duration: Duration) -> Deadline { Deadline(instant: .now + duration) }

  private init(instant: ContinuousClock.Instant?) { self.instant = instant }

  /// The time left, zero when it has passed, `nil` for never.
  package var remaining: Duration? { instant.map { max(.zero, $0 - .now) } }
  package var hasPassed: Bool { remaining == .zero }
  /// The earlier of the two.
  package func earlier(_ other: Deadline) -> Deadline {
    guard let instant else { return other }
    guard let theirs = other.instant else { return self }
    return instant < theirs ? self : other
  }
}

extension Duration {
  /// In seconds.
  package var seconds: Double { Double(components.seconds) + Double(components.attoseconds) * 1e-18 }
  /// In whole milliseconds, rounded up.
  package var milliseconds: Int64 {
    components.seconds * 1000 + (components.attoseconds + 999_999_999_999_999) / 1_000_000_000_000_000
  }
}
