// A number that several threads add to.
import Synchronization

/// An atomic 64-bit counter.
package final class Counter: Sendable {
  private let storage = Atomic<Int>(0)
  package init() {}
  package var value: Int { storage.load(ordering: .relaxed) }
  /// Adds `amount` and returns the new value.
  @discardableResult
  package func add(_ amount: Int) -> Int { storage.add(amount, ordering: .relaxed).newValue }
}
