// How far the files of a window are made. One thread makes them in their order while others fetch what belongs into them:
// with the fetching after it, one core would wait, and a directory takes one new file at a time anyway.
import Diagnostics
import Synchronization
import SystemSupport

final class CreatedFiles: Sendable {
  private struct State {
    var count: Int
    var failure: TidemarkError?
  }
  private let state: Mutex<State>
  private let changed = Condition()

  /// - Parameter count: of the files that are there already.
  init(count: Int) { state = Mutex(State(count: count)) }

  /// Says that the next file is there.
  func advance() {
    state.withLock { $0.count += 1 }
    changed.signal()
  }

  /// Wakes everybody who waits, now and later. The first error stays.
  func fail(_ error: TidemarkError) {
    state.withLock { if $0.failure == nil { $0.failure = error } }
    changed.signal()
  }

  /// Returns once the file with this index is there.
  /// - Throws: the error of ``fail(_:)``.
  func wait(for file: Int32) throws(TidemarkError) {
    while true {
      let ticket = changed.ticket()
      let isThere = try state.withLock { (state) throws(TidemarkError) -> Bool in
        if let failure = state.failure { throw failure }
        return state.count > Int(file)
      }
      if isThere { return }
      changed.wait(ticket)
    }
  }
}
