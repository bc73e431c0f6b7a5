// `expire`: applies the retention policy and says for each backup why it stays or goes.
import ArgumentParser
import BackupRepository
import Configuration
import Diagnostics
import PostgresFormats
import PostgresReplication
import Retention
import SystemSupport

struct ExpireCommand: TidemarkCommand {
  static let configuration = CommandConfiguration(
    commandName: "expire", abstract: "Delete what the retention policy doesn't keep.",
    discussion: "Manifests go first, then packs and file tables that nothing names, then WAL. What nothing names stays "
      + "for the policy's grace. Findings end with status 1.")
  @OptionGroup var global: GlobalOptions
  @Flag(help: "Say what would be deleted and why, and delete nothing.") var dryRun = false
  @Option(help: "Delete this backup alone, whatever keeps it but a hold and the newest ones (repeatable).")
  var remove: [String] = []
  @Option(
    help: ArgumentHelp(
      "Delete all backups and all WAL of the lineage with this system identifier, which was left behind, whatever the "
        + "policy keeps. A held backup or a lineage that is alive is refused.", valueName: "system-identifier"))
  var giveUpLineage: String?
  @Flag(help: "With --give-up-lineage: though no other lineage of the cluster has a newer backup.")
  var noSuccessor = false
  @Option(help: "Don't wait for a region that can't be asked, and leave it out (repeatable).")
  var withoutRegion: [String] = []
  /// A dry run says nothing about operation.
  var recordedName: String? { dryRun ? nil : Self.configuration.commandName }

  struct Backup: Codable {
    var label: String
    /// keep or expire
    var decision: String
    var rules: [RetentionRule]
    var reasons: [String]
    var deleted: Bool
  }
  struct Lineage: Codable {
    var systemIdentifier: String
    var backups: [Backup]
    var unfinished: [String: String]
    var packs: ExpiredObjects
    var fileTables: ExpiredObjects
    var wal: ExpiredObjects
    var rewraps: ExpiredObjects
    var walFrom: [String]
  }
  struct Report: Codable {
    var dryRun: Bool
    var lineages: [Lineage]
    var locked: [RefusedDeletion]
    var findings: [String]
    var remarks: [String]
    var regionsNotAsked: [String]
    var events: [RegionEvent]
    var regions: [String: RegionReport]
  }

  func validate() throws {
    if giveUpLineage != nil && !remove.isEmpty {
      throw ValidationError("--give-up-lineage and --remove can't be combined")
    }
    if noSuccessor && giveUpLineage == nil { throw ValidationError("--no-successor belongs to --give-up-lineage") }
  }

  func execute() throws(TidemarkError) -> Int32 {
    let context = try CommandContext(global)
    var repository = try context.repository()
    if !withoutRegion.isEmpty { repository = try repository.without(regions: withoutRegion) }
    var options = ExpireOptions(try context.retentionPolicy())
    options.isDryRun = dryRun
    options.removes = remove
    var remarks: [String] = []
    if let giveUpLineage { options.surrender = try surrender(giveUpLineage, context, &remarks) }
    let result = try ExpireRun(repository, options).run()
    let report = Report(
      dryRun: dryRun, lineages: result.lineages.map { lineage($0) }, locked: result.locked, findings: result.findings,
      remarks: remarks + result.remarks, regionsNotAsked: result.regionsNotAsked.sorted(),
      events: repository.regions.log.events, regions: RegionReport.all(repository))
    try context.print(report) { text(report) }
    CommandRecord.current.note(findings: report.findings)
    return report.findings.isEmpty ? 0 : ExitStatus.findings.rawValue
  }

