// The options of `restore` that go on with what an earlier one began.
import ArgumentParser
import Diagnostics
import PointInTimeRestore
import PostgresFormats

struct ContinuationOptions: ParsableArguments {
  @Flag(name: .customLong("continue"), help: "Go on with a restore that paused or was killed, to its own target.")
  var goesOn = false
  @Option(help: "Go on with a paused restore to a later moment.") var continueToTime: String?
  @Option(help: "Go on to a later WAL position.") var continueToLsn: String?
  @Option(help: "Go on to a later transaction.") var continueToXid: UInt64?
  @Option(help: "Go on to a later restore point.") var continueToName: String?
  @Flag(help: "Go on to the end of the archived WAL.") var continueToLatest = false

  /// What was asked for; `nil` when nothing is to be gone on with.
  func chosen() throws(TidemarkError) -> (target: RecoveryTarget?, Void)? {
    var targets: [RecoveryTarget?] = goesOn ? [nil] : []
    if let continueToTime { targets.append(.time(try RecoveryTime(text: continueToTime).microseconds)) }
    if let continueToLsn { targets.append(.lsn(try LSN(text: continueToLsn))) }
    if let continueToXid { targets.append(.xid(UInt32(truncatingIfNeeded: continueToXid))) }
    if let continueToName { targets.append(.name(continueToName)) }
    if continueToLatest { targets.append(.latest) }
    guard targets.count <= 1 else {
      throw TidemarkError(.usage, "several ways to go on are given", next: "give one of the --continue… options")
    }
    return targets.first.map { ($0, ()) }
  }
}
