// What PostgreSQL is told for the recovery: `recovery.signal` and a marked block in `postgresql.auto.conf`, which goes
// after promotion. The server is started from the captured settings where the directory has no configuration.
import BackupRepository
import Diagnostics
import Foundation
import Glibc
import PostgresFormats
import SystemSupport

struct RecoverySettings {
  static let begin = "# tidemark recovery begin"
  static let end = "# tidemark recovery end"

  let request: RestoreRequest
  let plan: RestorePlan
  let host: RestoreHost
  let target: RestoreTarget
  let tree: OwnedTree

  /// Whether the cluster itself is recovered, and not a copy beside it: only then does it archive.
  private var isTheCluster: Bool { host.dataDirectory == target.directory }

  /// Lines for the recovery alone.
  /// - Parameter filesAreNew: that they were written just now.
  private func recoveryLines(filesAreNew: Bool) -> [String] {
    let planPath = "\(target.sideDirectory)/plan.json"
    let command = PlannedWALFetch.restoreCommand(
      spool: target.spoolDirectory,
      program: [host.program, "--config", host.configurationPath, "wal-fetch", "%f", "%p", "--plan", planPath])
    var lines = [
      setting("restore_command", command), setting("recovery_target_timeline", plan.targetTimeline.description),
      // A former standby's: they would clean the archive of the cluster that this is a copy of.
      setting("archive_cleanup_command", ""), setting("recovery_end_command", ""),
    ]
    // What was backed up may itself have been recovered: its target must not be this one's. PostgreSQL takes a second
    // target for a mistake, and looks at them in the file's order, so the wanted one comes last.
    let targets = ["", "_name", "_time", "_xid", "_lsn"].map { "recovery_target\($0)" }
    lines += targets.map { setting($0, "") }
    switch request.target {
    case .time(let time):
      lines.append(setting("recovery_target_time", RecoveryTime(microseconds: time).setting))
    case .lsn(let lsn): lines.append(setting("recovery_target_lsn", lsn.description))
    case .xid(let xid): lines.append(setting("recovery_target_xid", String(xid)))
    case .name(let name): lines.append(setting("recovery_target_name", name))
    case .backupEnd: lines.append(setting("recovery_target", "immediate"))
    case .latest: break
    }
    if request.target != .latest {
      lines.append(setting("recovery_target_inclusive", request.isExclusive ? "off" : "on"))
      // Where this program follows the recovery, it promotes at the target itself: a server that is told to promote writes
      // no checkpoint first, one that ends its recovery by this setting takes no queries until it has.
      let action = request.starts && request.action == .promote ? .pause : request.action
      lines.append(setting("recovery_target_action", action.rawValue))
    }
    // Only where this program promotes and takes the lines out again: in a server that an operator promotes by hand they
    // would stay, and let the WAL grow without a checkpoint.
    return request.starts && request.action == .promote ? lines + replayLines(filesAreNew) : lines
  }

  /// For the replay alone; what each gains is in docs/benchmarks.md.
  private func replayLines(_ filesAreNew: Bool) -> [String] {
    // What the replay changed and puts out of its buffers is written by a process beside it.
    var lines = [
      setting("bgwriter_delay", "10ms"), setting("bgwriter_lru_maxpages", "1000"),
      setting("bgwriter_lru_multiplier", "4"), setting("bgwriter_flush_after", "0"),
    ]
    // To read ahead costs a little where nothing has to be read from a disk. PostgreSQL knows it since 15.
    if filesAreNew, plan.backup.manifest.serverVersion >= 150_000, let memory = availableMemory(),
      plan.byteCount + plan.walByteCount <= memory / 2
    {
      lines.append(setting("recovery_prefetch", "off"))
    }
    return lines + checkpointLines
  }

