// `hold` and `release`: keep a backup whatever the retention policy says, until it is released.
import ArgumentParser
import BackupRepository
import Diagnostics
import PostgresFormats
import SystemSupport

/// A hold as JSON shows it.
struct HoldReport: Codable {
  var label: String
  var id: String
  var systemIdentifier: String
  var created: String?
  var reason: String

  init(_ hold: BackupHold, _ identifier: SystemIdentifier) {
    label = hold.label.text
    id = hold.id.text
    systemIdentifier = identifier.description
    created = hold.created.map(isoTime)
    reason = hold.reason
  }
}

struct HoldCommand: TidemarkCommand {
  static let configuration = CommandConfiguration(
    commandName: "hold", abstract: "Keep a backup until 'release', whatever the retention policy says.")
  @OptionGroup var global: GlobalOptions
  @Argument(help: "The label, or its beginning.") var label: String
  @Option(help: "Why, for whoever finds the hold later.") var reason = ""

  struct Report: Codable {
    var held: HoldReport
    var regionsNotAsked: [String]
    var events: [RegionEvent]
  }

  func execute() throws(TidemarkError) -> Int32 {
    let context = try CommandContext(global)
    let repository = try context.repository()
    let (lineages, failures) = try repository.lineages()
    let (lineage, label) = try repository.backup(beginning: self.label, in: lineages)
    let hold = try repository.hold(lineage, label, reason: reason)
    let report = Report(
      held: HoldReport(hold, lineage.systemIdentifier), regionsNotAsked: failures.keys.sorted(),
      events: repository.regions.log.events)
    try context.print(report) { "backup \(report.held.label) is held until 'tidemark release \(report.held.label)'\n" }
    return 0
  }
}

struct ReleaseCommand: TidemarkCommand {
  static let configuration = CommandConfiguration(
    commandName: "release", abstract: "End all holds on a backup: the retention policy decides about it again.")
  @OptionGroup var global: GlobalOptions
  @Argument(help: "The label, or its beginning.") var label: String

  struct Report: Codable {
    var released: [HoldReport]
  }

  func execute() throws(TidemarkError) -> Int32 {
    let context = try CommandContext(global)
    let repository = try context.repository()
    var found: [(LineageLayout, BackupHold)] = []
    for lineage in try repository.lineages().lineages {
      for hold in try repository.holds(lineage) where hold.label.text.hasPrefix(label) { found.append((lineage, hold)) }
    }
    let labels = Set(found.map(\.1.label.text))
    guard labels.count <= 1 else {
      throw TidemarkError(
        .backupNotFound, "holds on several backups begin with this", object: label,
        cause: labels.sorted().joined(separator: ", "), next: "give more of the label")
    }
    guard !found.isEmpty else {
      throw TidemarkError(
        .backupNotFound, "no backup of this label is held", object: label, next: "'tidemark status' shows the holds")
    }
    for (lineage, hold) in found { try repository.release(lineage, hold) }
    let report = Report(released: found.map { HoldReport($1, $0.systemIdentifier) })
    try context.print(report) {
      report.released.map { "hold \($0.id) on \($0.label) is released\($0.reason.isEmpty ? "" : ": \($0.reason)")\n" }
        .joined()
    }
    return 0
  }
}

extension Repository {
  /// The one backup whose label begins with `beginning`, found without opening a manifest.
  /// - Throws: `backup-not-found`.
  func backup(
    beginning: String, in lineages: [LineageLayout]
  ) throws(TidemarkError) -> (LineageLayout, BackupLabelName) {
    var found: [(LineageLayout, BackupLabelName)] = []
    for lineage in lineages {
      for entry in try regions.list(prefix: lineage.backupsPrefix + beginning).entries
      where entry.name.lastComponent == "manifest" {
        let parts = entry.name.text.split(separator: "/")
        found.append((lineage, try BackupLabelName(String(parts[parts.count - 2]))))
      }
    }
    guard found.count == 1, let backup = found.first else {
      throw TidemarkError(
        .backupNotFound, found.isEmpty ? "there is no such backup" : "several backups begin with this",
        object: beginning, next: "'tidemark list' shows the labels")
    }
    return backup
  }
}
