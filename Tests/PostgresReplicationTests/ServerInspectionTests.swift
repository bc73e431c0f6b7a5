// What is read of a server, compared with pg_controldata and with what the test set.
import Diagnostics
import SystemSupport
import TestSupport
import Testing

@testable import PostgresReplication

@Suite("Inspecting a server") struct ServerInspectionTests {
  /// A line of pg_controldata.
  func control(_ server: PostgresServer, _ name: String) throws -> String? {
    let outcome = try ChildProcess.run(
      "\(server.version.binDirectory)/pg_controldata", [server.dataDirectory], environment: ["LC_ALL": "C"])
    return outcome.outputText.split(separator: "\n").first { $0.hasPrefix("\(name):") }
      .map { String($0.split(separator: ":", maxSplits: 1)[1].drop { $0 == " " }) }
  }

  @Test("what the superuser sees agrees with pg_controldata", arguments: PostgresVersion.allAvailable)
  func superuser(version: PostgresVersion) throws {
    var options = PostgresServer.Options()
    options.keepsConfigurationOutside = true
    options.archiveCommand = "false"
    let server = try PostgresServer(version, options)
    let included = "\(server.configurationDirectory)/extra.conf"
    try DurableFile.write(Array("# nothing\n".utf8), to: included)
    let main = "\(server.configurationDirectory)/postgresql.conf"
    try DurableFile.write(readFile(main) + Array("include 'extra.conf'\nwork_mem = '5MB'\n".utf8), to: main)
    try PostgresServer.give(server.configurationDirectory)
    try server.psql("SELECT pg_reload_conf()")
    let location = try server.createTablespace("fast")
    try server.psql("ALTER SYSTEM SET maintenance_work_mem = '65MB'; CREATE DATABASE crm")
    let connection = try PostgresConnection(ConnectionInfo(server.connectionString))
    let replication = try PostgresConnection(ConnectionInfo(server.connectionString), for: .replication)
    let inspection = try ServerInspection(reading: connection)
    let identity = try replication.identifySystem()

    #expect(String(inspection.systemIdentifier.rawValue) == (try control(server, "Database system identifier")))
    #expect(String(inspection.catalogVersion) == (try control(server, "Catalog version number")))
    #expect(String(inspection.controlVersion) == (try control(server, "pg_control version number")))
    #expect(inspection.blockByteCount == 8192)
    #expect(inspection.walSegmentByteCount == 16 << 20)
    #expect(try replication.showWALSegmentByteCount() == 16 << 20)
    #expect(try replication.showDataDirectoryMode() == 0o700)
    #expect(identity.systemIdentifier == inspection.systemIdentifier)
    #expect(identity.timeline == inspection.timeline)
    #expect(inspection.position != nil)
    #expect(inspection.version.major == version.rawValue)
    #expect(inspection.hasDataChecksums)
    #expect(!inspection.isInRecovery)
    #expect(inspection.archiveMode == "on" && inspection.archiveCommand == "false")
    #expect(inspection.walLevel == "replica" && inspection.walSendersMax == 8)
    #expect(inspection.walSendersInUse == 1)
    #expect(inspection.bootstrapRole == "postgres")
    #expect(inspection.role == ServerRole(name: "postgres", isSuperuser: true, hasReplication: true, isMonitor: true))
    #expect(inspection.dataDirectory == server.dataDirectory)
    #expect(inspection.settings.first { $0.name == "work_mem" }?.value == "5120")
    #expect(inspection.settings.first { $0.name == "work_mem" }?.sourceFile == main)
    #expect(inspection.tablespaces.first { $0.name == "fast" }?.location == location)
    let crm = try #require(inspection.databases.first { $0.name == "crm" })
    #expect(crm.encoding == "UTF8" && crm.collate == "C.UTF-8" && crm.localeProvider == "c")
    #expect(crm.collationVersion == crm.actualCollationVersion)
    #expect((crm.byteCount ?? 0) > 1 << 20)
    #expect(inspection.extensions.map(\.name) == ["plpgsql"])
    #expect(inspection.notes.isEmpty)
    func path(_ kind: ConfigurationFile.Kind) -> [String] {
      inspection.configurationFiles.filter { $0.kind == kind }.map(\.path)
    }
    #expect(path(.main) == [main])
    #expect(path(.access) == ["\(server.configurationDirectory)/pg_hba.conf"])
    #expect(path(.ident) == ["\(server.configurationDirectory)/pg_ident.conf"])
    #expect(path(.automatic) == ["\(server.dataDirectory)/postgresql.auto.conf"])
    #expect(inspection.configurationFiles.allSatisfy { $0.isInsideDataDirectory == ($0.kind == .automatic) })
  }

