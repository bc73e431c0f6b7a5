// `drill`: rehearses a restore, proves what came out, measures it, cleans up, and reports. Findings end with status 1.
import ArgumentParser
import BackupRepository
import Configuration
import Diagnostics
import Foundation
import PointInTimeRestore
import PostgresFormats
import RestoreDrill
import SystemSupport

struct DrillCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "drill", abstract: "Rehearse a restore in a scratch directory, prove and measure it, and clean up.",
    subcommands: [DrillRunCommand.self, DrillListCommand.self, DrillReportCommand.self],
    defaultSubcommand: DrillRunCommand.self)
}

struct DrillRunCommand: TidemarkCommand {
  static let configuration = CommandConfiguration(
    commandName: "run", abstract: "Rehearse a restore (what 'drill' does by itself).",
    discussion: "Without a target the end of the archived WAL is restored. Exit status 1: the report has findings.")
  @OptionGroup var global: GlobalOptions
  var recordedName: String? { "drill" }
  @Option(help: "Restore from this region alone.") var fromRegion: String?
  @Flag(help: "One drill from each region, one after another.") var eachRegion = false
  @Option(help: "A moment with its zone: '2026-11-24 03:15:00+01'.") var toTime: String?
  @Option(help: "A WAL position: 16/B374D848.") var toLsn: String?
  @Option(help: "A restore point's name.") var toName: String?
  @Flag(help: "The end of the backup.") var toBackupEnd = false
  @Flag(help: "A random moment within the recoverable window.") var random = false
  @Option(help: "With --random: chooses the moment again that an earlier drill's seed chose.") var seed: UInt64?
  @Option(help: "The backup's label, or its beginning.") var backup: String?
  @Option(help: "The timeline to follow.") var timeline: UInt32?
  @Option(help: "The lineage: the system identifier.") var systemIdentifier: String?
  @Option(help: "The assertions (default: drill.policy of the configuration).") var policy: String?
  @Option(help: "Write the report as one HTML page.") var html: String?
  @Flag(help: "Don't store the report in the regions.") var noStore = false

  struct Report: Encodable {
    var ok: Bool
    var drills: [DrillReport]
  }

  func execute() throws(TidemarkError) -> Int32 {
    let context = try CommandContext(global)
    let request = try request(context)
    let regions: [String?]
    if eachRegion {
      regions = context.configuration.repository.regions.map(\.name)
    } else {
      regions = [fromRegion]
    }
    let meter = ProgressMeter(context.logger)
    var drills: [StoredDrill] = []
    for region in regions {
      var request = request
      request.region = region
      // Anew for each: what one drill learnt of the regions must not help the next.
      let run = DrillRun(
        try context.repository(), request, try context.restoreHost(), avoiding: context.livePlaces
      ) { meter.show($0) }
      let drill = try run.run()
      CommandRecord.current.note(drill.report)
      drills.append(drill)
      meter.end()
    }
    if let html { try writePage(html, drills, try context.repository()) }
    let report = Report(ok: drills.allSatisfy(\.report.ok), drills: drills.map(\.report))
    try context.print(report) {
      drills.map { DrillText($0.report).text + ($0.object.isEmpty ? "" : "report \($0.object)\n") }.joined(
        separator: "\n")
    }
    return report.ok ? 0 : ExitStatus.findings.rawValue
  }

  private func request(_ context: CommandContext) throws(TidemarkError) -> DrillRequest {
    let settings = context.configuration.drill
    var request = DrillRequest(directory: context.configuration.drillDirectory, memory: settings.memory)
    request.disk = settings.disk.map(Int64.init)
    var targets: [DrillRequest.Moment] = []
    if let toTime { targets.append(.target(.time(try RecoveryTime(text: toTime).microseconds))) }
    if let toLsn { targets.append(.target(.lsn(try LSN(text: toLsn)))) }
    if let toName { targets.append(.target(.name(toName))) }
    if toBackupEnd { targets.append(.target(.backupEnd)) }
    if random { targets.append(.random(seed: seed ?? UInt64.random(in: 0...UInt64.max))) }
    guard targets.count <= 1 else {
      throw TidemarkError(.usage, "several targets are given", next: "give one of the --to-… options, or --random")
    }
    guard seed == nil || random else {
      throw TidemarkError(.usage, "--seed belongs to --random", next: "give both")
    }
    guard !eachRegion || fromRegion == nil else {
      throw TidemarkError(.usage, "--each-region and --from-region exclude each other", next: "give one of them")
    }
    request.moment = targets.first ?? .latest
    request.backup = backup
    request.timeline = timeline.map { TimelineID($0) }
    if let systemIdentifier {
      guard let identifier = SystemIdentifier(text: systemIdentifier) else {
        throw TidemarkError(.usage, "not a system identifier", object: systemIdentifier)
      }
      request.systemIdentifier = identifier
    }
    if let path = try policy.map({ (path) throws(TidemarkError) in try RestoreCommand.absolute(path) })
      ?? settings.policy
    {
      request.assertions = try DrillPolicy(contentsOf: path).assertions
    }
    if let workers = context.configuration.limits.workers { request.workerCount = workers }
    request.bufferByteCount = context.configuration.limits.memory
    request.rtoObjective = context.configuration.objectives.rto
    request.rpoObjective = context.configuration.objectives.rpo
    request.live = try context.connection
    request.stores = !noStore
    request.toolVersion = Version.text
    return request
  }

