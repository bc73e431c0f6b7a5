// The other side of the spool: how `restore_command` gets WAL while a `restore` runs, and after it has ended.
import Diagnostics
import Glibc
import PostgresFormats
import SystemSupport

/// `wal-fetch` on behalf of a running `restore`: it answers from the plan and the spool.
package struct PlannedWALFetch {
  package enum Outcome: Sendable, Equatable {
    case fetched
    /// Beyond the end that the plan fixed.
    case absent
    /// The plan has it and the spool doesn't, and no `restore` fills the spool any more: to be fetched directly.
    case notSpooled
  }
  package let plan: RecoveryPlanFile
  /// Behind the name of a segment that isn't in the spool and is asked for.
  static let wanted = ".wanted"
  /// The spool isn't filled any more, though the restore goes on.
  static let failed = ".failed"

  /// Where files lie that stay when they are fetched.
  static func keptDirectory(_ spool: String) -> String { "\(spool)/kept" }

  package init(_ plan: RecoveryPlanFile) { self.plan = plan }

  /// The value of `restore_command`: a segment that lies ready is moved by mv(1), since this program's start for each of
  /// them would cost more than the move; whatever isn't there is asked of `program`, which alone may say "not there".
  static func restoreCommand(spool: String, program: [String]) -> String {
    func quoted(_ word: String) -> String { "'\(word.replacing("'", with: "'\\''").replacing("%", with: "%%"))'" }
    let words = program.map { $0 == "%f" || $0 == "%p" ? "\"\($0)\"" : quoted($0) }
    return "mv -f \(quoted(spool))/\"%f\" \"%p\" 2>/dev/null || \(words.joined(separator: " "))"
  }

  /// Waits for the spool while `restore` lives. A server that is stopped signals its `restore_command` and doesn't wait for
  /// it: the next server of this directory must not find another segment under the name that it was given one by
  /// (`RECOVERYXLOG`), and the next restore's spool isn't this one's to take from.
  /// - Throws: `recovery-failed` when a scratch copy asks for what its drill didn't look at: it is never fetched directly.
  package func fetch(_ file: WALFileName, to destination: String) throws(TidemarkError) -> Outcome {
    let outcome = try fetchSpooled(file, to: destination)
    if outcome == .notSpooled, plan.isIsolated == true {
      throw TidemarkError(.recoveryFailed, "the drill that this server belongs to has ended", object: plan.spool)
    }
    return outcome
  }

  private func fetchSpooled(_ file: WALFileName, to destination: String) throws(TidemarkError) -> Outcome {
    guard plan.has(file) else { return .absent }
    if case .history = file {
      let path = "\(Self.keptDirectory(plan.spool))/\(file)"
      guard fileExists(path) else { return .notSpooled }
      try DurableFile.write(try readFile(path), to: destination)
      return .fetched
    }
    let path = "\(plan.spool)/\(file)"
    var hasAsked = false
    while true {
      try Termination.check()
      if try move(path, to: destination) {
        if hasAsked { try DurableFile.remove(path + Self.wanted) }
        return .fetched
      }
      guard fileExists(plan.spool), fileExists(plan.lock), isLocked(plan.lock),
        !fileExists("\(plan.spool)/\(Self.failed)")
      else { return .notSpooled }
      if !hasAsked {
        try OpenFile(path + Self.wanted, O_WRONLY | O_CREAT, mode: 0o600).close()
        hasAsked = true
      }
      usleep(5_000)
    }
  }

  /// Returns `false` when it isn't there.
  private func move(_ path: String, to destination: String) throws(TidemarkError) -> Bool {
    if rename(path, destination) == 0 { return true }
    switch errno {
    case ENOENT: return false
    case EXDEV:
      // A file system begins at the data directory, or at its pg_wal.
      guard fileExists(path) else { return false }
      try DurableFile.write(try readFile(path), to: destination)
      try DurableFile.remove(path)
      return true
    default: throw systemError("cannot move the segment", path)
    }
  }

  private func isLocked(_ path: String) -> Bool {
    do throws(TidemarkError) {
      _ = try FileLock(path, purpose: "a restore")
      return false
    } catch { return true }
  }
}
