// What a drill proves about the restored cluster while it runs: that it is by itself, that what the backup recorded is
// there, that heaps and indexes agree (PostgreSQL's own pg_amcheck), and that the owners' assertions hold.
import BackupRepository
import Configuration
import Diagnostics
import Foundation
import Glibc
import PointInTimeRestore
import PostgresFormats
import PostgresReplication
import SystemSupport

/// Used by one thread.
final class DrillProofs {
  /// Lines of a program's output that a report keeps.
  private static let lineCountMax = 20
  private static let answerLengthMax = 500

  let server: RecoveredServer
  let manifest: BackupManifest
  let scratch: String
  let workerCount: Int
  /// Whether what the backup recorded must be there exactly: nothing was replayed beyond its end.
  let isBackupEnd: Bool
  private(set) var checks: [DrillReport.Check] = []
  private(set) var assertions: [DrillReport.Assertion] = []

  init(_ server: RecoveredServer, _ plan: RestorePlan, scratch: String, workerCount: Int) {
    self.server = server
    manifest = plan.backup.manifest
    isBackupEnd = plan.target == .backupEnd
    self.scratch = scratch
    self.workerCount = workerCount
  }

  // MARK: Noting

  private struct Refutation: Error {
    var detail: String
    var isSkipped = false
  }

  /// Runs `body`, whose text is the evidence; what it throws is the failure. Signals end the drill.
  private func prove(
    _ name: String, _ subject: String, severity: DrillAssertion.Severity = .finding, _ body: () throws -> String
  ) throws(TidemarkError) {
    let begin = ContinuousClock.now
    var outcome = DrillReport.Outcome.passed
    var detail: String
    do { detail = try body() } catch let error as Refutation {
      outcome = error.isSkipped ? .skipped : .failed
      detail = error.detail
    } catch {
      let error = TidemarkError.wrapping(error)
      if error.code == .interrupted { throw error }
      outcome = .failed
      detail = error.description
    }
    checks.append(
      DrillReport.Check(
        name: name, subject: subject, outcome: outcome, severity: severity.rawValue, detail: detail,
        seconds: (ContinuousClock.now - begin).seconds))
  }

  // MARK: The copy by itself

  /// Whether the server is the copy, by its own words: it listens to nobody, archives nothing, and lies in the scratch
  /// directory with all its tablespaces. What isn't so must stop the drill.
  func proveIsolation() throws(TidemarkError) -> Bool {
    try prove("isolation", "server") {
      let connection = try server.connect()
      let wanted = [
        "data_directory": server.directory, "listen_addresses": "", "archive_mode": "off",
        "unix_socket_directories": server.socketDirectory,
      ]
      for (name, value) in wanted.sorted(by: { $0.key < $1.key }) {
        let found = try connection.query("SELECT current_setting($1)", [name]).scalar ?? ""
        guard found == value else { throw Refutation(detail: "\(name) is '\(found)'") }
      }
      let rows = try connection.query(
        "SELECT spcname, pg_tablespace_location(oid) FROM pg_tablespace WHERE pg_tablespace_location(oid) <> ''")
      for row in rows.rows {
        let place = row[1] ?? ""
        guard place.hasPrefix(scratch + "/") || !place.hasPrefix("/") else {
          throw Refutation(detail: "tablespace \(row[0] ?? "") lies at \(place)")
        }
      }
      return "no network listener, archive_mode=off, private socket; data and "
        + "\(rows.rows.count) tablespaces within the scratch directory"
    }
    return checks.last?.outcome == .passed
  }

  // MARK: The catalogue

  func proveCatalogue() throws(TidemarkError) {
    try prove("identity", "system identifier") {
      let row = try server.connect().query(
        "SELECT system_identifier, current_setting('server_version_num') FROM pg_control_system()"
      ).rows.first
      guard let row, row.count == 2 else { throw Refutation(detail: "the server doesn't say") }
      guard row[0] == manifest.systemIdentifier else {
        throw Refutation(detail: "it is \(row[0] ?? "none"), the backup's is \(manifest.systemIdentifier)")
      }
      let version = Int(row[1] ?? "") ?? 0
      guard version / 10000 == manifest.serverVersion / 10000 else {
        throw Refutation(detail: "PostgreSQL \(version / 10000), the backup is of \(manifest.serverVersion / 10000)")
      }
      return "\(manifest.systemIdentifier), PostgreSQL \(ServerVersion(number: version))"
    }
    var names: [String] = []
    try prove("databases", "as recorded") {
      let rows = try server.connect().query(
        """
        SELECT oid, datname, pg_encoding_to_char(encoding), datcollate, datallowconn
        FROM pg_database ORDER BY datname
        """
      ).rows
      names = rows.filter { $0[4] == "t" }.compactMap { $0[1] }
      return try compareDatabases(rows)
    }
    try prove("tablespaces", "as recorded") {
      let rows = try server.connect().query("SELECT oid FROM pg_tablespace").rows
      let found = Set(rows.compactMap { $0[0].flatMap { UInt32($0) } })
      let missing = manifest.tablespaces.filter { !found.contains($0.oid) }.map { "\($0.oid) (\($0.location))" }
      if isBackupEnd, !missing.isEmpty {
        throw Refutation(detail: "missing: \(missing.joined(separator: ", "))")
      }
      return "\(manifest.tablespaces.count) recorded"
        + (missing.isEmpty ? ", all there" : "; dropped since: \(missing.joined(separator: ", "))")
    }
    for name in names {
      try prove("database opens", name) {
        let row = try server.connect(database: name).query(
          "SELECT count(*), pg_size_pretty(pg_database_size(current_database())) FROM pg_class"
        ).rows.first
        return "\(row?.first.flatMap { $0 } ?? "0") relations, \(row?.last.flatMap { $0 } ?? "")"
      }
    }
    // Text indexes ordered by another version of the collations find nothing where something is (trap of every move to
    // another host); pg_amcheck says which, so this alone doesn't fail a drill.
    try prove("collations", "versions on this host", severity: .remark) {
      let rows = try server.connect().query(
        """
        SELECT datname, datcollversion, pg_database_collation_actual_version(oid) FROM pg_database
        WHERE datcollversion IS DISTINCT FROM pg_database_collation_actual_version(oid) AND datcollversion IS NOT NULL
        """
      ).rows
      guard rows.isEmpty else {
        let different = rows.map { "\($0[0] ?? ""): \($0[1] ?? "") here \($0[2] ?? "none")" }
        throw Refutation(detail: "differ from the original host's: \(different.joined(separator: "; "))")
      }
      return "the same as on the original host"
    }
  }