  private func writePage(
    _ path: String, _ drills: [StoredDrill], _ repository: Repository
  ) throws(TidemarkError) {
    let history = try DrillHistory(repository).reports(
      systemIdentifier: drills.first.flatMap { SystemIdentifier(text: $0.report.systemIdentifier) })
    let known = history.drills.map(\.report)
    let own = drills.map(\.report).filter { report in !known.contains { $0.name == report.name } }
    let page = DrillPage(drills: drills, history: known + own)
    try DurableFile.write(Array(page.html.utf8), to: try RestoreCommand.absolute(path), mode: 0o644)
  }
}

struct DrillListCommand: TidemarkCommand {
  static let configuration = CommandConfiguration(commandName: "list", abstract: "Earlier drills.")
  @OptionGroup var global: GlobalOptions
  var recordedName: String? { nil }

  struct Drill: Encodable {
    var name: String
    var systemIdentifier: String
    var began: String
    var ok: Bool
    var region: String?
    var target: String
    var backup: String?
    var rtoSeconds: Double?
    var rtoMet: Bool?
    var rpoSeconds: Double?
    var rpoMet: Bool?
    var findings: Int
    var object: String
    var signedBy: String
  }
  struct Unusable: Encodable {
    var object: String
    var reason: String
  }
  struct Report: Encodable {
    var drills: [Drill]
    var unusable: [Unusable]
  }

  func execute() throws(TidemarkError) -> Int32 {
    let context = try CommandContext(global)
    let (drills, unusable) = try DrillHistory(try context.repository()).reports(systemIdentifier: nil)
    let report = Report(
      drills: drills.map { drill in
        let report = drill.report
        return Drill(
          name: report.name, systemIdentifier: report.systemIdentifier, began: report.began, ok: report.ok,
          region: report.region, target: report.target, backup: report.backup?.label, rtoSeconds: report.rtoSeconds,
          rtoMet: report.rtoMet, rpoSeconds: report.rpoSeconds, rpoMet: report.rpoMet,
          findings: report.findings.count, object: drill.object, signedBy: drill.signedBy)
      }, unusable: unusable.map { Unusable(object: $0.object, reason: $0.error.description) })
    try context.print(report) {
      (report.drills.isEmpty ? "there was no drill yet\n" : "")
        + report.drills.map { drill in
          "\(drill.name)  \(drill.ok ? "passed" : "FAILED")  "
            + (drill.rtoSeconds.map { "RTO \(Seconds($0))" } ?? "not restored")
            + (drill.rpoSeconds.map { ", RPO \(Seconds($0))" } ?? "")
            + "  from \(drill.region ?? "any region")  \(drill.target)"
            + (drill.findings > 0 ? "  \(drill.findings) findings" : "") + "\n"
        }.joined()
        + report.unusable.map { "UNUSABLE \($0.object): \($0.reason)\n" }.joined()
    }
    return report.unusable.isEmpty ? 0 : ExitStatus.findings.rawValue
  }
}

struct DrillReportCommand: TidemarkCommand {
  static let configuration = CommandConfiguration(
    commandName: "report", abstract: "Show the report of an earlier drill.",
    discussion: "With --json the document as it was signed.")
  @OptionGroup var global: GlobalOptions
  var recordedName: String? { nil }
  @Argument(help: "The drill's name, or its beginning (default: the newest).") var time: String?
  @Option(help: "Write it as one HTML page.") var html: String?

  func execute() throws(TidemarkError) -> Int32 {
    let context = try CommandContext(global)
    let history = DrillHistory(try context.repository())
    let found = try history.reports(systemIdentifier: nil, prefix: time ?? "")
    guard let drill = found.drills.last, time == nil || found.drills.count == 1 else {
      if let error = found.unusable.first?.error { throw error }
      throw TidemarkError(
        found.drills.isEmpty ? .objectNotFound : .usage,
        found.drills.isEmpty ? "there is no such drill" : "the name is that of several drills", object: time,
        next: "'tidemark drill list' shows the names")
    }
    if let html {
      let all = try history.reports(systemIdentifier: SystemIdentifier(text: drill.report.systemIdentifier))
      let page = DrillPage(drills: [drill], history: all.drills.map(\.report))
      try DurableFile.write(Array(page.html.utf8), to: try RestoreCommand.absolute(html), mode: 0o644)
    }
    try CommandContext.write(
      context.printsJSON
        ? String(decoding: drill.document, as: UTF8.self) + "\n"
        : DrillText(drill.report).text + "report \(drill.object), signed by \(drill.signedBy)\n")
    return 0
  }
}
