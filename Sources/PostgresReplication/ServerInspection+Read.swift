// The queries of an inspection. Each stands alone, outside of a transaction, so that a refused one spoils no other.
import Diagnostics
import PostgresFormats

extension ServerInspection {
  /// Reads everything through `connection`.
  /// - Parameters:
  ///   - includesSizes: whether to add up the databases' files, which takes long with very many of them.
  ///   - sizeLimit: how long that may take.
  /// - Throws: ``ErrorCode/serverUnreachable`` and the like when the connection fails; ``ErrorCode/serverRefused`` when
  ///   the role may not even see what every role may by default; ``ErrorCode/streamInvalid`` for an answer that can't
  ///   be read.
  package init(
    reading connection: PostgresConnection, includesSizes: Bool = true, sizeLimit: Duration = .seconds(600)
  ) throws(TidemarkError) {
    precondition(connection.purpose == .queries, "an inspection runs SQL")
    var reader = InspectionReader(connection)
    version = connection.serverVersion

    let identity = try reader.row(
      """
      SELECT version(), system_identifier, pg_control_version, catalog_version_no, pg_is_in_recovery(),
        (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
      FROM pg_control_system()
      """)
    versionText = try identity.text(0)
    systemIdentifier = SystemIdentifier(rawValue: UInt64(bitPattern: try identity.number(1)))
    controlVersion = try identity.number(2)
    catalogVersion = try identity.number(3)
    isInRecovery = try identity.flag(4)
    clockMicroseconds = try identity.number(5)
    (timeline, position) = try reader.position(isInRecovery: isInRecovery)

    settings = try reader.settings()
    role = try reader.role()
    bootstrapRole = try reader.rows("SELECT rolname FROM pg_roles WHERE oid = 10").first?.optionalText(0)
    databases = try reader.databases(version, includesSizes: includesSizes, sizeLimit: sizeLimit)
    tablespaces = try reader.tablespaces()
    extensions = try reader.extensions()
    archiver = try reader.archiver()
    walSendersInUse = try reader.row("SELECT count(*) FROM pg_stat_replication").number(0)
    configurationFiles = try reader.configurationFiles(version, settings)
    notes = reader.notes
  }
}

/// A row whose columns are read by position; one that isn't as expected throws.
struct InspectionRow {
  let columns: [String?]

  func optionalText(_ index: Int) -> String? { index < columns.count ? columns[index] : nil }

  func text(_ index: Int) throws(TidemarkError) -> String {
    guard let text = optionalText(index) else { throw unreadable(index) }
    return text
  }

  func number<Number: FixedWidthInteger>(_ index: Int) throws(TidemarkError) -> Number {
    guard let number = Number(try text(index)) else { throw unreadable(index) }
    return number
  }

  func optionalNumber<Number: FixedWidthInteger>(_ index: Int) throws(TidemarkError) -> Number? {
    optionalText(index) == nil ? nil : try number(index) as Number
  }

  func flag(_ index: Int) throws(TidemarkError) -> Bool {
    switch try text(index) {
    case "t": true
    case "f": false
    default: throw unreadable(index)
    }
  }

  func lsn(_ index: Int) throws(TidemarkError) -> LSN {
    // The error that is thrown instead names the column.
    guard let lsn = try? LSN(text: try text(index)) else { throw unreadable(index) }
    return lsn
  }

  private func unreadable(_ index: Int) -> TidemarkError {
    TidemarkError(
      .streamInvalid, "the server's answer about itself can't be read", cause: "column \(index + 1) of \(columns.count)"
    )
  }
}

struct InspectionReader {
  private let connection: PostgresConnection
  private(set) var notes: [String] = []

  init(_ connection: PostgresConnection) { self.connection = connection }

  func rows(_ sql: String, silenceLimit: Duration? = nil) throws(TidemarkError) -> [InspectionRow] {
    try connection.query(sql, silenceLimit: silenceLimit).rows.map { InspectionRow(columns: $0) }
  }

