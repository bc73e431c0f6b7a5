// From a server that was just started, or found, to one that is handed over: followed to its target, promoted, proven by
// a transaction of its own, rid of the recovery's settings and opened to its clients.
import BackupRepository
import Diagnostics
import PostgresFormats
import SystemSupport

extension RestoreRun {
  /// What `wal-fetch` gets to know.
  func planFile(_ plan: RestorePlan, _ target: RestoreTarget, _ lock: String) -> RecoveryPlanFile {
    RecoveryPlanFile(
      systemIdentifier: plan.backup.manifest.systemIdentifier, legs: plan.legs,
      histories: plan.histories.map(\.rawValue), spool: target.spoolDirectory, lock: lock,
      region: repository.regions.regions.count == 1 ? repository.regions.regions[0].name : nil,
      isIsolated: request.isIsolated ? true : nil, end: plan.end?.description)
  }

  /// - Parameter spool: what is fetched ahead; `nil` where `wal-fetch` fetches by itself. It has ended when this returns
  ///   from a promotion.
  func complete(
    _ report: inout RestoreReport, _ server: RecoveredServer, _ spool: WALSpool?,
    _ mark: inout ContinuousClock.Instant
  ) throws(TidemarkError) {
    let settings = server.settings
    report.reached = try follow(server, spool, &report.remarks)
    report.endPhase("replay", spool?.byteCount ?? 0, since: &mark)
    CrashPoint.reach("restore.after-replay")
    report.isStarted = request.action != .shutdown
    report.isPaused = request.action == .pause
    if request.action == .promote {
      report.firstTransaction = try server.probe()
      report.endPhase("probe", since: &mark)
    }
    report.rtoSeconds = (ContinuousClock.now - begin).seconds
    if request.action == .promote {
      CrashPoint.reach("restore.before-settings")
      try RecoverySettings.removeRecoveryLines(settings.target.directory, settings.tree)
      CrashPoint.reach("restore.after-settings")
    }
    if report.isStarted {
      if !request.isIsolated { try server.openToClients() }
      // What was reached counts, whether or not the catalogues can be asked.
      do throws(TidemarkError) { report.remarks += try server.collationRemarks() } catch {
        report.remarks.append("the collations' versions couldn't be compared: \(error.description)")
      }
      report.server = server
    }
    if request.action == .promote {
      spool?.stop()
      // The cluster takes writes: what can't be cleared away is no reason to end it.
      do throws(TidemarkError) { try Self.clear(settings.target.spoolDirectory) } catch {
        report.remarks.append("the spool couldn't be cleared: \(error.description)")
      }
    }
  }

  /// Follows the replay; where the primary's settings were raised after the backup, starts again with them.
  private func follow(
    _ server: RecoveredServer, _ spool: WALSpool?, _ remarks: inout [String]
  ) throws(TidemarkError) -> ReachedState {
    var raised: [String: Int]?
    while true {
      let end = try server.follow(request.action, spool: spool) { [progress] lsn in
        if let lsn { progress("replaying: \(lsn)") }
      }
      switch end {
      case .ended(let state): return state
      case .needs(let values):
        guard values != raised else {
          throw TidemarkError(
            .recoveryFailed, "the replay stands still in a server that is smaller than the primary was",
            object: server.directory,
            cause: values.sorted { $0.key < $1.key }.map { "\($0.key) must be \($0.value)" }.joined(separator: ", "),
            kept: "the repository, unchanged, and the restored files", next: "take these settings off its command line")
        }
        raised = values
        remarks.append(
          "raised as on the primary after the backup: "
            + values.sorted { $0.key < $1.key }.map { "\($0.key) = \($0.value)" }.joined(separator: ", "))
        try server.shutDown()
        try server.settings.raise(values)
        try server.start()
      }
    }
  }
}
