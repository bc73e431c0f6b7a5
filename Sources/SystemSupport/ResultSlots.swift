// The results of work that threads share, in the order of the work and not of its end.
import Synchronization

/// A place for each result.
package final class ResultSlots<Element: Sendable>: Sendable {
  private let slots: Mutex<[Element?]>

  package init(_ count: Int) { slots = Mutex(Array(repeating: nil, count: count)) }

  package func put(_ element: Element, at index: Int) { slots.withLock { $0[index] = element } }

  /// All results. Every slot must have been filled.
  package var all: [Element] {
    // A slot that was left empty is a fault of the caller's own loop.
    slots.withLock { $0.map { $0! } }
  }
}
