// What a run of a command leaves for the machines that watch: metrics, and notifications of what went wrong or is well
// again. One process runs one command, so there is one record. Nothing here changes the command's result: what can't be
// written or delivered is said in the log.
import BackupRepository
import BaseBackup
import Configuration
import Diagnostics
import Envelope
import Foundation
import Logging
import Monitoring
import ObjectStorage
import PointInTimeRestore
import PostgresFormats
import RestoreDrill
import Synchronization
import SystemSupport
import WALArchive

final class CommandRecord: Sendable {
  static let current = CommandRecord()

  /// PostgreSQL waits for `archive_command`, and asks again soon: no receiver may hold it up for longer.
  private static let walPushLimit = Duration.seconds(2)
  private static let findingCountMax = 50

  private struct State: Sendable {
    var context: CommandContext?
    var repositories: [Repository] = []
    var samples: [MetricSample] = []
    var findings: [String]?
    /// Regions whose drill's phases are among the samples.
    var drilled: Set<String> = []
  }
  private let state = Mutex(State())
  private let begin = ContinuousClock.now

  // MARK: Noting

  func note(_ context: CommandContext) { state.withLock { $0.context = context } }
  func note(_ repository: Repository) { state.withLock { $0.repositories.append(repository) } }
  func note(findings: [String]) { state.withLock { $0.findings = ($0.findings ?? []) + findings } }

  private func add(_ metric: Metric, _ value: Double, _ labels: [String: String] = [:]) {
    state.withLock { $0.samples.append(MetricSample(metric, value, labels)) }
  }

  func note(_ backup: BackupReport) {
    let manifest = backup.manifest
    add(.backupLastSuccess, manifest.stopTime)
    add(.backupDuration, backup.seconds)
    add(.backupBytes, Double(manifest.databaseBytes))
    add(.backupNewBytes, Double(manifest.newBytes))
    add(.backupStoredBytes, Double(manifest.storedBytes))
    add(.backupWALWait, backup.walWaitSeconds)
    add(.backupSuspect, manifest.suspect == nil ? 0 : 1)
  }

  func note(_ push: WALPushReport) {
    add(.walPushLastSuccess, Double(wallClockSeconds()))
    add(.walPushDuration, (ContinuousClock.now - begin).seconds)
    add(.walPushFiles, 1)
    add(.walPushStoredBytes, Double(push.storedByteCount))
  }

  func note(_ restore: RestoreReport) {
    if restore.isStarted { add(.restoreRTO, restore.rtoSeconds) }
  }

  func note(_ drill: DrillReport) {
    let region = drill.region ?? "any"
    let labels = ["region": region]
    let now = Double(wallClockSeconds())
    add(.drillLastRun, now, labels)
    if drill.ok { add(.drillLastSuccess, now, labels) }
    if let rto = drill.rtoSeconds { add(.drillRTO, rto, labels) }
    if let rpo = drill.rpoSeconds { add(.drillRPO, rpo, labels) }
    add(.drillFindings, Double(drill.findings.count), labels)
    for phase in drill.phases { add(.drillPhase, phase.seconds, ["region": region, "phase": phase.name]) }
    state.withLock { _ = $0.drilled.insert(region) }
    note(findings: drill.findings.map { "\(region): \($0)" })
  }

  // MARK: The end

  /// Writes the metrics and tells the receivers. Called once, when the result has been printed.
  func conclude(_ command: String, _ status: Int32, _ error: TidemarkError?) {
    let state = state.withLock { $0 }
    guard let context = state.context else { return }
    if let directory = context.configuration.metricsDirectory {
      do throws(TidemarkError) { try write(directory, command, status, context, state) } catch {
        context.logger.warning("the metrics can't be written", metadata: ["error": "\(error.description)"])
      }
    }
    notify(command, status, error, context, state)
  }

