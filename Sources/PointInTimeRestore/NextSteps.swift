// What is left to do after a restore that didn't promote the server: commands that can be copied into a shell.
import Diagnostics
import PostgresFormats

struct NextSteps {
  let settings: RecoverySettings
  let port: Int

  private var directory: String { RecoverySettings.quoted(settings.target.directory) }

  /// Empty when nothing is left to do.
  var commands: [String] {
    let remove = "sed -i '/^\(RecoverySettings.begin)$/,/^\(RecoverySettings.end)$/d' \(directory)/postgresql.auto.conf"
    let request = settings.request
    if !request.starts {
      // `-t` is in seconds: a replay may take hours.
      let start = asServerUser("pg_ctl -D \(directory) -l \(log) \(configuration)-w -t 86400 start")
      switch request.target == .latest ? .promote : request.action {
      case .promote: return [start, remove]
      case .pause: return [start, resume, remove]
      case .shutdown: return [start, promoteAfterShutdown, remove]
      }
    }
    return request.action == .promote ? [] : [promote]
  }

  /// This program's own way out of a pause, whoever stops or starts the server until then.
  private var promote: String {
    [settings.host.program, "--config", settings.host.configurationPath, "restore", "--target-directory"]
      .map(RecoverySettings.quoted).joined(separator: " ") + " \(directory) --continue"
  }

  private var log: String { RecoverySettings.quoted("\(settings.target.sideDirectory)/server.log") }

  private var configuration: String {
    settings.hostConfiguration.map { "-o \(RecoverySettings.quoted("-c config_file='\($0)'")) " } ?? ""
  }

  /// Ends the pause, and with it the recovery: the server takes writes.
  private var resume: String {
    let superuser = settings.plan.backup.manifest.bootstrapSuperuser ?? "postgres"
    // The server answers before it has come to its target, and a resumption before that would be none. Each look is a
    // transaction of its own: one that lasted would stand in the replay's way, and be cancelled by it after a while.
    // Should that happen all the same, nothing is resumed.
    let wait = """
      DO $$ BEGIN WHILE CASE WHEN pg_is_in_recovery() THEN pg_get_wal_replay_pause_state() <> 'paused' END LOOP \
      COMMIT; PERFORM pg_sleep(0.1); COMMIT; END LOOP; END $$
      """
    let statements = [wait, "SELECT pg_wal_replay_resume() WHERE pg_is_in_recovery()"]
    return asServerUser(
      "psql -q -v ON_ERROR_STOP=1 -p \(port) -U \(RecoverySettings.quoted(superuser)) -d postgres "
        + statements.map { "-c \(RecoverySettings.quoted($0))" }.joined(separator: " "))
  }

  /// The target is still set, so without this the server would shut down again.
  private var promoteAfterShutdown: String {
    let options =
      "-c recovery_target_action=promote"
      + (settings.hostConfiguration.map { " -c config_file='\($0)'" } ?? "")
    return asServerUser(
      "pg_ctl -D \(directory) -l \(log) -o \(RecoverySettings.quoted(options)) -w -t 86400 start")
  }

  /// `command` with the path of its program, run as the files' owner where that is somebody else.
  private func asServerUser(_ command: String) -> String {
    let program = settings.host.binDirectory.map { "\($0)/\(command)" } ?? command
    return settings.tree.changesOwner ? "runuser -u \(settings.host.osUser) -- \(program)" : program
  }
}
