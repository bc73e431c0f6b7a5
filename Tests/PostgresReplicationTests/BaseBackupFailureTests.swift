// Streams that end badly: none may hang, and none may leave a walsender behind.
import Diagnostics
import Glibc
import PostgresReplication
import SystemSupport
import TestSupport
import Testing

@Suite("Base backups that end badly") struct BaseBackupFailureTests {
  /// Slow enough to be disturbed in the middle.
  static var slow: BaseBackupOptions {
    var options = BaseBackupOptions(label: "slow")
    options.transferRateMax = 2048
    return options
  }

  static func walSenderCount(_ server: PostgresServer) throws -> Int? {
    Int(try server.psql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'"))
  }

  @Test("killing the server in the middle ends the stream with an error", arguments: PostgresVersion.allAvailable)
  func killedServer(version: PostgresVersion) throws {
    let server = try PostgresServer(version)
    let connection = try PostgresConnection(ConnectionInfo(server.connectionString), for: .replication)
    var pieces = 0
    let began = ContinuousClock.now
    let error = #expect(throws: TidemarkError.self) {
      try BaseBackupStream(connection, Self.slow).run { event in
        guard case .data = event else { return }
        pieces += 1
        if pieces == 20 { try server.kill() }
      }
    }
    #expect(error?.code == .serverUnreachable, "\(String(describing: error))")
    #expect(pieces >= 20)
    #expect(ContinuousClock.now - began < .seconds(20))
  }

  @Test("killing the walsender in the middle ends the stream with an error", arguments: PostgresVersion.allAvailable)
  func killedWalSender(version: PostgresVersion) throws {
    let server = try PostgresServer(version)
    let connection = try PostgresConnection(ConnectionInfo(server.connectionString), for: .replication)
    let process = connection.serverProcess
    var isKilled = false
    let error = #expect(throws: TidemarkError.self) {
      try BaseBackupStream(connection, Self.slow).run { event in
        if case .data = event, !isKilled {
          isKilled = true
          kill(process, SIGKILL)
        }
      }
    }
    #expect(error?.code == .serverUnreachable)
    let later = #expect(throws: TidemarkError.self) { try connection.identifySystem() }
    #expect(later?.code == .serverUnreachable)
  }

  @Test(
    "an administrator's end of the walsender is told in the server's words", arguments: PostgresVersion.allAvailable)
  func terminatedWalSender(version: PostgresVersion) throws {
    let server = try PostgresServer(version)
    let connection = try PostgresConnection(ConnectionInfo(server.connectionString), for: .replication)
    // From another thread: a server whose client doesn't read can't tell it why it ends.
    let process = connection.serverProcess
    var administrator: WorkerThread<String>?
    let error = #expect(throws: TidemarkError.self) {
      try BaseBackupStream(connection, Self.slow).run { event in
        if case .data = event, administrator == nil {
          administrator = WorkerThread("administrator") { try server.psql("SELECT pg_terminate_backend(\(process))") }
        }
      }
    }
    #expect(try administrator?.join() == "t")
    #expect(error?.code == .serverUnreachable)
    #expect(error?.cause?.contains("57P01") == true, "\(String(describing: error))")
  }

  @Test("a stopped walsender is reported as silent within the limit", arguments: PostgresVersion.allAvailable)
  func silentWalSender(version: PostgresVersion) throws {
    let server = try PostgresServer(version)
    let connection = try PostgresConnection(ConnectionInfo(server.connectionString), for: .replication)
    let process = connection.serverProcess
    defer { kill(process, SIGCONT) }
    var options = Self.slow
    options.silenceLimit = .seconds(1)
    var stopped: ContinuousClock.Instant?
    let error = #expect(throws: TidemarkError.self) {
      try BaseBackupStream(connection, options).run { event in
        if case .data = event, stopped == nil {
          kill(process, SIGSTOP)
          stopped = .now
        }
      }
    }
    #expect(error?.code == .serverSilent)
    #expect(error?.next?.contains("\(process)") == true)
    let waited = ContinuousClock.now - (try #require(stopped))
    #expect(waited >= .seconds(1) && waited < .seconds(15))
    // Once it runs again, it finds the backup cancelled.
    kill(process, SIGCONT)
    #expect(try eventually { try Self.walSenderCount(server) == 0 })
  }

  @Test("a handler's error ends the backup on the server too", arguments: PostgresVersion.allAvailable)
  func handlerFails(version: PostgresVersion) throws {
    let server = try PostgresServer(version)
    let connection = try PostgresConnection(ConnectionInfo(server.connectionString), for: .replication)
    let error = #expect(throws: TidemarkError.self) {
      try BaseBackupStream(connection, Self.slow).run { event in
        if case .data = event { throw TidemarkError(.regionUnreachable, "no region") }
      }
    }
    #expect(error?.code == .regionUnreachable)
    #expect(try eventually { try Self.walSenderCount(server) == 0 })
  }

  @Test("a backup that waits for its checkpoint is cancelled at once")
  func cancelledBeforeStart() throws {
    var serverOptions = PostgresServer.Options()
    // Long enough that a spread checkpoint with something to write lasts for minutes.
    serverOptions.settings = ["checkpoint_timeout": "1h", "checkpoint_completion_target": "0.9"]
    let server = try PostgresServer(.v15, serverOptions)
    try server.psql("CREATE TABLE t AS SELECT generate_series(1, 100000) AS n")
    let connection = try PostgresConnection(ConnectionInfo(server.connectionString), for: .replication)
    var options = BaseBackupOptions(label: "spread")
    options.checkpoint = .spread
    options.startLimit = .seconds(1)
    let error = #expect(throws: TidemarkError.self) { try BaseBackupStream(connection, options).run { _ in } }
    #expect(error?.code == .serverSilent)
    #expect(try eventually(.seconds(10)) { try Self.walSenderCount(server) == 0 })
  }

  @Test("too few walsenders are reported with the setting to raise")
  func tooFewWalSenders() throws {
    var options = PostgresServer.Options()
    options.settings = ["max_wal_senders": "1"]
    let server = try PostgresServer(.v15, options)
    let info = try ConnectionInfo(server.connectionString)
    let holder = try PostgresConnection(info, for: .replication)
    let error = #expect(throws: TidemarkError.self) { try PostgresConnection(info, for: .replication) }
    #expect(error?.code == .serverUnreachable)
    #expect(error?.cause?.contains("53300") == true)
    #expect(error?.next?.contains("max_wal_senders") == true)
    holder.close()
    #expect(try eventually { (try? PostgresConnection(info, for: .replication)) != nil })
  }
}
