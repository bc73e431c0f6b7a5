// Where a recovery that isn't followed by anybody stands: asked of its server where that is at rest at its target, read
// from its files where it doesn't run. Nothing is stopped or changed to find it out, but for who may log in.
import Diagnostics
import Glibc
import PostgresFormats
import PostgresReplication
import SystemSupport

struct RecoveryStanding: Sendable {
  /// Everything before it is replayed, and can't be taken back; `nil` where nothing is yet.
  private(set) var lsn: LSN?
  /// Of the last replayed commit, in Unix microseconds.
  private(set) var lastCommit: Int64?
  private(set) var isRunning = false
  /// Whether the server answers us over its private socket.
  private(set) var isReachable = false
  private(set) var isPaused = false

  /// - Parameter limit: of the server's silence: it may be one that was started by other means.
  init(_ server: RecoveredServer, limit: Deadline) throws(TidemarkError) {
    isRunning = Postmaster(in: server.directory) != nil
    guard isRunning else {
      lsn = try server.stored()
      return
    }
    // The cluster's own access rules may not let us in.
    do throws(TidemarkError) {
      try server.closeToClients()
      CrashPoint.reach("continue.after-close")
      try ask(server, limit)
    } catch { throw server.reopened(after: error) }
  }

  /// Asks the server; where it doesn't answer, its files say what they know.
  private mutating func ask(_ server: RecoveredServer, _ limit: Deadline) throws(TidemarkError) {
    while true {
      do throws(TidemarkError) {
        let row =
          try server.connect().query(
            """
            SELECT CASE WHEN pg_is_in_recovery() THEN pg_get_wal_replay_pause_state() END, pg_last_wal_replay_lsn(),
              (extract(epoch FROM pg_last_xact_replay_timestamp()) * 1000000)::bigint
            """
          ).rows.first ?? []
        isReachable = true
        isPaused = row.first == "paused"
        lsn = try row.dropFirst().first?.map { (text) throws(TidemarkError) in try LSN(text: text) } ?? nil
        lastCommit = row.last?.flatMap { Int64($0) }
        return
      } catch {
        if limit.hasPassed { break }
      }
      try Termination.check()
      usleep(20_000)
    }
    lsn = try server.stored()
  }

  /// For an error's cause.
  var description: String {
    guard let lsn else { return "the restored server has replayed nothing yet" }
    let commit = lastCommit.map { ", its last commit at \(RecoveryTime(microseconds: $0))" } ?? ""
    return "the restored server stands at \(lsn)\(commit)"
  }

  var kept: String {
    isRunning ? "the restored server, which goes on as it was" : "the restored files, unchanged"
  }
}

extension RecoveredServer {
  /// `error`, after whom it left outside was let in again.
  func reopened(after error: TidemarkError) -> TidemarkError {
    do throws(TidemarkError) { try openToClients() } catch let second {
      return error.with(
        kept: "the restored server, which lets no clients in (\(second.description))",
        next: "'tidemark restore --target-directory \(directory) --continue…' lets them in again")
    }
    return error
  }

  private func controlValue(_ name: String) throws(TidemarkError) -> String? {
    try controlData(directory).split(separator: "\n").first { $0.hasPrefix(name + ":") }
      .map { $0.dropFirst(name.count + 1).drop { $0 == " " } }.map(String.init)
  }

  /// Whether the replay begins where the backup did.
  private var isUnused: Bool { fileExists("\(directory)/backup_label") }

  /// Up to where a stopped server's files were replayed: a target before it is refused by PostgreSQL itself.
  func stored() throws(TidemarkError) -> LSN? {
    guard !isUnused, let text = try controlValue("Minimum recovery ending location") else { return nil }
    let lsn = try LSN(text: text)
    return lsn.isValid ? lsn : nil
  }

  /// Where a stopped server's replay begins again; `nil`: at the backup's beginning.
  func redo() throws(TidemarkError) -> LSN? {
    guard !isUnused, let text = try controlValue("Latest checkpoint's REDO location") else { return nil }
    return try LSN(text: text)
  }
}
