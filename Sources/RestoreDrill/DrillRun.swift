// A drill from beginning to end: restore into the scratch directory as in an emergency, prove what came out, measure,
// clean up, and report. Whatever happens, the scratch server is stopped and the files go.
//
// What makes a drill impossible (usage, configuration, a lock, too little space) is thrown. What an emergency would have
// met (a damaged object, a hole, a server that doesn't come up) is the drill's result: a report with findings.
import BackupRepository
import Diagnostics
import Foundation
import ObjectStorage
import PointInTimeRestore
import PostgresFormats
import SystemSupport

package struct DrillRun {
  let repository: Repository
  let request: DrillRequest
  let host: RestoreHost
  let live: LivePlaces
  let progress: @Sendable (String) -> Void

  /// `repository` has all regions: the report goes to each, whatever region is restored from.
  package init(
    _ repository: Repository, _ request: DrillRequest, _ host: RestoreHost, avoiding live: LivePlaces,
    progress: @escaping @Sendable (String) -> Void
  ) {
    self.repository = repository
    self.request = request
    // Never a recovery of the cluster itself, wherever its data directory is.
    var host = host
    host.dataDirectory = nil
    self.host = host
    self.live = live
    self.progress = progress
  }

  package func run() throws(TidemarkError) -> StoredDrill {
    // Found out before hours of work.
    if request.stores { _ = try repository.writer() }
    let tree = try OwnedTree(userName: host.osUser)
    let scratch = try DrillScratch(request.directory, avoiding: live)
    try scratch.prepare(tree, osUser: host.osUser)
    var report: DrillReport
    do throws(TidemarkError) { report = try rehearse(scratch) } catch {
      do throws(TidemarkError) { try scratch.clean() } catch {
        progress("the scratch directory couldn't be removed: \(error.description)")
      }
      throw error
    }
    conclude(&report)
    let document = try report.encoded()
    if request.stores { return try DrillHistory(repository).store(report, document) }
    return StoredDrill(report: report, document: document, object: "", signedBy: "")
  }

  /// Restores, proves and cleans up.
  private func rehearse(_ scratch: borrowing DrillScratch) throws(TidemarkError) -> DrillReport {
    let live: LiveCluster? =
      if case .latest = request.moment { request.live.flatMap(LiveCluster.init) } else { nil }
    let source = try request.region.map { (name) throws(TidemarkError) in try repository.only(region: name) }
    let reading = source ?? repository
    let before = reading.regions.regions.map(\.store.statistics)
    let eventCount = repository.regions.log.events.count
    let beganAt = wallClockMicroseconds()
    let label = BackupLabelName.new(at: beganAt / 1_000_000)
    var report = DrillReport(
      name: label.text, cluster: repository.layout.cluster, systemIdentifier: "", began: Self.text(beganAt), request)
    var restore = try restoreRequest(scratch, reading, &report)
    restore.workerCount = request.workerCount
    restore.memoryByteCount = request.bufferByteCount
    let watch = DrillDiskWatch(scratch.run, data: scratch.data, limit: request.disk)
    defer { watch.stop() }

    // From here on the clock runs, as in an emergency.
    let begin = ContinuousClock.now
    var partial: RestoreReport?
    do throws(TidemarkError) {
      let run = RestoreRun(reading, restore, host, begin: begin, progress: progress)
      let restored = try run.run { partial = $0 }
      fill(&report, restored)
      report.rtoSeconds = restored.rtoSeconds
      try measureLoss(&report, restored, beganAt, live)
      traffic(&report, reading, before, eventCount)
      if let server = restored.server { try prove(&report, server, restored.plan, scratch) }
    } catch {
      traffic(&report, reading, before, eventCount)
      if let partial { fill(&report, partial) }
      try note(watch.hasExceeded ? exceeded(watch) : error, &report)
    }
    watch.stop()
    if watch.hasExceeded, report.failure == nil { try note(exceeded(watch), &report) }
    report.limits.diskBytesSeen = watch.byteCountSeen
    let mark = ContinuousClock.now
    do throws(TidemarkError) {
      try scratch.clean()
      report.phases.append(phase("cleanup", mark))
    } catch { report.remarks.append("The scratch directory couldn't be removed: \(error.description)") }
    report.ended = Self.text(wallClockMicroseconds())
    return report
  }

  // MARK: The restore

  private func restoreRequest(
    _ scratch: borrowing DrillScratch, _ reading: Repository, _ report: inout DrillReport
  ) throws(TidemarkError) -> RestoreRequest {
    var restore = RestoreRequest(targetDirectory: scratch.data)
    restore.tablespaceDirectory = scratch.tablespaces
    restore.isIsolated = true
    restore.byteCountMax = request.disk
    restore.backup = request.backup
    restore.timeline = request.timeline
    restore.systemIdentifier = request.systemIdentifier
    // Autovacuum's three workers and the checks share what shared_buffers leaves.
    let megabytes = request.memory >> 20
    restore.serverSettings = [
      ("shared_buffers", "\(megabytes / 4)MB"), ("maintenance_work_mem", "\(megabytes / 16)MB"),
      ("work_mem", "\(max(4, megabytes / 64))MB"), ("temp_buffers", "8MB"),
    ]
    switch request.moment {
    case .latest: break
    case .target(let target):
      restore.target = target
      report.moment = target.kindText
    case .random(let seed):
      let window = try DrillWindow(reading, request)
      restore.target = .time(window.moment(seed: seed))
      report.moment = "random"
      report.seed = seed
      report.window = DrillReport.Window(from: Self.text(window.from), to: Self.text(window.to))
    }
    report.target = restore.target.description
    return restore
  }

  /// Takes what the restore says about itself.
  private func fill(_ report: inout DrillReport, _ restored: RestoreReport) {
    let manifest = restored.plan.backup.manifest
    report.systemIdentifier = manifest.systemIdentifier
    report.backup = DrillReport.Backup(
      label: manifest.label, timeline: manifest.timeline, startLSN: manifest.startLSN, stopLSN: manifest.stopLSN,
      stopTime: Self.text(Int64(manifest.stopTime * 1_000_000)), serverVersion: manifest.serverVersion,
      databaseBytes: manifest.databaseBytes)
    report.walSegments = restored.plan.segments.count
    report.phases = restored.phases.map {
      DrillReport.Phase(name: $0.name, seconds: $0.seconds, bytes: $0.bytes, countsForRTO: true)
    }
    if restored.server != nil {
      report.reached = DrillReport.Reached(
        lsn: restored.reached.lsn?.description, time: restored.reached.time.map(Self.text),
        timeline: restored.reached.timeline?.rawValue)
    }
    for region in restored.plan.regionsNotAsked {
      report.remarks.append("Region \(region) couldn't be asked: the end of the WAL is what the others hold.")
    }
  }

  /// What would have been lost if the cluster had ended when the drill began: everything since the newest recovered
  /// commit, unless the running cluster answers that all of its transactions came back.
  private func measureLoss(
    _ report: inout DrillReport, _ restored: RestoreReport, _ beganAt: Int64, _ live: LiveCluster?
  ) throws(TidemarkError) {
    guard case .latest = request.moment, let server = restored.server else { return }
    let newest = restored.reached.time ?? Int64(restored.plan.backup.manifest.stopTime * 1_000_000)
    report.rpoSeconds = max(0, Double(beganAt - newest) / 1_000_000)
    guard let live, live.systemIdentifier == report.systemIdentifier, let first = restored.firstTransaction else {
      return
    }
    if let reached = restored.reached.lsn {
      report.liveBytesAhead = max(0, Int64(clamping: live.lsn.rawValue) - Int64(clamping: reached.rawValue))
    }
    report.transactionsLost = try live.lost(by: try server.connect(), from: first)
    if report.transactionsLost == 0 { report.rpoSeconds = 0 }
  }

  private func traffic(
    _ report: inout DrillReport, _ reading: Repository, _ before: [StoreStatistics], _ eventCount: Int
  ) {
    for (region, earlier) in zip(reading.regions.regions, before) {
      let now = region.store.statistics
      report.regions[region.name] = DrillReport.Traffic(
        bytes: now.bytesReceived - earlier.bytesReceived, requests: now.requests - earlier.requests,
        failures: now.failures - earlier.failures)
    }
    report.events = Array(repository.regions.log.events.dropFirst(eventCount).prefix(1000))
  }

  // MARK: Proofs

  private func prove(
    _ report: inout DrillReport, _ server: RecoveredServer, _ plan: RestorePlan, _ scratch: borrowing DrillScratch
  ) throws(TidemarkError) {
    let proofs = DrillProofs(server, plan, scratch: scratch.directory, workerCount: request.workerCount)
    defer {
      report.checks = proofs.checks
      report.assertions = proofs.assertions
    }
    var mark = ContinuousClock.now
    func ended(_ name: String) {
      report.phases.append(phase(name, mark))
      mark = .now
    }
    CrashPoint.reach("drill.before-proofs")
    // A copy that isn't by itself must not go on running.
    guard try proofs.proveIsolation() else { return }
    try proofs.proveCatalogue()
    ended("catalogue")
    progress("checking tables and indexes")
    try proofs.proveIndexes()
    ended("amcheck")
    progress("asking \(request.assertions.count) assertions")
    try proofs.prove(request.assertions)
    ended("assertions")
    try server.shutDown()
    ended("stop")
    progress("checking pages")
    try proofs.provePages()
    ended("checksums")
  }

  private func phase(_ name: String, _ since: ContinuousClock.Instant) -> DrillReport.Phase {
    DrillReport.Phase(name: name, seconds: (ContinuousClock.now - since).seconds, bytes: 0, countsForRTO: false)
  }

  // MARK: Failures

  /// - Throws: `error` itself when it isn't about the repository, or no lineage is known to report it under.
  private func note(_ error: TidemarkError, _ report: inout DrillReport) throws(TidemarkError) {
    switch error.code {
    case .usage, .configurationInvalid, .configurationUnreadable, .locked, .interrupted, .internalFault,
      .targetNotEmpty,
      .targetInUse, .keyFileInvalid, .keyFileModeOpen, .noKeyOpens, .localPermission, .localIO, .targetUnreachable:
      throw error
    // Refused before anything was restored: the host's affair.
    case .spaceInsufficient where report.phases.isEmpty: throw error
    default: break
    }
    if report.systemIdentifier.isEmpty {
      // Where no lineage is known the restore's own error says more.
      guard let identifier = try? request.systemIdentifier ?? onlyLineage() else { throw error }
      report.systemIdentifier = identifier.description
    }
    report.failure = DrillReport.Failure(error)
  }

  private func onlyLineage() throws(TidemarkError) -> SystemIdentifier? {
    let lineages = try repository.lineages().lineages
    return lineages.count == 1 ? lineages[0].systemIdentifier : nil
  }

  private func exceeded(_ watch: DrillDiskWatch) -> TidemarkError {
    TidemarkError(
      .spaceInsufficient, "the drill needed more space than it may take, and was ended", object: request.directory,
      cause: "\(watch.byteCountSeen >> 20) MiB, \((request.disk ?? 0) >> 20) MiB are allowed",
      next: "raise drill.disk, or drill to a moment closer to a backup")
  }

  // MARK: The conclusion

  /// Findings, and the comparison with earlier drills.
  private func conclude(_ report: inout DrillReport) {
    if let failure = report.failure {
      report.findings.append(
        "The restore failed: \(failure.summary)" + (failure.object.map { ": \($0)" } ?? "")
          + (failure.cause.map { " (\($0))" } ?? ""))
    }
    for check in report.checks where check.outcome != .passed {
      let text = "\(check.name), \(check.subject): \(check.detail)"
      if check.outcome == .failed, check.severity == "finding" {
        report.findings.append(text)
      } else {
        report.remarks.append(text)
      }
    }
    for assertion in report.assertions where assertion.outcome != .passed {
      let text = "'\(assertion.name)': expected: \(assertion.expectation); got \(assertion.answer ?? "nothing")"
      if assertion.severity == "finding" { report.findings.append(text) } else { report.remarks.append(text) }
    }
    if let rto = report.rtoSeconds, let objective = report.rtoObjectiveSeconds {
      report.rtoMet = rto <= objective
      if rto > objective {
        report.findings.append(
          "RTO \(DrillComparison.seconds(rto)) is over the objective of \(DrillComparison.seconds(objective))")
      }
    }
    if let rpo = report.rpoSeconds, let objective = report.rpoObjectiveSeconds {
      report.rpoMet = rpo <= objective
      if rpo > objective {
        report.findings.append(
          "RPO \(DrillComparison.seconds(rpo)) is over the objective of \(DrillComparison.seconds(objective))")
      }
    }
    report.ok = report.findings.isEmpty
    var earlier: [DrillReport] = []
    if let identifier = SystemIdentifier(text: report.systemIdentifier) {
      do throws(TidemarkError) {
        earlier = try DrillHistory(repository).reports(repository.layout.lineage(identifier)).drills.map(\.report)
      } catch { report.remarks.append("Earlier drills couldn't be read: \(error.description)") }
    }
    let comparison = DrillComparison(report: report, earlier: earlier)
    report.comparison = comparison.lines
    report.advice = comparison.advice
  }

  private static func text(_ microseconds: Int64) -> String { RecoveryTime(microseconds: microseconds).description }
}
