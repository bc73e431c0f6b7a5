// Settings that a recovery needs at least as high as the primary had them: WAL of more connections, workers or prepared
// transactions doesn't fit into a smaller server, whose replay would stop (manual, "Hot Standby", administrator's
// overview).
import BackupRepository
import Diagnostics
import SystemSupport

struct RequiredSettings: Equatable {
  /// With PostgreSQL's defaults.
  static let names: [(name: String, standard: Int)] = [
    ("max_connections", 100), ("max_worker_processes", 8), ("max_wal_senders", 10), ("max_prepared_transactions", 0),
    ("max_locks_per_transaction", 64),
  ]
  var values: [String: Int]

  /// As `pg_controldata` prints them.
  init(controlData text: String) {
    values = [:]
    for line in text.split(separator: "\n") {
      guard let colon = line.firstIndex(of: ":"), line[..<colon].hasSuffix(" setting"),
        let value = Int(line[line.index(after: colon)...].drop { $0 == " " })
      else { continue }
      // pg_controldata calls two of them by other names.
      let name = line[..<colon].dropLast(" setting".count).replacing(
        "max_prepared_xacts", with: "max_prepared_transactions"
      )
      .replacing("max_locks_per_xact", with: "max_locks_per_transaction")
      if Self.names.contains(where: { $0.name == name }) { values[String(name)] = value }
    }
  }

  init(captured manifest: BackupManifest) {
    values = [:]
    for setting in manifest.settings where Self.names.contains(where: { $0.name == setting.name }) {
      values[setting.name] = Int(setting.value)
    }
  }

  /// The higher of the two.
  func merged(_ other: RequiredSettings) -> RequiredSettings {
    var merged = self
    merged.values.merge(other.values) { max($0, $1) }
    return merged
  }

  /// What a server with `effective` values lacks.
  func exceeding(_ effective: [String: Int]) -> [String: Int] {
    var lacking: [String: Int] = [:]
    for (name, standard) in Self.names {
      if let value = values[name], value > effective[name] ?? standard { lacking[name] = value }
    }
    return lacking
  }

  /// What must be raised above the configuration that the server will start with.
  func raised(settings: RecoverySettings) throws(TidemarkError) -> [String: Int] {
    // Without programs the configuration can't be asked: the values are given whatever it says.
    guard settings.host.binDirectory != nil else { return exceeding([:]) }
    var effective: [String: Int] = [:]
    let server = RecoveredServer(settings: settings, port: 0)
    for (name, _) in Self.names {
      var arguments = ["-C", name, "-D", settings.target.directory]
      if let path = settings.hostConfiguration { arguments += ["-c", "config_file=\(path)"] }
      // A configuration that can't be read makes the start fail, in the server's own words.
      guard let outcome = try? server.run("postgres", arguments), outcome.succeeded else { return exceeding([:]) }
      effective[name] = Int(outcome.outputText.split(separator: "\n").last ?? "")
    }
    return exceeding(effective)
  }
}

extension RecoverySettings {
  /// What the backup says: its captured settings, and its control file, which isn't in place yet.
  func requiredSettings() throws(TidemarkError) -> RequiredSettings {
    let captured = RequiredSettings(captured: plan.backup.manifest)
    let control = "\(target.directory)/\(FileRestorer.controlFile).tidemark-incomplete"
    guard host.binDirectory != nil, fileExists(control) else { return captured }
    let copy = "\(target.sideDirectory)/control"
    try tree.makeDirectories("\(copy)/global")
    let path = "\(copy)/\(FileRestorer.controlFile)"
    try DurableFile.write(try readFile(control, limit: 64 << 10), to: path, mode: 0o600)
    try tree.give(path)
    return captured.merged(
      RequiredSettings(controlData: try RecoveredServer(settings: self, port: 0).controlData(copy)))
  }
}
