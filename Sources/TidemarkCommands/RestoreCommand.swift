// `restore`: brings a cluster back to a moment and measures how long that takes.
import ArgumentParser
import BackupRepository
import Configuration
import Diagnostics
import Foundation
import PointInTimeRestore
import PostgresFormats
import SystemSupport

extension TargetAction: ExpressibleByArgument {}

struct RestoreCommand: TidemarkCommand {
  static let configuration = CommandConfiguration(
    commandName: "restore", abstract: "Restore to a moment, start PostgreSQL, and measure the recovery time.",
    discussion: """
      Without a target the end of the archived WAL is restored. After it the server is promoted. With --target-action \
      pause it can be looked at, and --continue-to-time and its like go forward from there; --continue ends the pause.
      """)
  @OptionGroup var global: GlobalOptions
  @OptionGroup(title: "Going on") var continuation: ContinuationOptions
  @Option(help: "An empty directory for the data, with --delta the cluster's own, or the one to go on in.")
  var targetDirectory: String
  @Option(help: "A moment with its zone: '2026-11-24 03:15:00+01'.") var toTime: String?
  @Option(help: "A WAL position: 16/B374D848.") var toLsn: String?
  @Option(help: "A transaction's number.") var toXid: UInt64?
  @Option(help: "A restore point's name.") var toName: String?
  @Flag(help: "The end of the backup.") var toBackupEnd = false
  @Flag(help: "The end of the archived WAL (the default).") var toLatest = false
  @Flag(help: "Stop just before the target.") var exclusive = false
  @Option(help: "The timeline to follow.") var timeline: UInt32?
  @Option(help: "The backup's label, or its beginning.") var backup: String?
  @Option(help: "Read from this region alone.") var fromRegion: String?
  @Option(help: "OLD=NEW: where a tablespace goes. Repeatable.") var tablespaceMap: [String] = []
  @Option(help: "An empty directory for the WAL, to which pg_wal leads; without it pg_wal is a directory.")
  var walDirectory: String?
  @Option(help: "promote, pause or shutdown.") var targetAction = TargetAction.promote
  @Flag(help: "Restore the files and don't start PostgreSQL.") var noStart = false
  @Option(help: "The port of the restored server.") var port: Int?
  @Flag(help: "Write over the stopped cluster there: only what differs is fetched.") var delta = false
  @Flag(help: "Print the plan and write nothing.") var planOnly = false
  @Flag(help: "Print how long each stage worked and waited.") var profile = false
  @Option(help: "The lineage: the system identifier.") var systemIdentifier: String?

  struct Report: Codable {
    struct Reached: Codable {
      var lsn: String?
      var time: String?
      var timeline: UInt32?
    }
    var backup: String
    var systemIdentifier: String
    var target: String
    var action: String
    var reached: Reached?
    var phases: [RestorePhase]
    var rtoSeconds: Double
    var objectiveSeconds: Double?
    var met: Bool?
    var regions: [String: RegionReport]
    var events: [RegionEvent]
    var port: Int?
    var targetDirectory: String
    var started: Bool
    var bytes: Int64
    var delta: DeltaReport?
    var walSegments: Int
    var regionsNotAsked: [String]
    var nextSteps: [String]
    var profile: [StageProfile]
    var limit: RestoreLimit?
    var remarks: [String]
    var continuedFrom: String?
  }

