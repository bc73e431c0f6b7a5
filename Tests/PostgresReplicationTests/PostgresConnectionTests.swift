// Connections to real servers: how they open, and how each failure is told.
import Diagnostics
import Glibc
import PostgresReplication
import SystemSupport
import TestSupport
import Testing

@Suite("Connections to PostgreSQL") struct PostgresConnectionTests {
  @Test("a query over the Unix socket gives text and NULL", arguments: PostgresVersion.allAvailable)
  func queries(version: PostgresVersion) throws {
    let server = try PostgresServer(version)
    let connection = try PostgresConnection(ConnectionInfo(server.connectionString))
    #expect(connection.serverVersion.major == version.rawValue)
    let answer = try connection.query("SELECT $1::text AS given, $2::text, 'ä', ''", ["it's", nil])
    #expect(answer.columns.first == "given")
    #expect(answer.rows == [["it's", nil, "ä", ""]])
    #expect(
      try connection.query("SELECT current_database(), current_setting('application_name')").rows == [
        ["postgres", "tidemark"]
      ])
    #expect(try connection.query("SHOW search_path").scalar == "pg_catalog")
    let error = #expect(throws: TidemarkError.self) { try connection.query("SELECT 1 / 0") }
    #expect(error?.code == .serverFailed)
    #expect(error?.cause == "ERROR 22012: division by zero")
    // An error of the server leaves the connection usable.
    #expect(try connection.query("SELECT 1").scalar == "1")
  }

  @Test("a password comes from the passfile, over TCP", arguments: PostgresVersion.allAvailable)
  func password(version: PostgresVersion) throws {
    var options = PostgresServer.Options()
    options.hostAuthentication = "scram-sha-256"
    let server = try PostgresServer(version, options)
    try server.psql("CREATE ROLE tidemark LOGIN REPLICATION PASSWORD 's3cret-word'")
    let temporary = try TemporaryDirectory()
    func passfile(_ name: String, _ password: String) throws -> String {
      let path = "\(temporary.path)/\(name)"
      let lines = ["postgres", "replication"].map { "127.0.0.1:\(server.port):\($0):tidemark:\(password)\n" }
      try DurableFile.write(Array(lines.joined().utf8), to: path)
      return path
    }
    let base = "\(server.hostConnectionString) user=tidemark"
    let right = try ConnectionInfo("\(base) passfile=\(passfile("right", "s3cret-word"))")
    #expect(try PostgresConnection(right).query("SELECT current_user").scalar == "tidemark")
    #expect(try PostgresConnection(right, for: .replication).identifySystem().timeline.rawValue == 1)

    for purpose in [ConnectionInfo.Purpose.queries, .replication] {
      let wrong = try ConnectionInfo("\(base) passfile=\(passfile("wrong", "wr0ng-word"))")
      let refused = #expect(throws: TidemarkError.self) { try PostgresConnection(wrong, for: purpose) }
      #expect(refused?.code == .serverRefused)
      #expect(refused?.cause?.contains("28P01") == true)
      #expect(refused?.operatorText.contains("wr0ng-word") == false)
      let none = try ConnectionInfo("\(base) passfile=\(temporary.path)/missing")
      let missing = #expect(throws: TidemarkError.self) { try PostgresConnection(none, for: purpose) }
      #expect(missing?.code == .serverRefused)
      #expect(missing?.next?.contains(".pgpass") == true)
    }
  }

  @Test("TLS with verify-full works and refuses a server of another authority")
  func tls() throws {
    var options = PostgresServer.Options()
    options.certificate = try TestCertificate()
    let server = try PostgresServer(.v15, options)
    let authority = try #require(options.certificate).authorityPath
    let base = "\(server.hostConnectionString) user=postgres sslmode=verify-full"
    let info = try ConnectionInfo("\(base) sslrootcert=\(authority)")
    let connection = try PostgresConnection(info)
    #expect(try connection.query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").scalar == "t")
    let backup = try CollectedBackup(PostgresConnection(info, for: .replication))
    #expect(
      try CollectedBackup.names(inArchive: try #require(backup.archives.last).bytes).contains("global/pg_control"))

    let other = try TestCertificate()
    let error = #expect(throws: TidemarkError.self) {
      try PostgresConnection(ConnectionInfo("\(base) sslrootcert=\(other.authorityPath)"))
    }
    #expect(error?.code == .serverUnreachable)
    #expect(error?.cause?.contains("certificate") == true)
  }

  @Test("a role without the attribute REPLICATION is told what it lacks", arguments: PostgresVersion.allAvailable)
  func noReplicationAttribute(version: PostgresVersion) throws {
    let server = try PostgresServer(version)
    try server.psql("CREATE ROLE plain LOGIN")
    let info = try ConnectionInfo("host=\(server.socketDirectory) port=\(server.port) user=plain")
    let error = #expect(throws: TidemarkError.self) { try PostgresConnection(info, for: .replication) }
    #expect(error?.code == .serverRefused)
    #expect(error?.next == "ALTER ROLE plain REPLICATION")
    let denied = #expect(throws: TidemarkError.self) {
      try PostgresConnection(info).query("SELECT pg_read_file('PG_VERSION')")
    }
    #expect(denied?.code == .serverRefused)
  }

  @Test("a missing line in pg_hba.conf is named", arguments: PostgresVersion.allAvailable)
  func noAccessLine(version: PostgresVersion) throws {
    var options = PostgresServer.Options()
    options.accessLines = ["local replication postgres reject"]
    let server = try PostgresServer(version, options)
    let info = try ConnectionInfo(server.connectionString)
    let error = #expect(throws: TidemarkError.self) { try PostgresConnection(info, for: .replication) }
    #expect(error?.code == .serverRefused)
    #expect(error?.cause?.contains("28000") == true)
    #expect(error?.next?.contains("pg_hba.conf") == true)
  }

  @Test("a port that nobody listens on is unreachable")
  func unreachable() throws {
    let port = try LoopbackPort.free()
    let error = #expect(throws: TidemarkError.self) {
      try PostgresConnection(ConnectionInfo("host=127.0.0.1 port=\(port) user=nobody password=hidden-word"))
    }
    #expect(error?.code == .serverUnreachable)
    #expect(error?.object == "server at 127.0.0.1, port \(port) (user nobody)")
    #expect(error?.operatorText.contains("hidden-word") == false)
  }

  @Test("a host that accepts and never answers costs connect_timeout, and the next host is tried")
  func hostsInOrder() throws {
    let server = try PostgresServer(.v15)
    let mute = try MuteServer()
    let began = ContinuousClock.now
    let connection = try PostgresConnection(
      ConnectionInfo("host=127.0.0.1,127.0.0.1 port=\(mute.port),\(server.port) user=postgres connect_timeout=2"))
    #expect(try connection.query("SELECT inet_server_port()").scalar == String(server.port))
    #expect(ContinuousClock.now - began >= .seconds(2))
    // A host that wants a standby is passed over.
    let standby = #expect(throws: TidemarkError.self) {
      try PostgresConnection(ConnectionInfo("\(server.connectionString) target_session_attrs=standby"))
    }
    #expect(standby?.code == .serverUnreachable)
  }

  @Test("a server older than PostgreSQL 15 is refused by its version")
  func tooOld() throws {
    let server = try OldServer(version: "14.13")
    let error = #expect(throws: TidemarkError.self) {
      try PostgresConnection(
        ConnectionInfo("host=127.0.0.1 port=\(server.port) user=x sslmode=disable gssencmode=disable"))
    }
    #expect(error?.code == .serverUnsuitable)
    #expect(error?.summary == "PostgreSQL 14.13 is too old")
  }

  @Test("a query that says nothing for too long is given up and cancelled", arguments: PostgresVersion.allAvailable)
  func silentQuery(version: PostgresVersion) throws {
    let server = try PostgresServer(version)
    let connection = try PostgresConnection(ConnectionInfo(server.connectionString), silenceLimit: .seconds(1))
    let process = connection.serverProcess
    let error = #expect(throws: TidemarkError.self) { try connection.query("SELECT pg_sleep(600)") }
    #expect(error?.code == .serverSilent)
    #expect(
      try eventually { try server.psql("SELECT count(*) FROM pg_stat_activity WHERE pid = \(process)") == "0" })
  }

  @Test("a session that an administrator ends is told in the server's words", arguments: PostgresVersion.allAvailable)
  func terminated(version: PostgresVersion) throws {
    let server = try PostgresServer(version)
    let connection = try PostgresConnection(ConnectionInfo(server.connectionString))
    try server.psql("SELECT pg_terminate_backend(\(connection.serverProcess), 10000)")
    let error = #expect(throws: TidemarkError.self) { try connection.query("SELECT 1") }
    #expect(error?.code == .serverUnreachable)
    #expect(error?.cause?.contains("57P01") == true, "\(String(describing: error))")
  }

  @Test("notices reach the handler")
  func notices() throws {
    let server = try PostgresServer(.v15)
    var notices: [ServerMessage] = []
    let connection = try PostgresConnection(ConnectionInfo(server.connectionString)) { notices.append($0) }
    try connection.execute("DO $$ BEGIN RAISE WARNING 'look' USING HINT = 'here'; END $$")
    #expect(notices.map(\.description) == ["WARNING 01000: look; hint: here"])
  }
}

@Suite("Connection strings") struct ConnectionInfoTests {
  @Test(
    "a password is never shown",
    arguments: ["host=/tmp user=u password='p w' sslpassword=pw2", "postgresql://u:p%20w@/?host=/tmp&sslpassword=pw2"])
  func hidden(text: String) throws {
    let info = try ConnectionInfo(text)
    #expect(info["password"] == "p w")
    #expect(!info.description.contains("p w") && !info.description.contains("pw2"))
    #expect(info.description.contains("host=/tmp") && info.description.contains("user=u"))
  }

  @Test(
    "an error about a string quotes nothing of it but an option's name",
    arguments: [
      "host=/tmp password=my secret", "postgres://u:secret@[::1/x", "password='secret", "postgres://u:secret%zz@h/x",
    ])
  func unparsable(text: String) throws {
    let error = #expect(throws: TidemarkError.self) { try ConnectionInfo(text) }
    #expect(error?.code == .configurationInvalid)
    #expect(error?.operatorText.contains("secret") == false)
    let unknown = #expect(throws: TidemarkError.self) { try ConnectionInfo("hots=/tmp") }
    #expect(unknown?.cause?.contains("hots") == true)
  }
}