  private func write(
    _ directory: String, _ command: String, _ status: Int32, _ context: CommandContext, _ state: State
  ) throws(TidemarkError) {
    let cluster = context.configuration.cluster
    let regions = context.configuration.repository.regions.map(\.name)
    let own = ["cluster": cluster, "command": command]
    var samples = state.samples.map { sample in
      MetricSample(sample.metric, sample.value, sample.labels.merging(["cluster": cluster]) { given, _ in given })
    }
    let now = Double(wallClockSeconds())
    samples.append(MetricSample(.commandLastRun, now, own))
    if status == 0 { samples.append(MetricSample(.commandLastSuccess, now, own)) }
    samples.append(MetricSample(.commandDuration, (ContinuousClock.now - begin).seconds, own))
    samples.append(MetricSample(.commandExitStatus, Double(status), own))
    let result = status == 0 ? "ok" : status == ExitStatus.findings.rawValue ? "findings" : "error"
    samples.append(MetricSample(.commandRuns, 1, own.merging(["result": result]) { $1 }))
    if let findings = state.findings { samples.append(MetricSample(.findings, Double(findings.count), own)) }
    var traffic: [String: StoreStatistics] = [:]
    for region in state.repositories.flatMap(\.regions.regions) {
      let seen = region.store.statistics
      traffic[region.name, default: StoreStatistics()].requests += seen.requests
      traffic[region.name]?.failures += seen.failures
      traffic[region.name]?.bytesSent += seen.bytesSent
      traffic[region.name]?.bytesReceived += seen.bytesReceived
    }
    for (region, seen) in traffic {
      let labels = own.merging(["region": region]) { $1 }
      samples.append(MetricSample(.regionBytes, Double(seen.bytesSent + seen.bytesReceived), labels))
      samples.append(MetricSample(.regionRequests, Double(seen.requests), labels))
      samples.append(MetricSample(.regionFailures, Double(seen.failures), labels))
    }
    try MetricsTextfile(directory: directory, cluster: cluster, command: command).merge(samples) { old in
      switch old.metric {
      case .regionBytes, .regionRequests, .regionFailures: return false
      case .drillPhase where state.drilled.contains(old.labels["region"] ?? ""): return false
      default: return old.labels["region"].map { regions.contains($0) || $0 == "any" } ?? true
      }
    }
    // Looking at the journals takes time that a healthy archive_command doesn't have to spend.
    guard command != "wal-push" || hasRegionTrouble(state) else { return }
    try writeState(directory, context, state)
  }

  /// What the host knows of its regions, in one file for all commands: a sample must not stand in two.
  private func writeState(_ directory: String, _ context: CommandContext, _ state: State) throws(TidemarkError) {
    let cluster = context.configuration.cluster
    var samples: [MetricSample] = []
    if let repository = state.repositories.first {
      for region in context.configuration.repository.regions {
        let labels = ["cluster": cluster, "region": region.name]
        samples.append(MetricSample(.debts, Double(try repository.regions.debts.count(region.name)), labels))
        let failing = repository.regions.regions.first { $0.name == region.name }?.health.failingFor
        samples.append(MetricSample(.regionFailing, failing?.seconds.rounded() ?? 0, labels))
      }
    } else {
      return
    }
    let objectives = context.configuration.objectives
    if let rto = objectives.rto { samples.append(MetricSample(.objectiveRTO, rto.seconds, ["cluster": cluster])) }
    if let rpo = objectives.rpo { samples.append(MetricSample(.objectiveRPO, rpo.seconds, ["cluster": cluster])) }
    try MetricsTextfile(directory: directory, cluster: cluster, command: "state").write(samples)
  }

  private func hasRegionTrouble(_ state: State) -> Bool {
    state.repositories.contains { repository in
      repository.regions.log.total > 0 || repository.regions.regions.contains { $0.health.failingFor != nil }
    }
  }

  // MARK: Notifications

  private static let failures: [String: NotificationEvent] = [
    "backup": .backupFailed, "wal-push": .walPushFailed, "restore": .restoreFailed, "drill": .drillFailed,
    "check": .checkFailed, "verify": .verifyFailed, "expire": .expireFailed, "sync": .syncFailed,
  ]