  /// No restartpoint while there is room, since a replay that is broken off begins anew in any case. Without one PostgreSQL
  /// keeps all WAL that it replayed, so the other half of the room is left to what it writes.
  private var checkpointLines: [String] {
    var space = statvfs()
    // Where the WAL really goes: `pg_wal` may lead to another disk, also when a restore goes on that an earlier run began.
    let wal = "\(target.directory)/pg_wal"
    // The settings that the cluster had are slower and as good.
    guard statvfs(isDirectory(wal) ? wal : target.directory, &space) == 0 else { return [] }
    let room = Int64(space.f_bavail) * Int64(space.f_frsize) / 2
    // Two segments are the least that PostgreSQL takes, and 1 TB is as good as no limit.
    let least = max(256 << 20, 2 * Int64(plan.segmentSize.byteCount))
    let limit = min(max(room, least), 1 << 40)
    return [setting("checkpoint_timeout", "1d"), setting("max_wal_size", "\(limit >> 20)MB")]
  }

  private func setting(_ name: String, _ value: String) -> String {
    "\(name) = '\(value.replacing("'", with: "''"))'"
  }

  /// For a shell.
  static func quoted(_ word: String) -> String { "'\(word.replacing("'", with: "'\\''"))'" }

  /// What the backup's server had in force, where it wasn't the default.
  func captured(_ name: String) -> String? { plan.backup.manifest.settings.first { $0.name == name }?.value }

  /// The cluster's own configuration file where it lies outside the data directory, as on Debian, and this host has it.
  var hostConfiguration: String? {
    guard isTheCluster, let path = captured("config_file"), !path.hasPrefix(target.directory + "/"), fileExists(path)
    else { return nil }
    return path
  }

  /// Lines that stay: a copy beside the cluster must not archive into its repository, and has a port of its own.
  private func lastingLines(port: Int, raised: [String: Int]) -> [String] {
    var lines = ["port = \(port)"] + raised.sorted { $0.key < $1.key }.map { "\($0.key) = \($0.value)" }
    if !isTheCluster { lines += ["archive_mode = off", "listen_addresses = 'localhost'"] }
    return lines
  }

  /// What keeps a scratch copy to itself. On the command line these outrank the restored files, which may name places
  /// of the live cluster, other servers to subscribe to, or jobs to run.
  static let isolation: [(name: String, value: String)] = [
    ("listen_addresses", ""), ("archive_mode", "off"), ("archive_command", ""), ("archive_cleanup_command", ""),
    ("recovery_end_command", ""), ("primary_conninfo", ""), ("synchronous_standby_names", ""),
    ("max_logical_replication_workers", "0"), ("external_pid_file", ""), ("logging_collector", "off"),
    ("log_destination", "stderr"), ("ssl", "off"), ("huge_pages", "off"), ("cron.launch_active_jobs", "off"),
    // So that whatever happens in it is what it was asked to do.
    ("autovacuum", "off"),
  ]

  /// Writes everything that a start needs.
  func write(port: Int) throws(TidemarkError) {
    let directory = target.directory
    if !fileExists("\(directory)/postgresql.conf") && hostConfiguration == nil {
      try tree.write(capturedConfiguration(), to: "\(directory)/postgresql.conf")
      for (name, role) in [("pg_hba.conf", BackupManifest.CapturedFile.Role.hba), ("pg_ident.conf", .ident)]
      where !fileExists("\(directory)/\(name)") {
        try tree.write(captured(role), to: "\(directory)/\(name)")
      }
    }
    let path = "\(directory)/postgresql.auto.conf"
    var text = fileExists(path) ? Self.withoutRecoveryLines(String(decoding: try readFile(path), as: UTF8.self)) : ""
    if !text.isEmpty && !text.hasSuffix("\n") { text += "\n" }
    let raised = try requiredSettings().raised(settings: self)
    text += "# written by tidemark restore\n" + lastingLines(port: port, raised: raised).joined(separator: "\n") + "\n"
    text += ([Self.begin] + recoveryLines(filesAreNew: true) + [Self.end]).joined(separator: "\n") + "\n"
    try tree.write(text, to: path)
    try tree.write("", to: "\(directory)/recovery.signal")
    // In a standby's backup, and it would win: a standby never ends its recovery.
    try DurableFile.remove("\(directory)/standby.signal")
    try tree.makeDirectories("\(directory)/pg_wal/archive_status")
  }

