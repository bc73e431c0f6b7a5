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
    /// How many were taken so far.
    var takenCount = 0
    var count: Int { elements.count - head }
  }

  private let state = Mutex(State())
  private let changed = Condition()
  private let limit: Int

  /// - Parameter limit: how many elements may wait. With 0 none does: who pushes one waits until it is taken.
  package init(limit: Int) {
    precondition(limit >= 0)
    self.limit = limit
  }

  /// Appends `element`, waiting while the queue is full.
  /// - Throws: the error of ``fail(_:)``.
  package func push(_ element: sending Element) throws(TidemarkError) {
    let element = element
    let number = try waiting { (state) throws(TidemarkError) -> Int? in
      precondition(!state.isClosed, "a closed queue takes nothing")
      guard state.count < max(limit, 1) else { return nil }
      state.elements.append(element)
      return state.takenCount + state.count
    }
    changed.signal()
    if limit == 0 { _ = try waiting { $0.takenCount >= number ? true : nil } }
  }

  /// The next element, waiting for one; `nil` when the queue is closed and empty.
  /// - Throws: the error of ``fail(_:)``.
  package func pop() throws(TidemarkError) -> Element? {
    let element = try waiting { (state) -> Element?? in
      guard state.count > 0 else { return state.isClosed ? .some(nil) : nil }
      let element = state.elements[state.head]
      state.elements[state.head] = nil
      state.head += 1
      state.takenCount += 1
      if state.head > 64, state.head * 2 > state.elements.count {
        state.elements.removeFirst(state.head)
        state.head = 0
      }
      return .some(element)
    }
    if element != nil { changed.signal() }
    return element
  }

  /// What `attempt` returns, as soon as it isn't `nil`.
  private func waiting<Outcome>(
    _ attempt: (inout State) throws(TidemarkError) -> Outcome?
  ) throws(TidemarkError) -> Outcome {
    while true {
      let ticket = changed.ticket()
      let outcome = try state.withLock { (state) throws(TidemarkError) -> Outcome? in
        if let failure = state.failure { throw failure }
        return try attempt(&state)
      }
      if let outcome { return outcome }
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