  func execute() throws(TidemarkError) -> Int32 {
    let begin = ContinuousClock.now
    var request = try request()
    let further = try furtherRequest()
    let context = try CommandContext(global)
    request.limit(by: context.configuration)
    var repository = try context.repository()
    if let fromRegion { repository = try repository.only(region: fromRegion) }
    let meter = ProgressMeter(context.logger)
    let host = try context.restoreHost()
    let result: RestoreReport
    if var further {
      further.memoryByteCount = context.configuration.limits.memory
      result = try RestoreContinuation(repository, further, host, begin: begin) { meter.show($0) }.run()
    } else {
      let run = RestoreRun(repository, request, host, begin: begin) { meter.show($0) }
      result = planOnly ? RestoreReport(plan: try run.planOnly()) : try run.run()
    }
    if !planOnly {
      meter.end()
      CommandRecord.current.note(result)
    }
    let objective = context.configuration.objectives.rto?.seconds
    let report = Report(
      backup: result.plan.backup.label.text, systemIdentifier: result.plan.backup.manifest.systemIdentifier,
      target: result.plan.target.description, action: request.action.rawValue,
      reached: planOnly
        ? nil
        : Report.Reached(
          lsn: result.reached.lsn?.description,
          time: result.reached.time.map { RecoveryTime(microseconds: $0).description },
          timeline: result.reached.timeline?.rawValue),
      phases: result.phases, rtoSeconds: result.rtoSeconds, objectiveSeconds: objective,
      met: planOnly ? nil : objective.map { result.rtoSeconds <= $0 }, regions: RegionReport.all(repository),
      events: repository.regions.log.events, port: result.port, targetDirectory: request.targetDirectory,
      started: result.isStarted, bytes: result.plan.byteCount, delta: result.delta,
      walSegments: result.plan.segments.count,
      regionsNotAsked: result.plan.regionsNotAsked, nextSteps: result.nextSteps,
      profile: result.profile, limit: result.limit, remarks: result.remarks,
      continuedFrom: result.continuedFrom?.description)
    for remark in report.remarks { context.logger.warning("restore: \(remark)") }
    try context.print(report) { text(report, result) }
    return 0
  }

  private func request() throws(TidemarkError) -> RestoreRequest {
    var targets: [RecoveryTarget] = []
    if let toTime { targets.append(.time(try RecoveryTime(text: toTime).microseconds)) }
    if let toLsn { targets.append(.lsn(try LSN(text: toLsn))) }
    // pg_current_xact_id() gives it with the epoch, which WAL doesn't have.
    if let toXid { targets.append(.xid(UInt32(truncatingIfNeeded: toXid))) }
    if let toName { targets.append(.name(toName)) }
    if toBackupEnd { targets.append(.backupEnd) }
    if toLatest { targets.append(.latest) }
    guard targets.count <= 1 else {
      throw TidemarkError(.usage, "several targets are given", next: "give one of the --to-… options")
    }
    var request = RestoreRequest(targetDirectory: try Self.absolute(targetDirectory))
    request.target = targets.first ?? .latest
    request.isExclusive = exclusive
    request.timeline = timeline.map { TimelineID($0) }
    request.backup = backup
    request.action = targetAction
    request.starts = !noStart
    request.port = port
    request.isDelta = delta
    request.walDirectory = walDirectory
    if let systemIdentifier {
      guard let identifier = SystemIdentifier(text: systemIdentifier) else {
        throw TidemarkError(.usage, "not a system identifier", object: systemIdentifier)
      }
      request.systemIdentifier = identifier
    }
    for pair in tablespaceMap {
      let parts = pair.split(separator: "=", maxSplits: 1)
      guard parts.count == 2 else {
        throw TidemarkError(
          .usage, "not of the form OLD=NEW", object: pair, next: "--tablespace-map /old/place=/new/place")
      }
      request.tablespaceMap[String(parts[0])] = String(parts[1])
    }
    return request
  }

  /// What goes on with an earlier restore, which takes no option that says where and how it began.
  private func furtherRequest() throws(TidemarkError) -> ContinuationRequest? {
    guard let (target, _) = try continuation.chosen() else { return nil }
    let others: [(String, Bool)] = [
      ("--to-time", toTime != nil), ("--to-lsn", toLsn != nil), ("--to-xid", toXid != nil),
      ("--to-name", toName != nil), ("--to-backup-end", toBackupEnd), ("--to-latest", toLatest),
      ("--backup", backup != nil), ("--tablespace-map", !tablespaceMap.isEmpty),
      ("--wal-directory", walDirectory != nil), ("--no-start", noStart),
      ("--plan-only", planOnly), ("--delta", delta), ("--system-identifier", systemIdentifier != nil),
      ("--exclusive without a new target", exclusive && target == nil),
      ("--timeline without a new target", timeline != nil && target == nil),
    ]
    if let other = others.first(where: { $0.1 }) {
      throw TidemarkError(
        .usage, "\(other.0) has no meaning for a restore that goes on", object: targetDirectory,
        next: "leave it away, or restore anew into an empty directory")
    }
    var further = ContinuationRequest(targetDirectory: try Self.absolute(targetDirectory))
    further.target = target
    further.isExclusive = exclusive
    further.timeline = timeline.map { TimelineID($0) }
    further.action = targetAction
    further.port = port
    return further
  }