  /// Puts other lines for the recovery in the place of those that are there; what stays was written by the restore.
  func rewrite(port: Int) throws(TidemarkError) {
    let path = "\(target.directory)/postgresql.auto.conf"
    var text = Self.withoutRecoveryLines(String(decoding: try readFile(path), as: UTF8.self))
    if !text.hasSuffix("\n") { text += "\n" }
    // Of several lines PostgreSQL takes the last.
    let line = "port = \(port)\n"
    if text.split(separator: "\n").last(where: { $0.hasPrefix("port = ") }) != line.dropLast() { text += line }
    text += ([Self.begin] + recoveryLines(filesAreNew: false) + [Self.end]).joined(separator: "\n") + "\n"
    try tree.write(text, to: path)
  }

  private func captured(_ role: BackupManifest.CapturedFile.Role) -> String {
    plan.backup.manifest.files.first { $0.role == role }.map { String(decoding: $0.content, as: UTF8.self) } ?? ""
  }

  /// The access rules that clients find when the recovery has ended: `pg_hba.conf` or `pg_ident.conf`.
  func accessFile(_ name: String) throws(TidemarkError) -> String {
    let own = "\(target.directory)/\(name)"
    let path = hostConfiguration == nil ? own : captured(name == "pg_hba.conf" ? "hba_file" : "ident_file") ?? own
    if fileExists(path) { return String(decoding: try readFile(path), as: UTF8.self) }
    return captured(name == "pg_hba.conf" ? .hba : .ident)
  }

  /// Raises settings for the next start: the WAL said that the primary's were raised after the backup.
  func raise(_ values: [String: Int]) throws(TidemarkError) {
    let path = "\(target.directory)/postgresql.auto.conf"
    let lines = values.sorted { $0.key < $1.key }.map { "\($0.key) = \($0.value)\n" }.joined()
    try tree.write(String(decoding: try readFile(path), as: UTF8.self) + lines, to: path)
  }

  /// Takes the recovery's lines out again.
  static func removeRecoveryLines(_ directory: String, _ tree: OwnedTree) throws(TidemarkError) {
    let path = "\(directory)/postgresql.auto.conf"
    try tree.write(withoutRecoveryLines(String(decoding: try readFile(path), as: UTF8.self)), to: path)
  }

  private static func withoutRecoveryLines(_ text: String) -> String {
    var keeps = true
    var lines: [Substring] = []
    for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
      if line == Substring(begin) { keeps = false }
      if keeps { lines.append(line) }
      if line == Substring(end) { keeps = true }
    }
    return lines.joined(separator: "\n")
  }

  /// A configuration from the settings that the backup captured, without what names places of the old host.
  private func capturedConfiguration() -> String {
    let elsewhere: Set<String> = [
      "data_directory", "config_file", "hba_file", "ident_file", "external_pid_file", "unix_socket_directories",
      "listen_addresses", "port", "restore_command", "recovery_target", "log_directory", "stats_temp_directory",
      "lc_messages", "lc_monetary", "lc_numeric", "lc_time",
    ]
    var lines = ["# Made by tidemark restore from the settings that the backup captured."]
    for setting in plan.backup.manifest.settings
    where setting.source == "configuration file" || setting.source == "command line" {
      if elsewhere.contains(setting.name) || setting.name.hasPrefix("ssl_") || setting.name == "ssl" { continue }
      lines.append(self.setting(setting.name, setting.value + (setting.unit.map(Self.unit) ?? "")))
    }
    return lines.joined(separator: "\n") + "\n"
  }

  /// pg_settings gives values in units such as "8kB", which a configuration can't name; those are bare numbers there.
  private static func unit(_ unit: String) -> String { unit.first?.isNumber == true ? "" : unit }
}