  func row(_ sql: String) throws(TidemarkError) -> InspectionRow {
    guard let row = try rows(sql).first else {
      throw TidemarkError(.streamInvalid, "the server's answer about itself is empty", object: connection.serverName)
    }
    return row
  }

  /// The rows, or none and a note when the role may not see them.
  private mutating func permittedRows(_ sql: String, orNote note: String) throws(TidemarkError) -> [InspectionRow] {
    do throws(TidemarkError) {
      return try rows(sql)
    } catch {
      guard error.code == .serverRefused else { throw error }
      notes.append(note)
      return []
    }
  }

  /// The control file knows a promotion only after the checkpoint that follows it; the name of the current WAL file
  /// knows it at once, but a standby has none.
  func position(isInRecovery: Bool) throws(TidemarkError) -> (TimelineID, LSN?) {
    if isInRecovery {
      let row = try row(
        """
        SELECT greatest(c.timeline_id, r.min_recovery_end_timeline), pg_last_wal_replay_lsn()
        FROM pg_control_checkpoint() AS c, pg_control_recovery() AS r
        """)
      let replayed = row.optionalText(1) == nil ? nil : try row.lsn(1)
      return (TimelineID(rawValue: try row.number(0)), replayed)
    }
    let row = try row("SELECT left(pg_walfile_name(l), 8), l FROM pg_current_wal_lsn() AS l")
    guard let timeline = UInt32(try row.text(0), radix: 16) else {
      throw TidemarkError(
        .streamInvalid, "the name of the current WAL file can't be read", object: connection.serverName)
    }
    return (TimelineID(rawValue: timeline), try row.lsn(1))
  }

  func settings() throws(TidemarkError) -> [ServerSetting] {
    try rows(
      """
      SELECT name, setting, unit, vartype, context, source, sourcefile, sourceline, boot_val, reset_val, pending_restart
      FROM pg_settings ORDER BY name
      """
    ).map { (row) throws(TidemarkError) in
      ServerSetting(
        name: try row.text(0), value: row.optionalText(1), unit: row.optionalText(2), type: try row.text(3),
        context: try row.text(4), source: try row.text(5), sourceFile: row.optionalText(6),
        sourceLine: try row.optionalNumber(7), bootValue: row.optionalText(8), resetValue: row.optionalText(9),
        isPendingRestart: try row.flag(10))
    }
  }

  func role() throws(TidemarkError) -> ServerRole {
    let row = try row(
      """
      SELECT rolname, rolsuper, rolreplication, pg_has_role(oid, 'pg_monitor', 'USAGE')
      FROM pg_roles WHERE rolname = current_user
      """)
    return ServerRole(
      name: try row.text(0), isSuperuser: try row.flag(1), hasReplication: try row.flag(2), isMonitor: try row.flag(3))
  }

  mutating func databases(
    _ version: ServerVersion, includesSizes: Bool, sizeLimit: Duration
  ) throws(TidemarkError) -> [ServerDatabase] {
    // pg_database.h: datlocale was daticulocale before PostgreSQL 17.
    let locale = version.major >= 17 ? "datlocale" : "daticulocale"
    let size =
      includesSizes
      ? """
      CASE WHEN has_database_privilege(oid, 'CONNECT') OR pg_has_role('pg_read_all_stats', 'USAGE')
        THEN pg_database_size(oid) END
      """ : "NULL"
    let databases = try rows(
      """
      SELECT oid, datname, pg_encoding_to_char(encoding), datcollate, datctype, datlocprovider, \(locale),
        datcollversion, pg_database_collation_actual_version(oid), datallowconn, datistemplate, \(size)
      FROM pg_database ORDER BY oid
      """, silenceLimit: includesSizes ? sizeLimit : nil
    ).map { (row) throws(TidemarkError) in
      ServerDatabase(
        oid: try row.number(0), name: try row.text(1), encoding: try row.text(2), collate: try row.text(3),
        characterType: try row.text(4), localeProvider: try row.text(5), locale: row.optionalText(6),
        collationVersion: row.optionalText(7), actualCollationVersion: row.optionalText(8),
        allowsConnections: try row.flag(9), isTemplate: try row.flag(10), byteCount: try row.optionalNumber(11))
    }
    let unseen = databases.filter { $0.byteCount == nil }.count
    if includesSizes, unseen > 0 {
      notes.append("the sizes of \(unseen) databases aren't visible; GRANT pg_monitor TO \(connection.user)")
    }
    return databases
  }

