// The exit statuses of every command, after sysexits(3). docs/exit-statuses.md describes them for operators.

/// What a command's exit status says.
package enum ExitStatus: Int32, Sendable, CaseIterable {
  case done = 0
  /// Done, with findings: `verify`, `drill` and `check`.
  case findings = 1
  case usage = 64
  /// Data damaged or forged.
  case damaged = 65
  /// A region or the server can't be reached.
  case unavailable = 69
  /// A fault of Tidemark itself.
  case software = 70
  /// Local input or output failed.
  case localIO = 74
  /// Another process holds a lock, or a condition passes by itself.
  case tryAgain = 75
  /// Refused, to protect data.
  case refused = 76
  /// Permission, credentials or keys.
  case permission = 77
  case configuration = 78
}
