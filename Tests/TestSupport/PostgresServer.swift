// A private PostgreSQL cluster: its own directory, port and socket, run by user postgres when we are root (PostgreSQL
// refuses root). It is stopped and removed when it goes away, and it can't outlive the tests: a watcher in its process
// group ends it when the test process is gone, however that ends.
import Diagnostics
import Glibc
import Synchronization
import SystemSupport

package final class PostgresServer: Sendable {
  /// How the cluster is made and run.
  package struct Options: Sendable {
    /// For `postgresql.conf`, after the tests' own.
    package var settings: [String: String] = [:]
    package var archiveCommand: String?
    package var hasChecksums = true
    /// Whether the server syncs its files.
    package var isDurable = false
    /// As Debian has it: the configuration files lie in a directory of their own.
    package var keepsConfigurationOutside = false
    /// What TCP connections need: "trust" or "scram-sha-256". Unix sockets are trusted.
    package var hostAuthentication = "trust"
    /// Makes the server speak TLS.
    package var certificate: TestCertificate?
    /// Whole lines of `pg_hba.conf` that stand before the tests' own.
    package var accessLines: [String] = []
    package var initdbArguments: [String] = []

    package init() {}
  }

  package enum StopMode: Int32, Sendable {
    case smart, fast, immediate
    var signal: Int32 {
      switch self {
      case .smart: SIGTERM
      case .fast: SIGINT
      case .immediate: SIGQUIT
      }
    }
  }

  package let version: PostgresVersion
  package let options: Options
  package let dataDirectory: String
  /// Where the configuration files are; the data directory unless they lie outside.
  package let configurationDirectory: String
  package let socketDirectory: String
  package let port: UInt16
  let temporary: TemporaryDirectory
  /// A private directory beside the data, removed with the server.
  package var temporaryPath: String { temporary.path }
  private let running = Mutex<Running?>(nil)

  /// The postmaster, and the pipe whose end its watcher waits for.
  private struct Running: Sendable {
    let child: ChildProcess
    // Only held: closed when this goes away or the process ends.
    nonisolated(unsafe) let lifeline: Pipe
  }

  /// Makes a new cluster and starts it.
  package convenience init(_ version: PostgresVersion, _ options: Options = Options()) throws(TidemarkError) {
    try self.init(version, existing: nil, options)
    try initialize()
    try start()
  }

  /// Takes the cluster in `dataDirectory`, such as a restored one, with the configuration that it brings, and doesn't
  /// start it. `options.settings` are given on the command line. The directory isn't removed afterwards.
  package convenience init(
    _ version: PostgresVersion, dataDirectory: String, _ options: Options = Options()
  ) throws(TidemarkError) {
    try self.init(version, existing: dataDirectory, options)
    try Self.give(dataDirectory)
  }

  private let isForeign: Bool

  private init(_ version: PostgresVersion, existing: String?, _ options: Options) throws(TidemarkError) {
    self.version = version
    self.options = options
    temporary = try TemporaryDirectory()
    isForeign = existing != nil
    dataDirectory = existing ?? "\(temporary.path)/data"
    socketDirectory = "\(temporary.path)/s"
    configurationDirectory = options.keepsConfigurationOutside ? "\(temporary.path)/etc" : dataDirectory
    port = try LoopbackPort.free()
    try DurableFile.createDirectories(socketDirectory)
    try Self.give(temporary.path)
  }

  deinit { try? stop(.immediate) }

  /// Over the Unix socket, as the superuser.
  package var connectionString: String { "host=\(socketDirectory) port=\(port) user=postgres" }
  /// Over TCP, without a user.
  package var hostConnectionString: String { "host=127.0.0.1 port=\(port)" }
  /// What the server logged last.
  package var log: String {
    String(((try? readFile(logPath)).map { String(decoding: $0, as: UTF8.self) } ?? "").suffix(4000))
  }
  /// The postmaster, while it runs.
  package var pid: pid_t? { running.withLock { $0?.child.pid } }
  package var isRunning: Bool { running.withLock { $0?.child.isRunning ?? false } }
  private var logPath: String { "\(temporary.path)/log" }

  // MARK: Starting and stopping

  /// Starts the server and waits until it accepts connections.
  /// - Parameter settings: more settings for the command line.
  package func start(
    settings: [String: String] = [:], limit: Duration = .seconds(60)
  ) throws(TidemarkError) {
    let deadline = Deadline.after(limit)
    while true {
      try launch(settings)
      let outcome = try waitUntilReady(deadline)
      if outcome { return }
      let text = log
      try stop(.immediate)
      // A killed server's processes take a moment to go, and they hold its shared memory until then.
      let isTransient = text.contains("shared memory block") || text.contains("is still in use")
      guard isTransient, !deadline.hasPassed else {
        throw TidemarkError(.localIO, "a test server doesn't start", object: dataDirectory, cause: text)
      }
      unlink(logPath)
    }
  }

  /// Starts the postmaster without waiting for anything.
  package func launch(_ settings: [String: String] = [:]) throws(TidemarkError) {
    var arguments = ["-D", dataDirectory, "-k", socketDirectory, "-p", String(port), "-h", "127.0.0.1"]
    if options.keepsConfigurationOutside {
      arguments += ["-c", "config_file=\(configurationDirectory)/postgresql.conf"]
    }
    if isForeign { for (name, value) in options.settings { arguments += ["-c", "\(name)=\(value)"] } }
    for (name, value) in settings { arguments += ["-c", "\(name)=\(value)"] }
    let lifeline = try Pipe()
    // The pid stays the server's own: the shell becomes the server.
    let script = "exec 3<&0; ( read -r line <&3; kill -KILL 0 ) >/dev/null 2>&1 & exec \"$@\" </dev/null 3<&-"
    let command = Self.unprivileged("\(version.binDirectory)/postgres", arguments)
    let child = try ChildProcess(
      "/bin/sh", ["-c", script, "sh"] + command, environment: environment, workingDirectory: temporary.path,
      input: .descriptor(lifeline.reading), output: .file(logPath), error: .file(logPath), ownGroup: true)
    running.withLock { $0 = Running(child: child, lifeline: lifeline) }
  }

  /// Whether the server accepts connections before the deadline; `false` when it ended.
  package func waitUntilReady(_ deadline: Deadline = .after(.seconds(60))) throws(TidemarkError) -> Bool {
    while let child = running.withLock({ $0?.child }), child.isRunning {
      let arguments = ["-q", "-h", socketDirectory, "-p", String(port), "-d", "postgres", "-U", "postgres"]
      if try ChildProcess.run("\(version.binDirectory)/pg_isready", arguments).succeeded { return true }
      if deadline.hasPassed { return false }
      _ = try child.wait(until: .after(.milliseconds(20)))
    }
    return false
  }

  /// Stops the server, if it runs, and waits for its end.
  package func stop(_ mode: StopMode = .fast) throws(TidemarkError) {
    guard let current = running.withLock({ $0.take() }) else { return }
    current.child.signal(mode.signal)
    if try current.child.wait(until: .after(.seconds(60))) == nil { try current.child.kill() }
    // The watcher, which is all that is left of the group.
    current.child.signalGroup(SIGKILL)
  }

  /// SIGKILL for the postmaster; its children see that and end.
  package func kill() throws(TidemarkError) {
    guard let current = running.withLock({ $0.take() }) else { return }
    try current.child.kill()
    current.child.signalGroup(SIGKILL)
  }

  /// Waits for the server to end by itself, as after a recovery that is to shut down.
  package func waitForEnd(limit: Duration = .seconds(60)) throws(TidemarkError) -> ChildProcess.Ending? {
    guard let child = running.withLock({ $0?.child }) else { return nil }
    return try child.wait(until: .after(limit))
  }

  // MARK: Programs

  /// Runs SQL in psql and returns its output, unaligned and without headers.
  @discardableResult
  package func psql(_ sql: String, database: String = "postgres", user: String = "postgres") throws(TidemarkError)
    -> String
  {
    let outcome = try run(
      "psql", ["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", user, "-d", database], input: Array(sql.utf8))
    let text = outcome.outputText
    return text.hasSuffix("\n") ? String(text.dropLast()) : text
  }

  /// Runs pgbench, such as `["-i", "-s", "2"]` or `["-t", "100"]`.
  package func pgbench(_ arguments: [String], database: String = "postgres") throws(TidemarkError) {
    try run("pgbench", arguments + ["-U", "postgres", database])
  }

  /// Runs one of this version's client programs with the server's host and port.
  /// - Throws: `local-io` with what the program wrote, unless it succeeds.
  @discardableResult
  package func run(
    _ program: String, _ arguments: [String], input: [UInt8]? = nil, limit: Duration = .seconds(300)
  ) throws(TidemarkError) -> ProgramOutcome {
    let outcome = try ChildProcess.run(
      "\(version.binDirectory)/\(program)", ["-h", socketDirectory, "-p", String(port)] + arguments,
      environment: environment, input: input, deadline: .after(limit))
    guard outcome.succeeded else {
      throw TidemarkError(.localIO, "\(program) failed", object: dataDirectory, cause: outcome.errorText)
    }
    return outcome
  }

  /// Makes a tablespace in a directory of its own and returns the directory.
  package func createTablespace(_ name: String) throws(TidemarkError) -> String {
    let location = "\(temporary.path)/tablespace-\(name)"
    try DurableFile.createDirectories(location)
    try Self.give(location)
    try psql("CREATE TABLESPACE \"\(name)\" LOCATION '\(location)'")
    return location
  }

  // MARK: Making the cluster

  private var environment: [String: String] {
    ["PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": temporary.path, "PGTZ": "UTC"]
  }

  private func initialize() throws(TidemarkError) {
    var arguments = [
      "-D", dataDirectory, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync",
    ]
    if options.hasChecksums { arguments.append("--data-checksums") }
    if !options.hasChecksums, version == .v18 { arguments.append("--no-data-checksums") }
    let command = Self.unprivileged("\(version.binDirectory)/initdb", arguments + options.initdbArguments)
    let outcome = try ChildProcess.run(
      command[0], Array(command.dropFirst()), environment: environment, deadline: .after(.seconds(120)))
    guard outcome.succeeded else {
      throw TidemarkError(.localIO, "initdb failed", object: dataDirectory, cause: outcome.errorText)
    }
    try configure()
  }

  private func configure() throws(TidemarkError) {
    var settings = [
      "wal_level": "replica", "max_wal_senders": "8", "max_connections": "40", "shared_buffers": "32MB",
      "fsync": options.isDurable ? "on" : "off", "log_line_prefix": "%m [%p] ", "timezone": "UTC",
      "checkpoint_timeout": "1h", "max_wal_size": "1GB",
    ]
    if let command = options.archiveCommand {
      settings["archive_mode"] = "on"
      settings["archive_command"] = command
    }
    if let certificate = options.certificate {
      try install(certificate.certificatePath, as: "server.crt")
      try install(certificate.keyPath, as: "server.key")
      settings["ssl"] = "on"
      settings["ssl_cert_file"] = "\(dataDirectory)/server.crt"
      settings["ssl_key_file"] = "\(dataDirectory)/server.key"
    }
    settings.merge(options.settings) { $1 }
    if options.keepsConfigurationOutside {
      try DurableFile.createDirectories(configurationDirectory)
      for name in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
        try DurableFile.move("\(dataDirectory)/\(name)", to: "\(configurationDirectory)/\(name)")
      }
      settings["data_directory"] = dataDirectory
      settings["hba_file"] = "\(configurationDirectory)/pg_hba.conf"
      settings["ident_file"] = "\(configurationDirectory)/pg_ident.conf"
    }
    let main = "\(configurationDirectory)/postgresql.conf"
    let lines = settings.sorted { $0.key < $1.key }.map { name, value in
      "\(name) = '\(value.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "''"))'"
    }
    let added = "\n# Of the tests.\n" + lines.joined(separator: "\n") + "\n"
    try DurableFile.write(readFile(main) + Array(added.utf8), to: main)
    let host = options.certificate == nil ? "host" : "hostssl"
    let access =
      options.accessLines + [
        "local all all trust", "local replication all trust",
        "\(host) all all 127.0.0.1/32 \(options.hostAuthentication)",
        "\(host) replication all 127.0.0.1/32 \(options.hostAuthentication)",
      ]
    try DurableFile.write(
      Array((access.joined(separator: "\n") + "\n").utf8), to: "\(configurationDirectory)/pg_hba.conf")
    try Self.give(dataDirectory)
    try Self.give(configurationDirectory)
  }

  private func install(_ source: String, as name: String) throws(TidemarkError) {
    try DurableFile.write(readFile(source), to: "\(dataDirectory)/\(name)")
  }

  /// Hands `path` with all it holds to the user that runs servers.
  package static func give(_ path: String) throws(TidemarkError) {
    guard geteuid() == 0 else { return }
    let outcome = try ChildProcess.run("chown", ["-R", "postgres:postgres", "--", path])
    guard outcome.succeeded else {
      throw TidemarkError(.localPermission, "chown failed", object: path, cause: outcome.errorText)
    }
  }

  /// The command that runs `program` as the user that runs servers.
  package static func unprivileged(_ program: String, _ arguments: [String]) -> [String] {
    guard geteuid() == 0 else { return [program] + arguments }
    return ["/usr/bin/setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--", program] + arguments
  }
}