  /// The lineage that is named, with what this host's own cluster is, if there is one.
  private func surrender(
    _ text: String, _ context: CommandContext, _ remarks: inout [String]
  ) throws(TidemarkError) -> LineageSurrender {
    guard let identifier = SystemIdentifier(text: text) else {
      throw TidemarkError(.usage, "not a system identifier", object: text, next: "'tidemark list' shows the lineages")
    }
    var surrender = LineageSurrender(identifier)
    surrender.needsNoSuccessor = noSuccessor
    if let directory = context.configuration.postgres.dataDirectory {
      // Another host's, or another user's, can't be read: the server and the regions are asked all the same.
      if let control = try? ControlFile(rereading: { () throws(TidemarkError) in
        try readFile("\(directory)/global/pg_control", limit: 64 << 10)
      }) {
        surrender.live.insert(control.systemIdentifier)
      }
    }
    do throws(TidemarkError) {
      let server = try ServerInspection(reading: try PostgresConnection(try context.connection))
      surrender.live.insert(server.systemIdentifier)
    } catch {
      if error.code == .interrupted { throw error }
      remarks.append("no server could be asked whether it is this lineage's: \(error.description)")
    }
    remarks.append(
      "lineage \(identifier) is given up: what nothing names stays for the grace, then the same command deletes it; "
        + "holds, their releases and reports of drills stay")
    return surrender
  }

  private func lineage(_ expiry: LineageExpiry) -> Lineage {
    let gone = Set(expiry.expired)
    var backups = expiry.decisions.map { decision in
      let label = decision.candidate.label
      let expires = remove.isEmpty ? decision.expires : gone.contains(label)
      return Backup(
        label: label, decision: expires ? "expire" : "keep", rules: expires ? [] : decision.rules,
        reasons: remove.isEmpty ? decision.explanations : [expires ? "asked for by --remove" : "not asked for"],
        deleted: !dryRun && gone.contains(label))
    }
    // What was removed without having been readable has no decision.
    let reason = giveUpLineage == nil ? "asked for by --remove" : "its lineage is given up"
    for label in expiry.expired where !backups.contains(where: { $0.label == label }) {
      backups.append(Backup(label: label, decision: "expire", rules: [], reasons: [reason], deleted: !dryRun))
    }
    return Lineage(
      systemIdentifier: expiry.systemIdentifier.description, backups: backups, unfinished: expiry.unfinished,
      packs: expiry.packs, fileTables: expiry.fileTables, wal: expiry.wal,
      rewraps: expiry.rewraps, walFrom: expiry.continuousFrom.map(\.description))
  }

  private func text(_ report: Report) -> String {
    var lines: [String] = []
    for lineage in report.lineages {
      lines.append("lineage \(lineage.systemIdentifier)")
      for backup in lineage.backups {
        lines.append("  \(backup.decision == "keep" ? "keep  " : "expire") \(backup.label)")
        lines += backup.reasons.map { "           \($0)" }
      }
      for (label, what) in lineage.unfinished.sorted(by: { $0.key < $1.key }) {
        lines.append("  unfinished \(label): \(what)")
      }
      for (name, objects) in [
        ("packs", lineage.packs), ("file tables", lineage.fileTables), ("WAL files", lineage.wal),
        ("re-wrapped keys", lineage.rewraps),
      ] where name != "re-wrapped keys" || lineage.rewraps != ExpiredObjects() {
        lines.append(
          "  \(name): \(objects.kept) kept, \(objects.deleted) \(report.dryRun ? "to be deleted" : "deleted") "
            + "(\(Size(objects.deletedBytes))), \(objects.waiting) waiting")
      }
      if !lineage.walFrom.isEmpty { lines.append("  all WAL stays from \(lineage.walFrom.joined(separator: ", ")) on") }
    }
    if report.lineages.isEmpty { lines.append("there is no backup yet") }
    for locked in report.locked { lines.append("locked in \(locked.region): \(locked.object) (\(locked.reason))") }
    lines += report.remarks.map { "remark: \($0)" } + report.findings.map { "finding: \($0)" }
    if report.dryRun { lines.append("a dry run: nothing was deleted") }
    return lines.joined(separator: "\n") + "\n"
  }
}

extension CommandContext {
  /// The policy of the configuration or of the file that it names; without both one that keeps everything.
  func retentionPolicy() throws(TidemarkError) -> RetentionPolicy {
    if let path = configuration.retentionFile { return try RetentionPolicy(contentsOf: path) }
    return configuration.retention ?? RetentionPolicy()
  }
}