  private func compareDatabases(_ rows: [[String?]]) throws -> String {
    var differences: [String] = []
    var dropped: [String] = []
    for recorded in manifest.databases {
      guard let row = rows.first(where: { $0[0] == String(recorded.oid) }) else {
        dropped.append(recorded.name)
        continue
      }
      if row[1] != recorded.name, isBackupEnd { differences.append("\(recorded.name) is named \(row[1] ?? "")") }
      if row[2] != recorded.encoding {
        differences.append("\(recorded.name) has encoding \(row[2] ?? ""), not \(recorded.encoding)")
      }
      if let collate = recorded.collate, row[3] != collate {
        differences.append("\(recorded.name) has collation \(row[3] ?? ""), not \(collate)")
      }
    }
    if isBackupEnd { differences += dropped.map { "\($0) is missing" } }
    guard differences.isEmpty else { throw Refutation(detail: differences.joined(separator: "; ")) }
    let added = rows.count - (manifest.databases.count - dropped.count)
    return "\(manifest.databases.count) recorded"
      + (dropped.isEmpty ? ", all there" : "; dropped since: \(dropped.joined(separator: ", "))")
      + (added > 0 ? "; \(added) made since" : "")
  }

  // MARK: Heaps and indexes

  func proveIndexes() throws(TidemarkError) {
    try prove("pg_amcheck", "all databases, --heapallindexed") {
      guard let bin = server.binDirectory, access("\(bin)/pg_amcheck", X_OK) == 0 else {
        throw Refutation(detail: "PostgreSQL's pg_amcheck isn't installed here, so nothing is proven")
      }
      // As ourselves: it is a client, and the private socket knows us.
      let outcome = try ChildProcess.run(
        "\(bin)/pg_amcheck",
        [
          "--all", "--install-missing", "--heapallindexed", "--jobs=\(workerCount)", "--no-password",
          "--host=\(server.socketDirectory)", "--port=\(server.port)", "--username=\(server.superuser)",
          "--maintenance-db=postgres",
        ], workingDirectory: "/")
      guard outcome.succeeded else { throw Refutation(detail: Self.excerpt(outcome)) }
      return "every table and index of every database agrees"
    }
  }

  // MARK: Assertions

  func prove(_ policy: [DrillAssertion]) throws(TidemarkError) {
    for assertion in policy {
      let begin = ContinuousClock.now
      var outcome = DrillReport.Outcome.failed
      var answer: String?
      do throws(TidemarkError) {
        let connection = try server.connect(database: assertion.database)
        // The owners' queries name their tables as their applications do.
        try connection.execute("RESET search_path")
        try connection.execute("SET default_transaction_read_only = on")
        try connection.execute("SET statement_timeout = \(assertion.timeout.milliseconds)")
        let rows = try connection.query(assertion.query, silenceLimit: assertion.timeout + .seconds(10))
        answer = rows.scalar.map { String($0.prefix(Self.answerLengthMax)) }
        if assertion.expectation.holds(for: rows.scalar) { outcome = .passed }
        if answer == nil { answer = rows.rows.isEmpty ? "no row" : "NULL" }
      } catch {
        if error.code == .interrupted { throw error }
        answer = error.description
      }
      assertions.append(
        DrillReport.Assertion(
          name: assertion.name, database: assertion.database, query: assertion.query,
          expectation: assertion.expectation.description, severity: assertion.severity.rawValue, outcome: outcome,
          answer: answer, seconds: (ContinuousClock.now - begin).seconds))
    }
  }

  // MARK: Pages

  /// For the stopped server.
  func provePages() throws(TidemarkError) {
    try prove("pg_checksums", "all pages") {
      guard manifest.dataChecksums else {
        throw Refutation(detail: "the cluster has no data checksums", isSkipped: true)
      }
      let outcome = try server.run("pg_checksums", ["--check", "--pgdata", server.directory])
      guard outcome.succeeded else { throw Refutation(detail: Self.excerpt(outcome)) }
      let scanned = outcome.outputText.split(separator: "\n").filter { $0.contains("scanned") }
      return scanned.map { $0.split(separator: " ").joined(separator: " ") }.joined(separator: ", ")
    }
  }

  /// The beginning of what a program said.
  private static func excerpt(_ outcome: ProgramOutcome) -> String {
    let lines = (outcome.errorText + "\n" + outcome.outputText).split(separator: "\n")
      .map { $0.trimmingCharacters(in: .whitespaces) }.filter { !$0.isEmpty }
    let shown = lines.prefix(lineCountMax).joined(separator: "\n")
    let rest = lines.count - lineCountMax
    return (shown.isEmpty ? "it ended with \(outcome.ending)" : shown) + (rest > 0 ? "\n… and \(rest) more lines" : "")
  }
}
