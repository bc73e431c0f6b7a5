// Numbered work that threads do ahead of one who takes the results in their order.
import Diagnostics
import Synchronization

/// What the threads and the taker share. Whoever began the threads cancels the work and joins them.
package final class OrderedWork<Element: Sendable>: Sendable {
  private struct State {
    var ready: [Int: Element] = [:]
    var claimed = 0
    var taken = 0
    var isCancelled = false
    var failure: TidemarkError?
  }
  package let count: Int
  /// Results that may be ready or in the making beyond the one that was taken last: what bounds the memory.
  private let aheadCount: Int
  private let state = Mutex(State())
  private let changed = Condition()

  package init(count: Int, aheadCount: Int) {
    precondition(aheadCount > 0)
    self.count = count
    self.aheadCount = aheadCount
  }

  /// The number of a piece that nobody else works at, waiting while enough are ready; `nil` when nothing is left to do.
  package func claim() -> Int? {
    while true {
      let ticket = changed.ticket()
      let (index, isOver) = state.withLock { state -> (Int?, Bool) in
        if state.isCancelled || state.failure != nil || state.claimed == count { return (nil, true) }
        guard state.claimed < state.taken + aheadCount else { return (nil, false) }
        defer { state.claimed += 1 }
        return (state.claimed, false)
      }
      if index != nil || isOver { return index }
      changed.wait(ticket)
    }
  }

  package func put(_ element: Element, at index: Int) {
    state.withLock { $0.ready[index] = element }
    changed.signal()
  }

  /// The first error counts.
  package func fail(_ error: TidemarkError) {
    state.withLock { if $0.failure == nil { $0.failure = error } }
    changed.signal()
  }

  package func cancel() {
    state.withLock { $0.isCancelled = true }
    changed.signal()
  }

  /// The result of piece `index`, waiting for it. Pieces are taken in their order, each once.
  /// - Throws: the error of ``fail(_:)``.
  package func take(_ index: Int) throws(TidemarkError) -> Element {
    while true {
      let ticket = changed.ticket()
      let element = try state.withLock { (state) throws(TidemarkError) -> Element? in
        if let failure = state.failure { throw failure }
        guard let element = state.ready.removeValue(forKey: index) else { return nil }
        state.taken = index + 1
        return element
      }
      if let element {
        changed.signal()
        return element
      }
      changed.wait(ticket)
    }
  }
}
