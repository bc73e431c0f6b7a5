// Which of several steps are done, for a thread that follows the others in order.
import Diagnostics
import Synchronization

package final class Progress: Sendable {
  private struct State {
    var done: [Bool]
    var failure: TidemarkError?
  }
  private let state: Mutex<State>
  private let changed = Condition()

  package init(count: Int) { state = Mutex(State(done: Array(repeating: false, count: count))) }

  package func mark(_ index: Int) {
    state.withLock { $0.done[index] = true }
    changed.signal()
  }

  /// Ends the waiting: nobody will mark the rest.
  package func fail(_ error: TidemarkError) {
    state.withLock { if $0.failure == nil { $0.failure = error } }
    changed.signal()
  }

  /// Waits until step `index` is done.
  /// - Throws: the error of ``fail(_:)``.
  package func wait(for index: Int) throws(TidemarkError) {
    while true {
      let ticket = changed.ticket()
      let isDone = try state.withLock { (state) throws(TidemarkError) -> Bool in
        if let failure = state.failure { throw failure }
        return state.done[index]
      }
      if isDone { return }
      changed.wait(ticket)
    }
  }
}
