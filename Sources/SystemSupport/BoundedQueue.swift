// The joint between two stages of a pipeline: a queue with a limit, so that a fast stage waits for a slow one and
// memory stays bounded. Closing says that no more will come; failing wakes everybody with the error.
import Diagnostics
import Glibc
import Synchronization

/// A first-in, first-out queue between threads, with a limit.
package final class BoundedQueue<Element: Sendable>: Sendable {
  private struct State {
    var elements: [Element?] = []
    var head = 0
    var isClosed = false
    var failure: TidemarkError?
    var count: Int { elements.count - head }
  }

  private let state = Mutex(State())
  private let changed = Condition()
  private let limit: Int

  package init(limit: Int) {
    precondition(limit > 0)
    self.limit = limit
  }

  /// Appends `element`, waiting while the queue is full.
  /// - Throws: the error of ``fail(_:)``.
  package func push(_ element: sending Element) throws(TidemarkError) {
    let element = element
    while true {
      let ticket = changed.ticket()
      let done = try state.withLock { (state) throws(TidemarkError) -> Bool in
        if let failure = state.failure { throw failure }
        precondition(!state.isClosed, "a closed queue takes nothing")
        guard state.count < limit else { return false }
        state.elements.append(element)
        return true
      }
      if done {
        changed.signal()
        return
      }
      changed.wait(ticket)
    }
  }

  /// The next element, waiting for one; `nil` when the queue is closed and empty.
  /// - Throws: the error of ``fail(_:)``.
  package func pop() throws(TidemarkError) -> Element? {
    while true {
      let ticket = changed.ticket()
      let outcome = try state.withLock { (state) throws(TidemarkError) -> (Element?, Bool) in
        if let failure = state.failure { throw failure }
        guard state.count > 0 else { return (nil, state.isClosed) }
        let element = state.elements[state.head]
        state.elements[state.head] = nil
        state.head += 1
        if state.head > 64, state.head * 2 > state.elements.count {
          state.elements.removeFirst(state.head)
          state.head = 0
        }
        return (element, false)
      }
      if let element = outcome.0 {
        changed.signal()
        return element
      }
      if outcome.1 { return nil }
      changed.wait(ticket)
    }
  }

  /// Says that nothing more will come.
  package func close() {
    state.withLock { $0.isClosed = true }
    changed.signal()
  }

  /// Wakes everybody who waits, now and later, with `error`. The first failure stays.
  package func fail(_ error: TidemarkError) {
    state.withLock { if $0.failure == nil { $0.failure = error } }
    changed.signal()
  }
}
