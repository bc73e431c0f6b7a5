// Waiting in tests: for a condition, never for a time.
import Glibc
import SystemSupport

/// Looks every few milliseconds until `condition` holds. Returns whether it came to hold within `limit`.
package func eventually(_ limit: Duration = .seconds(20), _ condition: () throws -> Bool) throws -> Bool {
  let deadline = Deadline.after(limit)
  while true {
    if try condition() { return true }
    if deadline.hasPassed { return false }
    usleep(10_000)
  }
}
