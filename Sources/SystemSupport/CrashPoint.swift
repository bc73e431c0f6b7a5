// Named places before and after durable steps, where tests end the process as kill -9 would.
import Glibc

/// A place in the code at which a test can end the process.
package enum CrashPoint {
  /// `NAME` or `NAME:COUNT` from `TIDEMARK_CRASH_AT`, read once. Unset outside tests.
  private static let chosen: (name: String, count: Int)? = {
    guard let value = getenv("TIDEMARK_CRASH_AT").map({ String(cString: $0) }), !value.isEmpty else { return nil }
    let parts = value.split(separator: ":")
    return (String(parts[0]), parts.count > 1 ? Int(parts[1]) ?? 1 : 1)
  }()
  private static let reached = Counter()

  /// Ends the process by SIGKILL when this is the chosen place, for the chosen time.
  package static func reach(_ name: @autoclosure () -> String) {
    guard let chosen, chosen.name == name() else { return }
    if reached.add(1) == chosen.count { kill(getpid(), SIGKILL) }
  }
}
