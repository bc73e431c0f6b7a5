// Named places before and after durable steps, where tests end the process as kill -9 would, or hold it as SIGSTOP would.
import Glibc

/// A place in the code at which a test can end the process, or hold it while something else happens.
package enum CrashPoint {
  /// `NAME` or `NAME:COUNT` from `TIDEMARK_CRASH_AT` or `TIDEMARK_STOP_AT`, read once. Unset outside tests.
  private static let chosen: (name: String, count: Int, signal: Int32)? = {
    for (variable, signal) in [("TIDEMARK_CRASH_AT", SIGKILL), ("TIDEMARK_STOP_AT", SIGSTOP)] {
      guard let value = getenv(variable).map({ String(cString: $0) }), !value.isEmpty else { continue }
      let parts = value.split(separator: ":")
      return (String(parts[0]), parts.count > 1 ? Int(parts[1]) ?? 1 : 1, signal)
    }
    return nil
  }()
  private static let reached = Counter()

  /// Sends the process SIGKILL or SIGSTOP when this is the chosen place, for the chosen time.
  package static func reach(_ name: @autoclosure () -> String) {
    guard let chosen, chosen.name == name() else { return }
    // To this thread, for the whole process: it takes the signal before it goes on. One that is sent to the process is
    // taken by the main thread, whenever that is scheduled, and the others work on until then.
    if reached.add(1) == chosen.count { raise(chosen.signal) }
  }
}