  @Test(
    "a replication role in pg_monitor sees enough, and a bare one is told which grants it lacks",
    arguments: PostgresVersion.allAvailable)
  func roles(version: PostgresVersion) throws {
    let server = try PostgresServer(version)
    try server.psql(
      """
      CREATE ROLE monitor LOGIN REPLICATION; GRANT pg_monitor TO monitor; CREATE ROLE bare LOGIN REPLICATION;
      CREATE DATABASE closed; REVOKE CONNECT ON DATABASE closed FROM PUBLIC;
      """)
    func inspect(_ user: String) throws -> ServerInspection {
      try ServerInspection(
        reading: PostgresConnection(
          ConnectionInfo("host=\(server.socketDirectory) port=\(server.port) user=\(user)")))
    }
    let monitor = try inspect("monitor")
    #expect(monitor.role == ServerRole(name: "monitor", isSuperuser: false, hasReplication: true, isMonitor: true))
    #expect(monitor.dataDirectory == server.dataDirectory)
    #expect(monitor.configurationFiles.map(\.path).contains("\(server.dataDirectory)/pg_hba.conf"))
    #expect(monitor.databases.allSatisfy { $0.byteCount != nil })
    #expect(monitor.notes.allSatisfy { $0.contains("only included") })
    #expect(monitor.notes.count == (version == .v15 ? 1 : 3))

    let bare = try inspect("bare")
    #expect(bare.systemIdentifier == monitor.systemIdentifier)
    #expect(bare.dataDirectory == nil)
    #expect(bare.configurationFiles.isEmpty)
    #expect(bare.databases.first { $0.name == "closed" }?.byteCount == nil)
    #expect(bare.notes.contains { $0.contains("GRANT pg_monitor TO bare") })
    #expect(bare.bootstrapRole == "postgres")
  }

  @Test("the archiver's last failure shows", arguments: PostgresVersion.allAvailable)
  func archiver(version: PostgresVersion) throws {
    var options = PostgresServer.Options()
    options.archiveCommand = "false"
    let server = try PostgresServer(version, options)
    let connection = try PostgresConnection(ConnectionInfo(server.connectionString))
    try server.psql("SELECT pg_switch_wal()")
    #expect(try eventually { try ServerInspection(reading: connection, includesSizes: false).archiver.isFailing })
    let failed = try ServerInspection(reading: connection).archiver
    #expect(failed.archivedCount == 0 && failed.failedCount > 0 && failed.lastFailedName?.count == 24)
    try server.psql("ALTER SYSTEM SET archive_command = 'true'; SELECT pg_reload_conf()")
    #expect(try eventually(.seconds(70)) { try !ServerInspection(reading: connection).archiver.isFailing })
  }

  @Test(
    "a standby says so, can be backed up, and its promotion begins a timeline", arguments: PostgresVersion.allAvailable)
  func standby(version: PostgresVersion) throws {
    let primary = try PostgresServer(version)
    let temporary = try TemporaryDirectory()
    let directory = "\(temporary.path)/standby"
    try primary.run("pg_basebackup", ["-U", "postgres", "-R", "-c", "fast", "-X", "stream", "-D", directory])
    try PostgresServer.give(temporary.path)
    let standby = try PostgresServer(version, dataDirectory: directory)
    try standby.start()
    let info = try ConnectionInfo(standby.connectionString)
    let before = try ServerInspection(reading: PostgresConnection(info))
    #expect(before.isInRecovery)
    #expect(before.timeline.rawValue == 1)
    #expect(before.setting("primary_conninfo")?.contains(primary.socketDirectory) == true)
    try primary.psql("CHECKPOINT; SELECT pg_switch_wal()")
    let backup = try CollectedBackup(standby)
    #expect(try #require(backup.end).stopLSN >= (try #require(backup.start).startLSN))

    try standby.psql("SELECT pg_promote()")
    let after = try ServerInspection(reading: PostgresConnection(info))
    #expect(!after.isInRecovery)
    #expect(after.timeline.rawValue == 2)
    let replication = try PostgresConnection(info, for: .replication)
    #expect(try replication.identifySystem().timeline.rawValue == 2)
    let history = try replication.timelineHistory(after.timeline)
    #expect(history.name == "00000002.history")
    #expect(history.content.hasPrefix("1\t"))
    let error = #expect(throws: TidemarkError.self) { try replication.timelineHistory(before.timeline) }
    #expect(error?.code == .serverFailed)
  }
}
