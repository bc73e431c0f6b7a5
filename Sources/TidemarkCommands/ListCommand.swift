// `list` and `show`: what can be restored.
import ArgumentParser
import BackupRepository
import Diagnostics
import Foundation
import PostgresFormats

struct BackupSummary: Codable {
  var label: String
  var timeline: UInt32
  var startLSN: String
  var stopLSN: String
  var startTime: String
  var stopTime: String
  var databaseBytes: Int64
  var newBytes: Int64
  var storedBytes: Int64
  var serverVersion: Int
  var regions: [String]
  var suspect: String?

  init(_ backup: CatalogedBackup) {
    let manifest = backup.manifest
    label = manifest.label
    timeline = manifest.timeline
    startLSN = manifest.startLSN
    stopLSN = manifest.stopLSN
    startTime = isoTime(manifest.startTime)
    stopTime = isoTime(manifest.stopTime)
    databaseBytes = manifest.databaseBytes
    newBytes = manifest.newBytes
    storedBytes = manifest.storedBytes
    serverVersion = manifest.serverVersion
    regions = backup.regions
    suspect = manifest.suspect
  }
}

func isoTime(_ seconds: Double) -> String { RecoveryTime(microseconds: Int64(seconds * 1_000_000)).description }

struct ListCommand: TidemarkCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "Backups, and the recoverable window of each lineage.")
  @OptionGroup var global: GlobalOptions
  var recordedName: String? { nil }

  struct Window: Codable {
    var from: String
    var to: String
  }
  /// A stretch to any moment of which the cluster can be restored.
  struct Stretch: Codable {
    var timeline: UInt32
    var from: String
    var to: String
    var lastSegment: String
    var backups: [String]
    /// Whether a restore without a target ends here.
    var newest: Bool
  }
  struct Missing: Codable {
    var first: String
    var last: String
  }
  struct Unusable: Codable {
    var object: String
    var reason: String
  }
  struct Lineage: Codable {
    var systemIdentifier: String
    var backups: [BackupSummary]
    /// The newest stretch.
    var recoverable: Window?
    var windows: [Stretch]
    /// WAL that recoveries need and no region that could be asked holds.
    var missing: [Missing]
    var unusable: [Unusable]
  }
  struct Report: Codable {
    var lineages: [Lineage]
    var regionsNotAsked: [String]
  }

  func execute() throws(TidemarkError) -> Int32 {
    let context = try CommandContext(global)
    let repository = try context.repository()
    let (layouts, failures) = try repository.lineages()
    var report = Report(lineages: [], regionsNotAsked: failures.keys.sorted())
    for layout in layouts {
      let catalog = try repository.catalog(layout)
      report.lineages.append(try lineage(repository, catalog))
    }
    try context.print(report) { text(report) }
    return 0
  }

  private func lineage(_ repository: Repository, _ catalog: LineageCatalog) throws(TidemarkError) -> Lineage {
    var lineage = Lineage(
      systemIdentifier: catalog.systemIdentifier.description, backups: catalog.backups.map { BackupSummary($0) },
      windows: [], missing: [],
      unusable: catalog.unusable.map { Unusable(object: $0.name.text, reason: $0.error.description) })
    guard let newest = catalog.backups.last, let size = WALSegmentSize(byteCount: newest.manifest.walSegmentSize)
    else { return lineage }
    let wal = try repository.walCatalog(catalog.layout, segmentSize: size)
    let found = try repository.recoverability(catalog, wal)
    lineage.windows = found.windows.map { window in
      Stretch(
        timeline: window.timeline.rawValue, from: RecoveryTime(microseconds: window.from).description,
        to: RecoveryTime(microseconds: window.to).description, lastSegment: window.lastSegment.description,
        backups: window.backups.map(\.label.text), newest: window.isNewest)
    }
    lineage.recoverable = lineage.windows.first { $0.newest }.map { Window(from: $0.from, to: $0.to) }
    lineage.missing = found.missing.map { Missing(first: $0.first.description, last: $0.last.description) }
    lineage.unusable += found.incomplete.map {
      Unusable(object: $0.label.text, reason: "the WAL that it needs itself isn't whole")
    }
    lineage.unusable += wal.unreadableHistories.sorted { $0.key < $1.key }.map {
      Unusable(object: $0.key.historyFileName, reason: $0.value.description)
    }
    return lineage
  }

  private func text(_ report: Report) -> String {
    var lines: [String] = []
    if report.lineages.isEmpty { lines.append("there is no backup yet") }
    for lineage in report.lineages {
      lines.append("lineage \(lineage.systemIdentifier)")
      for backup in lineage.backups {
        lines.append(
          "  \(backup.label)  timeline \(backup.timeline)  \(backup.startLSN)–\(backup.stopLSN)  \(backup.stopTime)  "
            + "\(Size(backup.databaseBytes)), \(Size(backup.newBytes)) new, \(Size(backup.storedBytes)) stored  "
            + backup.regions.joined(separator: ",") + (backup.suspect == nil ? "" : "  SUSPECT"))
      }
      for unusable in lineage.unusable { lines.append("  UNUSABLE \(unusable.object): \(unusable.reason)") }
      for window in lineage.windows {
        lines.append(
          "  recoverable from \(window.from) to \(window.to) on timeline \(window.timeline), backups: \(window.backups.count)"
            + (window.newest ? "" : "  (not the newest stretch)"))
      }
      for missing in lineage.missing {
        lines.append("  MISSING WAL from \(missing.first) to \(missing.last): no moment in it can be restored")
      }
      if lineage.recoverable == nil, !lineage.backups.isEmpty {
        lines.append("  NOTHING leads to the newest moment: take a backup")
      }
    }
    if !report.regionsNotAsked.isEmpty {
      lines.append("regions that couldn't be asked: \(report.regionsNotAsked.joined(separator: ", "))")
    }
    return lines.joined(separator: "\n") + "\n"
  }
}