  static func absolute(_ path: String) throws(TidemarkError) -> String {
    path.hasPrefix("/") ? path : "\(FileManager.default.currentDirectoryPath)/\(path)"
  }

  /// This program's own file.
  static func program() throws(TidemarkError) -> String {
    do { return try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe") } catch {
      throw TidemarkError(.localIO, "cannot find this program's own file", cause: "\(error)")
    }
  }

  private static func name(_ cause: RestoreLimit.Cause) -> String {
    switch cause {
    case .region: "the region"
    case .cpu: "the CPU"
    case .disk: "the disk"
    case .replay: "PostgreSQL's replay"
    case .overhead: "start and plan"
    }
  }

  private func text(_ report: Report, _ result: RestoreReport) -> String {
    var lines = ["backup \(report.backup), target: \(report.target), timeline \(result.plan.targetTimeline)"]
    lines.append("files: \(Size(report.bytes)), WAL: up to \(report.walSegments) segments")
    if let delta = report.delta {
      lines.append(
        "in place: \(Size(delta.keptBytes)) kept, \(Size(delta.writtenBytes)) written, \(delta.removedFiles) files removed"
      )
    }
    if !report.regionsNotAsked.isEmpty {
      lines.append(
        "regions that couldn't be asked: \(report.regionsNotAsked.joined(separator: ", ")); the end of WAL is what the others hold"
      )
    }
    for phase in report.phases {
      let rate =
        phase.bytes > 0
        ? ", \(Size(phase.bytes)), \(Size(Int64(Double(phase.bytes) / max(phase.seconds, 0.001))))/s" : ""
      lines.append("  \(phase.name.padding(toLength: 8, withPad: " ", startingAt: 0)) \(Seconds(phase.seconds))\(rate)")
    }
    for (name, region) in report.regions.sorted(by: { $0.key < $1.key }) {
      lines.append("  region \(name): \(Size(region.bytes)), \(region.requests) requests, \(region.failures) failures")
    }
    for remark in report.remarks { lines.append("remark: \(remark)") }
    for event in report.events {
      lines.append("  region \(event.region): \(event.kind.rawValue) \(event.object ?? "") \(event.detail ?? "")")
    }
    if let from = report.continuedFrom { lines.append("went on from \(from)") }
    if let reached = report.reached, report.started {
      lines.append(
        "reached \(reached.lsn ?? "?"), last commit \(reached.time ?? "none"), now on timeline \(reached.timeline ?? 0), port \(report.port ?? 0)"
      )
    }
    if !planOnly {
      let objective =
        report.objectiveSeconds.map { " (objective \(Seconds($0)): \(report.met == true ? "met" : "MISSED"))" } ?? ""
      lines.append("RTO \(Seconds(report.rtoSeconds))\(objective)")
    }
    if let limit = report.limit {
      let parts = RestoreLimit.Cause.allCases.map { "\(Self.name($0)) \(Seconds(limit.seconds($0)))" }
      lines.append("limited by \(Self.name(limit.by)): \(parts.joined(separator: ", "))")
    }
    lines += report.nextSteps.map { "next: \($0)" }
    return lines.joined(separator: "\n") + "\n" + (profile ? ProfileTable(report.profile).text : "")
  }
}

extension RestoreRequest {
  mutating func limit(by configuration: TidemarkConfiguration) {
    if let workers = configuration.limits.workers { workerCount = workers }
    memoryByteCount = configuration.limits.memory
  }
}
