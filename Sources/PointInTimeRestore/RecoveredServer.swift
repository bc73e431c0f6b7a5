// Starts PostgreSQL on what was restored and follows it to the first read-write query. Until then only our own user can
// log in, over a private socket directory's peer authentication; then the cluster's own rules take over.
import Diagnostics
import Foundation
import Glibc
import PostgresFormats
import PostgresReplication
import SystemSupport

/// Where the recovery stands when it has ended.
package struct ReachedState: Sendable {
  package var lsn: LSN?
  /// Unix microseconds of the last replayed commit.
  package var time: Int64?
  package var timeline: TimelineID?
}

package struct RecoveredServer: Sendable {
  /// How long the server may take until it answers queries, and to end the replay without any progress.
  private static let silenceLimit = Duration.seconds(600)

  let settings: RecoverySettings
  package let port: Int
  package var directory: String { settings.target.directory }
  private var side: String { settings.target.sideDirectory }
  package var socketDirectory: String { "\(side)/socket" }
  private var log: String { "\(side)/server.log" }

  /// Where PostgreSQL's programs are.
  package var binDirectory: String? { settings.host.binDirectory }
  package var superuser: String { settings.plan.backup.manifest.bootstrapSuperuser ?? "postgres" }

  /// Runs one of PostgreSQL's programs as the user that owns the files.
  package func run(_ program: String, _ arguments: [String]) throws(TidemarkError) -> ProgramOutcome {
    guard let bin = settings.host.binDirectory else {
      throw TidemarkError(
        .configurationInvalid, "PostgreSQL's programs were not found", object: program,
        next: "set postgres.bin-directory, or restore with --no-start")
    }
    // A program whose output is read speaks English.
    let language = program == "pg_controldata" ? ["/usr/bin/env", "LC_ALL=C"] : []
    let command = language + ["\(bin)/\(program)"] + arguments
    if settings.tree.changesOwner {
      let user = settings.host.osUser
      return try ChildProcess.run(
        "/usr/bin/setpriv", ["--reuid=\(user)", "--regid=\(user)", "--init-groups", "--"] + command,
        workingDirectory: "/")
    }
    return try ChildProcess.run(command[0], Array(command.dropFirst()), workingDirectory: "/")
  }

  /// Starts the server; returns when its process runs, not when it answers.
  func start() throws(TidemarkError) {
    try settings.tree.makeDirectories(socketDirectory)
    try setLogAside()
    try writePrivateRules()
    let sockets = [socketDirectory] + (settings.request.isIsolated ? [] : publicSocketDirectories)
    var given = settings.request.isIsolated ? RecoverySettings.isolation : []
    // A restored postgresql.conf may say where the original's data are, and PostgreSQL would follow it there.
    given += [
      ("data_directory", directory), ("hba_file", "\(side)/pg_hba.conf"), ("ident_file", "\(side)/pg_ident.conf"),
      ("hot_standby", "on"), ("unix_socket_directories", sockets.joined(separator: ",")), ("port", String(port)),
    ]
    if let path = settings.hostConfiguration { given.append(("config_file", path)) }
    given += settings.request.serverSettings
    let options = given.map { "-c \($0.name)=\(Self.quoted($0.value))" }.joined(separator: " ")
    let result = try run("pg_ctl", ["start", "-W", "-s", "-D", directory, "-l", log, "-o", options])
    guard result.succeeded else { throw failed("PostgreSQL didn't start", result.errorText) }
    // pg_ctl doesn't wait for the process to make itself known, and ``stop()`` could miss one that hasn't yet.
    let limit = Deadline.after(Self.appearanceLimit)
    while Postmaster(in: directory) == nil, lastFatal() == nil, !limit.hasPassed { usleep(5_000) }
  }

  /// Our own user alone may log in.
  private func writePrivateRules() throws(TidemarkError) {
    let user = settings.tree.changesOwner ? "root" : Self.userName()
    try settings.tree.write("local all all peer map=tidemark\n", to: "\(side)/pg_hba.conf")
    try settings.tree.write("tidemark \(user) \"\(superuser)\"\n", to: "\(side)/pg_ident.conf")
  }

  /// Takes the cluster's own access rules out of force, in a server that was started with ours.
  func closeToClients() throws(TidemarkError) {
    try writePrivateRules()
    let result = try run("pg_ctl", ["reload", "-s", "-D", directory])
    guard result.succeeded else { throw failed("PostgreSQL didn't reload its configuration", result.errorText) }
  }

  /// How long the server's process may take to write its file.
  private static let appearanceLimit = Duration.seconds(10)

  /// For the shell that pg_ctl starts the server with.
  private static func quoted(_ value: String) -> String { "'" + value.replacing("'", with: "'\\''") + "'" }

  /// Where clients look: the directories of the original server, or else the usual ones, where the server may use them.
  private var publicSocketDirectories: [String] {
    let captured = settings.plan.backup.manifest.settings.first { $0.name == "unix_socket_directories" }?.value ?? ""
    let wanted = captured.split(separator: ",").map { $0.trimmingPrefix(" ") }.map(String.init)
    let usable = { (path: String) in
      isDirectory(path) && (settings.tree.changesOwner || access(path, W_OK) == 0)
    }
    let there = wanted.filter(usable)
    return there.isEmpty ? ["/var/run/postgresql", "/tmp"].filter(usable).prefix(1).map { $0 } : there
  }

  private static func userName() -> String {
    getpwuid(geteuid()).map { String(cString: $0.pointee.pw_name) } ?? "postgres"
  }

  /// Connects as the superuser over the private socket.
  package func connect(database: String = "postgres") throws(TidemarkError) -> PostgresConnection {
    let info = try ConnectionInfo("connect_timeout=5").with("host", socketDirectory).with("port", String(port))
      .with("user", superuser).with("dbname", database)
    return try PostgresConnection(info)
  }

  /// How a replay was left.
  enum Following {
    case ended(ReachedState)
    /// The replay stands still until these settings are as high.
    case needs([String: Int])
  }

  /// Follows the replay until the server accepts writes, pauses at its target, or has shut down there.
  func follow(
    _ action: TargetAction, spool: WALSpool?, progress: (LSN?) -> Void
  ) throws(TidemarkError) -> Following {
    var state = ReachedState()
    var quiet = Deadline.after(Self.silenceLimit)
    var lastError: TidemarkError?
    var wasSeen = false
    let startLimit = Deadline.after(.seconds(5))
    while true {
      try Termination.check()
      do throws(TidemarkError) {
        let connection = try connect()
        while true {
          try Termination.check()
          let row =
            try connection.query(
              """
              SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn(),
                (extract(epoch FROM pg_last_xact_replay_timestamp()) * 1000000)::bigint,
                CASE WHEN pg_is_in_recovery() THEN pg_get_wal_replay_pause_state() END,
                (pg_control_checkpoint()).timeline_id
              """
            ).rows.first ?? []
          guard row.count == 5 else { throw TidemarkError(.recoveryFailed, "the server's answer has no row") }
          let lsn = try row[1].map { (text) throws(TidemarkError) in try LSN(text: text) }
          if lsn != state.lsn { quiet = .after(Self.silenceLimit) }
          state.lsn = lsn ?? state.lsn
          state.time = row[2].flatMap { Int64($0) } ?? state.time
          state.timeline = row[4].flatMap { UInt32($0) }.map { TimelineID($0) }
          progress(lsn)
          if row[0] == "f" { return .ended(state) }
          if row[3] == "paused" {
            CrashPoint.reach("restore.paused")
            let lacking = try RequiredSettings(controlData: controlData(directory)).exceeding(try effective(connection))
            if !lacking.isEmpty { return .needs(lacking) }
            switch action {
            case .pause: break
            case .promote: state.timeline = try promote(connection)
            case .shutdown: throw failed("the replay stands still", "")
            }
            return .ended(state)
          }
          if quiet.hasPassed { throw failed("the replay makes no progress", "") }
          usleep(10_000)
        }
      } catch {
        if error.code == .recoveryFailed || error.code == .interrupted { throw spool?.firstFailure ?? error }
        lastError = error
      }
      let status = try run("pg_ctl", ["status", "-D", directory])
      if status.succeeded { wasSeen = true }
      // Right after the start there is no process to see yet, unless its log says why.
      if !status.succeeded, wasSeen || startLimit.hasPassed || lastFatal() != nil {
        if action == .shutdown, try hasShutDown() { return .ended(state) }
        // What couldn't be fetched explains it better than the server's log.
        throw spool?.firstFailure.map(stopped) ?? failed("PostgreSQL ended during the recovery", "")
      }
      if quiet.hasPassed {
        throw spool?.firstFailure ?? failed("PostgreSQL doesn't answer", lastError?.description ?? "")
      }
      usleep(50_000)
    }
  }

  /// Ends the recovery where it is paused. Returns the new timeline.
  private func promote(_ connection: PostgresConnection) throws(TidemarkError) -> TimelineID? {
    let limit = Deadline.after(Self.silenceLimit)
    _ = try connection.query("SELECT pg_promote(false)")
    CrashPoint.reach("restore.promoting")
    var nextNudge = Deadline.after(Self.signalAllowance)
    while try connection.query("SELECT pg_is_in_recovery()").scalar != "f" {
      try Termination.check()
      if limit.hasPassed { throw failed("the server doesn't end its recovery", "") }
      if nextNudge.hasPassed {
        nudge(connection)
        nextNudge = .after(Self.nudgeInterval)
      }
      usleep(2_000)
    }
    // The control file names the new timeline with the next checkpoint only.
    return try connection.query("SELECT pg_walfile_name(pg_current_wal_lsn())").scalar
      .flatMap { WALSegmentName($0) }?.timeline
  }

  /// How long a promotion's signal may be on its way to the process that replays.
  private static let signalAllowance = Duration.milliseconds(10)
  private static let nudgeInterval = Duration.milliseconds(200)

  /// Lets a paused replay look at once whether it is to end: it looks when it is told to go on, and else once a second
  /// (xlogrecovery.c, `recoveryPausesHere`). Where it goes on before it hears of the pause that follows at once, it ends
  /// its recovery all the same, with a checkpoint first.
  private func nudge(_ connection: PostgresConnection) {
    // Refused once the promotion has begun; whether it ends is what the caller's next query asks, which throws where the
    // connection is gone.
    _ = try? connection.query("SELECT pg_wal_replay_resume(), pg_wal_replay_pause()")
  }

  /// What `pg_controldata` prints of the cluster in `directory`.
  func controlData(_ directory: String) throws(TidemarkError) -> String {
    let result = try run("pg_controldata", ["-D", directory])
    guard result.succeeded else { throw failed("pg_controldata failed", result.errorText) }
    return result.outputText
  }

  private func effective(_ connection: PostgresConnection) throws(TidemarkError) -> [String: Int] {
    var values: [String: Int] = [:]
    for (name, _) in RequiredSettings.names {
      values[name] = try connection.query("SHOW \(name)").scalar.flatMap { Int($0) }
    }
    return values
  }

  private func stopped(_ error: TidemarkError) -> TidemarkError {
    error.with(kept: "the repository, unchanged, and the restored files, which can't be started without it")
  }

  private func hasShutDown() throws(TidemarkError) -> Bool {
    // DB_SHUTDOWNED_IN_RECOVERY
    try ControlFile(try readFile("\(directory)/global/pg_control", limit: 64 << 10)).state == 2
  }

  /// The first transaction that writes. Returns its number.
  func probe() throws(TidemarkError) -> UInt64? {
    let connection = try connect()
    // The standbys that the original waits for aren't here.
    try connection.execute("SET synchronous_commit = local")
    let transaction = try connection.query("SELECT pg_current_xact_id()").scalar.flatMap { UInt64($0) }
    try connection.execute("CREATE TEMPORARY TABLE tidemark_probe AS SELECT 1 AS written")
    guard try connection.query("SELECT pg_is_in_recovery()").scalar == "f" else {
      throw failed("the server takes no writes", "")
    }
    return transaction
  }

  /// Databases and collations whose text indexes were built with another version of the collation than this host has
  /// (trap: glibc and ICU differ between hosts).
  func collationRemarks() throws(TidemarkError) -> [String] {
    var remarks: [String] = []
    let rows = try connect().query(
      """
      SELECT datname, datallowconn, datcollversion, pg_database_collation_actual_version(oid) FROM pg_database ORDER BY 1
      """
    ).rows
    for row in rows {
      guard row.count == 4, let name = row[0] else { continue }
      if let built = row[2], let here = row[3], built != here {
        remarks.append(
          "database \(name): its text indexes were built with collation version \(built), this host has \(here); "
            + "REINDEX DATABASE and ALTER DATABASE … REFRESH COLLATION VERSION")
      }
      guard row[1] == "t" else { continue }
      let count = try connect(database: name).query(
        """
        SELECT count(*) FROM pg_collation
        WHERE collversion IS NOT NULL AND collversion <> pg_collation_actual_version(oid)
        """
      ).scalar
      if let count, count != "0" {
        remarks.append(
          "database \(name): \(count) collations have another version on this host; reindex what uses them")
      }
    }
    return remarks
  }

  /// Puts the cluster's own access rules in force.
  func openToClients() throws(TidemarkError) {
    for name in ["pg_hba.conf", "pg_ident.conf"] {
      try settings.tree.write(try settings.accessFile(name), to: "\(side)/\(name)")
    }
    let result = try run("pg_ctl", ["reload", "-s", "-D", directory])
    guard result.succeeded else { throw failed("PostgreSQL didn't reload its configuration", result.errorText) }
  }

  /// Stops what was started, after a failure or a signal: no program is needed for it.
  package func stop() { Postmaster(in: directory)?.end() }

  /// Stops the server as for a restart: everything is in the files.
  package func shutDown() throws(TidemarkError) {
    let result = try run("pg_ctl", ["stop", "-s", "-w", "-t", "600", "-m", "fast", "-D", directory])
    guard result.succeeded else { throw failed("PostgreSQL didn't stop", result.errorText) }
  }

  /// What an earlier run said isn't what the next one ends with.
  private func setLogAside() throws(TidemarkError) {
    if fileExists(log) { try DurableFile.move(log, to: "\(log).before") }
  }

  /// The last line of the server's log that says why it ended. Refused logins while it starts are none.
  private func lastFatal() -> String? {
    // Without the log the error stands without the server's words.
    guard let bytes = try? readFile(log, limit: 64 << 20) else { return nil }
    let text = String(decoding: bytes.suffix(64 << 10), as: UTF8.self)
    return text.split(separator: "\n").last {
      ($0.contains("FATAL:") || $0.contains("PANIC:")) && !$0.contains("the database system is")
    }.map(String.init)
  }

  private func failed(_ summary: String, _ detail: String) -> TidemarkError {
    return TidemarkError(
      .recoveryFailed, summary, object: directory, cause: lastFatal() ?? (detail.isEmpty ? nil : detail),
      kept: "the repository, unchanged, and the restored files", next: "read \(log)")
  }
}
