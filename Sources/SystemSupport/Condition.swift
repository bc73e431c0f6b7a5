// A condition variable that goes with a `Mutex`: take a ticket, look at the state under its mutex, and wait for a
// change after the ticket. A signal between the two is never lost, since it moves the number that the ticket holds.
import Glibc
import Synchronization

/// Waiting for a change of state that another thread signals.
package final class Condition: Sendable {
  /// The pthread objects live at a fixed address for as long as this object: only it touches them.
  private struct Primitives: @unchecked Sendable {
    let mutex: UnsafeMutablePointer<pthread_mutex_t>
    let condition: UnsafeMutablePointer<pthread_cond_t>
  }
  private let primitives: Primitives
  private let generation = Atomic<UInt64>(0)

  package init() {
    primitives = Primitives(mutex: .allocate(capacity: 1), condition: .allocate(capacity: 1))
    pthread_mutex_init(primitives.mutex, nil)
    var attributes = pthread_condattr_t()
    pthread_condattr_init(&attributes)
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
    pthread_cond_init(primitives.condition, &attributes)
    pthread_condattr_destroy(&attributes)
  }

  deinit {
    pthread_cond_destroy(primitives.condition)
    pthread_mutex_destroy(primitives.mutex)
    primitives.condition.deallocate()
    primitives.mutex.deallocate()
  }

  /// To be taken before the state is looked at.
  package func ticket() -> UInt64 { generation.load(ordering: .acquiring) }

  /// Wakes everybody who waits.
  package func signal() {
    pthread_mutex_lock(primitives.mutex)
    generation.add(1, ordering: .releasing)
    pthread_cond_broadcast(primitives.condition)
    pthread_mutex_unlock(primitives.mutex)
  }

  /// Waits until a signal came after `ticket` was taken, or the deadline has passed. Returns whether one came.
  @discardableResult
  package func wait(_ ticket: UInt64, until deadline: Deadline = .never) -> Bool {
    pthread_mutex_lock(primitives.mutex)
    defer { pthread_mutex_unlock(primitives.mutex) }
    while generation.load(ordering: .acquiring) == ticket {
      guard let remaining = deadline.remaining else {
        pthread_cond_wait(primitives.condition, primitives.mutex)
        continue
      }
      if remaining == .zero { return false }
      var moment = timespec()
      clock_gettime(CLOCK_MONOTONIC, &moment)
      let nanoseconds = Int64(moment.tv_nsec) + Int64(min(remaining.seconds, 3600) * 1e9)
      moment.tv_sec += Int(nanoseconds / 1_000_000_000)
      moment.tv_nsec = Int(nanoseconds % 1_000_000_000)
      pthread_cond_timedwait(primitives.condition, primitives.mutex, &moment)
    }
    return true
  }
}
