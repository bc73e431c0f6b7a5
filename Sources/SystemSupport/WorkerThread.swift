// Threads for blocking work (libpq, libcurl, files, compression), started and joined in a scope: nothing outlives
// the call that started it. See docs/decisions for why threads and not tasks.
import CLinux
import Diagnostics
import Glibc
import Synchronization

/// A thread that runs one closure and hands over its result when it is joined.
package final class WorkerThread<Success: Sendable>: Sendable {
  private let outcome = Mutex<Result<Success, TidemarkError>?>(nil)
  private let handle = Mutex<pthread_t?>(nil)

  /// Starts the thread. `name` shows in `top -H` (15 bytes at most).
  package init(_ name: String, _ body: @escaping @Sendable () throws -> Success) {
    let start = ThreadStart { [self] in
      clinux_name_this_thread(String(name.prefix(15)))
      let result = Result { try body() }.mapError(TidemarkError.wrapping)
      outcome.withLock { $0 = result }
    }
    var thread = pthread_t()
    var attributes = pthread_attr_t()
    pthread_attr_init(&attributes)
    pthread_attr_setstacksize(&attributes, 1 << 20)
    let status = pthread_create(
      &thread, &attributes,
      { argument in
        // The retained `ThreadStart` that pthread_create below hands over.
        Unmanaged<ThreadStart>.fromOpaque(argument!).takeRetainedValue().run()
        return nil
      }, Unmanaged.passRetained(start).toOpaque())
    pthread_attr_destroy(&attributes)
    precondition(status == 0, "cannot start a thread: \(String(cString: strerror(status)))")
    handle.withLock { $0 = thread }
  }

  /// Waits for the end and returns the result. Call it exactly once.
  package func join() throws(TidemarkError) -> Success {
    guard let thread = handle.withLock({ $0.take() }) else { preconditionFailure("a thread is joined once") }
    pthread_join(thread, nil)
    // The thread set it before it ended.
    return try outcome.withLock { $0! }.get()
  }
}

/// What a new thread runs, carried through pthread_create's one pointer.
private final class ThreadStart: Sendable {
  let run: @Sendable () -> Void
  init(_ run: @escaping @Sendable () -> Void) { self.run = run }
}

/// Runs `body` on `count` threads and waits for all of them. `onFailure` is called with each error as it happens, so
/// that queues can be failed and nobody waits for ever; then the first error is thrown.
package func withThreads(
  _ name: String, count: Int, onFailure: @escaping @Sendable (TidemarkError) -> Void = { _ in },
  _ body: @escaping @Sendable (_ index: Int) throws -> Void
) throws(TidemarkError) {
  let threads = (0..<count).map { index in
    WorkerThread("\(name)-\(index)") {
      do { try body(index) } catch {
        onFailure(TidemarkError.wrapping(error))
        throw error
      }
    }
  }
  var first: TidemarkError?
  for thread in threads {
    do throws(TidemarkError) { try thread.join() } catch { first = first ?? error }
  }
  if let first { throw first }
}