  func tablespaces() throws(TidemarkError) -> [ServerTablespace] {
    try rows("SELECT oid, spcname, nullif(pg_tablespace_location(oid), '') FROM pg_tablespace ORDER BY oid")
      .map { (row) throws(TidemarkError) in
        ServerTablespace(oid: try row.number(0), name: try row.text(1), location: row.optionalText(2))
      }
  }

  func extensions() throws(TidemarkError) -> [ServerExtension] {
    try rows("SELECT extname, extversion FROM pg_extension ORDER BY extname").map { (row) throws(TidemarkError) in
      ServerExtension(name: try row.text(0), version: try row.text(1))
    }
  }

  func archiver() throws(TidemarkError) -> ArchiverStatistics {
    let row = try row(
      """
      SELECT archived_count, last_archived_wal, (extract(epoch FROM last_archived_time) * 1000000)::bigint,
        failed_count, last_failed_wal, (extract(epoch FROM last_failed_time) * 1000000)::bigint
      FROM pg_stat_archiver
      """)
    return ArchiverStatistics(
      archivedCount: try row.number(0), lastArchivedName: row.optionalText(1),
      lastArchivedMicroseconds: try row.optionalNumber(2), failedCount: try row.number(3),
      lastFailedName: row.optionalText(4), lastFailedMicroseconds: try row.optionalNumber(5))
  }

  /// The files that the settings name, those that settings in force come from, and those that are included.
  mutating func configurationFiles(
    _ version: ServerVersion, _ settings: [ServerSetting]
  ) throws(TidemarkError) -> [ConfigurationFile] {
    func value(_ name: String) -> String? { settings.first { $0.name == name }?.value }
    guard let directory = value("data_directory") else {
      notes.append(
        "the places of the configuration files aren't visible, so they can't be kept with a backup; "
          + "GRANT pg_monitor TO \(connection.user)")
      return []
    }
    var files: [ConfigurationFile] = []
    func add(_ path: String?, _ kind: ConfigurationFile.Kind) {
      guard let path, !path.isEmpty, !files.contains(where: { $0.path == path }) else { return }
      let inside = path.hasPrefix(directory.hasSuffix("/") ? directory : directory + "/")
      let isAutomatic = path == "\(directory)/postgresql.auto.conf"
      files.append(
        ConfigurationFile(path: path, kind: isAutomatic ? .automatic : kind, isInsideDataDirectory: inside))
    }
    add(value("config_file"), .main)
    add(value("hba_file"), .access)
    add(value("ident_file"), .ident)
    for setting in settings { add(setting.sourceFile, .included) }
    var sources = ["SELECT DISTINCT sourcefile FROM pg_file_settings ORDER BY 1"]
    if version.major >= 16 {  // Before, pg_hba.conf and pg_ident.conf knew no includes.
      sources.append("SELECT DISTINCT file_name FROM pg_hba_file_rules ORDER BY 1")
      sources.append("SELECT DISTINCT file_name FROM pg_ident_file_mappings ORDER BY 1")
    }
    for source in sources {
      let view = source.split(separator: " ").first { $0.hasPrefix("pg_") } ?? ""
      let note = "\(view) isn't visible: a configuration file that is only included may be missed"
      for row in try permittedRows(source, orNote: note) { add(row.optionalText(0), .included) }
    }
    return files
  }
}