  private func notify(
    _ command: String, _ status: Int32, _ error: TidemarkError?, _ context: CommandContext, _ state: State
  ) {
    guard !context.configuration.notifications.isEmpty else { return }
    let (targets, unusable) = context.notificationTargets()
    let notifier = Notifier(targets, stateDirectory: context.configuration.stateDirectory, version: Version.text)
    let findings = Array((state.findings ?? []).prefix(Self.findingCountMax))
    var undelivered = unusable
    func tell(_ event: NotificationEvent, _ isFiring: Bool, _ summary: String) {
      let notification = NotificationMessage(
        event, isFiring ? .firing : .resolved, cluster: context.configuration.cluster, command: command,
        time: RecoveryTime(microseconds: wallClockMicroseconds()).description, summary: summary, exitStatus: status,
        error: isFiring ? error : nil, findings: isFiring ? findings : [])
      let limit = command == "wal-push" ? Self.walPushLimit : nil
      undelivered += notifier.deliver(notification, limit: limit).map { (target: $0.target, cause: $0.cause) }
    }
    // A signal, somebody else's lock and a slip of the hand are no failures of what is watched.
    let isNews = ![.interrupted, .locked, .usage].contains(error?.code)
    if let event = Self.failures[command], isNews {
      let isSuspect = error?.code == .checksumFailures
      let summary = error?.summary ?? (status == 0 ? "\(command) is well again" : "\(command) has findings")
      if !isSuspect { tell(event, status != 0, summary) }
      if command == "backup", status == 0 || isSuspect { tell(.backupSuspect, isSuspect, summary) }
    }
    if let repository = state.repositories.first, command != "wal-push" || hasRegionTrouble(state) {
      do throws(TidemarkError) { try tellOfRegions(repository, context, tell) } catch {
        context.logger.warning("the journals can't be read", metadata: ["error": "\(error.description)"])
      }
    }
    for failure in undelivered {
      context.logger.warning(
        "a notification wasn't delivered", metadata: ["receiver": "\(failure.target)", "cause": "\(failure.cause)"])
    }
  }

  private func tellOfRegions(
    _ repository: Repository, _ context: CommandContext, _ tell: (NotificationEvent, Bool, String) -> Void
  ) throws(TidemarkError) {
    var owed: [String] = []
    for region in context.configuration.repository.regions {
      let count = try repository.regions.debts.count(region.name)
      if count > 0 { owed.append("\(region.name) lacks \(count) objects") }
    }
    tell(.debts, !owed.isEmpty, owed.isEmpty ? "no region lacks anything" : owed.joined(separator: "; "))
    let down = repository.regions.regions.filter { region in
      region.health.failingFor.map { $0 >= repository.regions.policy.degradeAfter } ?? false
    }
    tell(
      .regionDegraded, !down.isEmpty,
      down.isEmpty ? "every region answers" : "failing: \(down.map(\.name).joined(separator: ", "))")
  }
}

extension CommandContext {
  /// The receivers with their secrets; those whose files can't be used are named with the reason.
  func notificationTargets() -> ([NotificationTarget], [(target: String, cause: String)]) {
    var targets: [NotificationTarget] = []
    var unusable: [(target: String, cause: String)] = []
    for settings in configuration.notifications {
      do throws(TidemarkError) {
        var secret: [UInt8]?
        if let path = settings.secretFile { secret = Array(try KeyFile.secret(path).utf8) }
        let means: NotificationTarget.Means
        switch settings.means {
        case .webhook(let url):
          means = .webhook(url: url, secret: secret, certificateAuthorityFile: settings.caFile)
        case .webhookFile(let path):
          means = .webhook(
            url: try KeyFile.secret(path), secret: secret, certificateAuthorityFile: settings.caFile)
        case .program(let path, let arguments): means = .program(path: path, arguments: arguments)
        }
        targets.append(
          NotificationTarget(
            name: settings.name, means: means, events: settings.events, timeout: settings.timeout,
            retryFor: settings.retryFor, repeatAfter: settings.repeatAfter))
      } catch { unusable.append((settings.name, error.description)) }
    }
    return (targets, unusable)
  }
}