struct ShowCommand: TidemarkCommand {
  static let configuration = CommandConfiguration(commandName: "show", abstract: "One backup in detail.")
  @OptionGroup var global: GlobalOptions
  var recordedName: String? { nil }
  @Argument(help: "The label, or its beginning.") var label: String
  @Flag(help: "The captured settings too.") var settings = false

  struct File: Codable {
    var role: String
    var path: String
    var bytes: Int
  }
  struct Report: Codable {
    var backup: BackupSummary
    var systemIdentifier: String
    var predecessor: String?
    var fileCount: Int
    var blockSize: Int
    var packs: Int
    var tablespaces: [BackupManifest.Tablespace]
    var databases: [BackupManifest.Database]
    var files: [File]
    var settings: [BackupManifest.Setting]?
  }

  func execute() throws(TidemarkError) -> Int32 {
    let context = try CommandContext(global)
    let repository = try context.repository()
    var found: [CatalogedBackup] = []
    for layout in try repository.lineages().lineages {
      found += try repository.catalog(layout).backups.filter { $0.label.text.hasPrefix(label) }
    }
    guard found.count == 1, let backup = found.first else {
      throw TidemarkError(
        .backupNotFound, found.isEmpty ? "there is no such backup" : "several backups begin with this", object: label,
        next: "'tidemark list' shows the labels")
    }
    let manifest = backup.manifest
    let report = Report(
      backup: BackupSummary(backup), systemIdentifier: manifest.systemIdentifier,
      predecessor: manifest.predecessor?.label, fileCount: manifest.fileCount, blockSize: manifest.blockSize,
      packs: manifest.packs.reduce(0) { $0 + $1.numbers.count }, tablespaces: manifest.tablespaces,
      databases: manifest.databases,
      files: manifest.files.map { File(role: $0.role.rawValue, path: $0.path, bytes: $0.content.count) },
      settings: settings ? manifest.settings : nil)
    try context.print(report) { text(report) }
    return 0
  }

  private func text(_ report: Report) -> String {
    let backup = report.backup
    var lines = [
      "backup \(backup.label) of \(report.systemIdentifier), PostgreSQL \(backup.serverVersion)",
      "WAL \(backup.startLSN) to \(backup.stopLSN), timeline \(backup.timeline)",
      "taken \(backup.startTime) to \(backup.stopTime)",
      "\(Size(backup.databaseBytes)) in \(report.fileCount) files; \(Size(backup.newBytes)) new, \(Size(backup.storedBytes)) stored",
      "refers to \(report.packs) packs" + (report.predecessor.map { "; predecessor \($0)" } ?? ""),
      "in regions \(backup.regions.joined(separator: ", "))",
    ]
    for tablespace in report.tablespaces { lines.append("tablespace \(tablespace.oid) at \(tablespace.location)") }
    for database in report.databases { lines.append("database \(database.name), \(database.encoding)") }
    for file in report.files { lines.append("captured \(file.role) \(file.path), \(file.bytes) bytes") }
    for setting in report.settings ?? [] { lines.append("\(setting.name) = \(setting.value)") }
    if let suspect = backup.suspect { lines.append("SUSPECT: \(suspect)") }
    return lines.joined(separator: "\n") + "\n"
  }
}
