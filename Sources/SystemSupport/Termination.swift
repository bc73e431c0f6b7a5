// SIGINT and SIGTERM end a command at the next safe place: long loops call `check()`.
import Diagnostics
import Glibc
import Synchronization

package enum Termination {
  private static let signalNumber = Atomic<Int32>(0)

  /// Makes SIGINT, SIGTERM and SIGHUP ask for an orderly end; SIGPIPE is ignored (writes report it).
  package static func installHandlers() {
    for number in [SIGINT, SIGTERM, SIGHUP] {
      var action = sigaction()
      action.__sigaction_handler.sa_handler = { Termination.signalNumber.store($0, ordering: .relaxed) }
      sigaction(number, &action, nil)
    }
    ignoreBrokenPipes()
  }

  /// Ignores SIGPIPE in this process: a write whose reader is gone reports EPIPE instead. Children get the default
  /// back (see `ChildProcess`).
  package static func ignoreBrokenPipes() { signal(SIGPIPE, SIG_IGN) }

  /// The signal that asked for the end, if one did.
  package static var requested: Int32? {
    let number = signalNumber.load(ordering: .relaxed)
    return number == 0 ? nil : number
  }

  /// - Throws: ``ErrorCode/interrupted`` when a signal asked for the end.
  package static func check() throws(TidemarkError) {
    if let requested { throw TidemarkError(.interrupted, "ended by signal \(requested)") }
  }
}
