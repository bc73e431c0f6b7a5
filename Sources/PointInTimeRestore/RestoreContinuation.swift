// Goes on with a restore whose server hasn't ended its recovery: forward to a later target on the same route, or to the
// target that it had, and from there to a cluster that takes writes. What was replayed is never replayed back: a target
// behind is refused before anything is touched. Whatever kills this, the next one can go on: the files are only ever
// replayed forward, and what is written beside them is written before the server that needs it starts.
import BackupRepository
import Diagnostics
import Foundation
import Glibc
import PostgresFormats
import SystemSupport

package struct ContinuationRequest: Sendable {
  package var targetDirectory: String
  /// `nil`: the target that the restore has.
  package var target: RecoveryTarget?
  package var isExclusive = false
  package var timeline: TimelineID?
  package var action = TargetAction.promote
  package var port: Int?
  /// Bytes of memory for buffers.
  package var memoryByteCount = 256 << 20

  package init(targetDirectory: String) { self.targetDirectory = targetDirectory }
}

package struct RestoreContinuation {
  let repository: Repository
  let request: ContinuationRequest
  let host: RestoreHost
  let begin: ContinuousClock.Instant
  let progress: @Sendable (String) -> Void

  /// How long another process's look at the lock, and the server's look at its access rules, may take.
  private static let momentLimit = Duration.seconds(5)

  package init(
    _ repository: Repository, _ request: ContinuationRequest, _ host: RestoreHost, begin: ContinuousClock.Instant,
    progress: @escaping @Sendable (String) -> Void
  ) {
    self.repository = repository
    self.request = request
    self.host = host
    self.begin = begin
    self.progress = progress
  }

  /// - Throws: `target-unreachable` with both positions for a target behind the server, or on another branch; `usage`
  ///   where there is no restore; `locked` while another command works on it; and what planning and recovering throw.
  package func run() throws(TidemarkError) -> RestoreReport {
    if request.target == .latest && request.action != .promote {
      throw TidemarkError(
        .usage, "--target-action \(request.action.rawValue) needs a target: PostgreSQL ignores it at the end of WAL",
        next: "give --continue-to-time, -lsn, -xid or -name")
    }
    let target = try RestoreTarget(continuing: request.targetDirectory)
    let state = try RestoreState(beside: target.directory)
    try requireWhole(target, state)
    let tree = try OwnedTree(userName: host.osUser)
    let lockPath = "\(target.sideDirectory)/lock"
    let lock = try Self.lock(lockPath)
    try tree.give(lockPath)
    let report = try goOn(target, state, tree, lockPath)
    withExtendedLifetime(lock) {}
    return report
  }

  /// What the directory must be, found out without the repository.
  private func requireWhole(_ target: RestoreTarget, _ state: RestoreState) throws(TidemarkError) {
    let control = "\(target.directory)/\(FileRestorer.controlFile)"
    guard fileExists(control) else {
      throw TidemarkError(
        .targetUnreachable, "the restore was broken off before its files were whole", object: target.directory,
        kept: "the repository, unchanged", next: "empty the directory and restore anew")
    }
    let found = try ControlFile(try readFile(control, limit: 64 << 10)).systemIdentifier
    guard found.description == state.systemIdentifier else {
      throw TidemarkError(
        .systemIdentifierForeign, "the directory holds another cluster than the one that was restored into it",
        object: target.directory,
        cause: "its system identifier is \(found), the restored one's \(state.systemIdentifier)",
        kept: "everything there, unchanged")
    }
    guard request.target == nil || isInRecovery(target) else {
      throw TidemarkError(
        .targetUnreachable, "the recovery has ended: a cluster that takes writes can't go forward in its old WAL",
        object: target.directory, kept: "the cluster, unchanged", next: "restore anew into an empty directory")
    }
  }

  /// PostgreSQL removes the file when the recovery has ended (xlog.c, `CleanupAfterArchiveRecovery`).
  private func isInRecovery(_ target: RestoreTarget) -> Bool { fileExists("\(target.directory)/recovery.signal") }

  /// `wal-fetch` looks at the lock for a moment, so one refusal means nothing.
  private static func lock(_ path: String) throws(TidemarkError) -> FileLock {
    let limit = Deadline.after(momentLimit)
    while true {
      do throws(TidemarkError) { return try FileLock(path, purpose: "a restore into this directory") } catch {
        guard error.code == .locked, !limit.hasPassed else { throw error }
      }
      usleep(10_000)
    }
  }

  private func restoreRequest(_ state: RestoreState) throws(TidemarkError) -> RestoreRequest {
    var restore = RestoreRequest(targetDirectory: request.targetDirectory)
    restore.backup = state.backup
    restore.systemIdentifier = SystemIdentifier(text: state.systemIdentifier)
    if let wanted = request.target { restore.target = wanted } else { restore.target = try state.target() }
    restore.isExclusive = request.target == nil ? state.isExclusive : request.isExclusive
    restore.timeline = request.target == nil ? TimelineID(state.timeline) : request.timeline
    restore.action = restore.target == .latest ? .promote : request.action
    restore.port = request.port ?? state.port
    restore.memoryByteCount = request.memoryByteCount
    return restore
  }

  /// The plan to the target; with `standing` in the refusal where that is known.
  private func plan(
    _ restore: RestoreRequest, _ standing: RecoveryStanding?
  ) throws(TidemarkError) -> RestorePlan {
    do throws(TidemarkError) { return try RestorePlanner(repository, restore).plan() } catch {
      guard error.code == .targetUnreachable, let standing else { throw error }
      throw TidemarkError(
        error.code, error.summary, object: error.object,
        cause: [error.cause, standing.description].compactMap { $0 }.joined(separator: "; "), kept: standing.kept,
        next: error.next)
    }
  }

  private func goOn(
    _ target: RestoreTarget, _ state: RestoreState, _ tree: OwnedTree, _ lockPath: String
  ) throws(TidemarkError) -> RestoreReport {
    var mark = begin
    let restore = try restoreRequest(state)
    var own = restore
    own.target = .backupEnd
    own.isExclusive = false
    own.timeline = nil
    let base: RestorePlan
    do throws(TidemarkError) { base = try plan(own, nil) } catch {
      throw error.code == .backupNotFound ? Self.expired(state, target) : error
    }
    var host = host
    let programs = try PostgresPrograms(
      configured: host.binDirectory, major: base.backup.manifest.serverVersion / 10_000)
    host.binDirectory = programs.directory
    let port = restore.port ?? state.port

    // Where it stands, and whether the way to the target leads forward from there.
    let probe = RecoveredServer(
      settings: RecoverySettings(request: restore, plan: base, host: host, target: target, tree: tree),
      port: state.port)
    let standing = try RecoveryStanding(probe, limit: .after(Self.momentLimit))
    var plan: RestorePlan
    do throws(TidemarkError) {
      plan = try self.plan(restore, standing)
      if request.target != nil { try requireForward(plan, restore, standing, state) }
    } catch {
      throw standing.isRunning ? probe.reopened(after: error) : error
    }
    if let remark = programs.remark { plan.remarks.append(remark) }
    var report = RestoreReport(plan: plan)
    report.port = port
    report.continuedFrom = standing.lsn
    report.endPhase("plan", since: &mark)

    let settings = RecoverySettings(request: restore, plan: plan, host: host, target: target, tree: tree)
    let server = RecoveredServer(settings: settings, port: port)
    let run = RestoreRun(repository, restore, host, begin: begin, progress: progress)
    // A server that has its target already is left to reach it, or to stay there.
    if request.target == nil, request.action != .shutdown, standing.isReachable || !isInRecovery(target) {
      if !standing.isRunning { try server.start() }
      // Nothing is fetched ahead for it.
      if isDirectory(target.spoolDirectory) {
        try tree.write("", to: "\(target.spoolDirectory)/\(PlannedWALFetch.failed)")
      }
      do throws(TidemarkError) {
        if standing.isRunning && !standing.isReachable {
          report.remarks.append(
            "the cluster takes writes already, and was left as it is: it wasn't started by this program")
          try RecoverySettings.removeRecoveryLines(target.directory, tree)
        } else {
          try run.complete(&report, server, nil, &mark)
        }
      } catch {
        if isInRecovery(target) { server.stop() }
        throw error
      }
    } else {
      try restart(&report, server, run, standing, lockPath, &mark) { () throws(TidemarkError) in
        guard request.target != nil else { return }
        let now = try RecoveryStanding(server, limit: .after(Self.momentLimit))
        try requireForward(plan, restore, now, state)
      }
    }
    report.nextSteps = NextSteps(settings: settings, port: port).commands
    return report
  }

  /// Without its backup nobody can say what the server needs on its way.
  private static func expired(_ state: RestoreState, _ target: RestoreTarget) -> TidemarkError {
    let isRunning = Postmaster(in: target.directory) != nil
    return TidemarkError(
      .backupNotFound, "the backup of this restore has expired, so it can't go on", object: state.backup,
      kept: isRunning ? "the restored server, which goes on as it was" : "the restored files, unchanged",
      next: "'SELECT pg_wal_replay_resume()' promotes a paused server where it stands; for another moment restore anew"
        + " into an empty directory, from a backup that 'tidemark list' shows")
  }

  /// Stops the server, if it runs, and starts it with what leads to the new target.
  private func restart(
    _ report: inout RestoreReport, _ server: RecoveredServer, _ run: RestoreRun, _ standing: RecoveryStanding,
    _ lockPath: String, _ mark: inout ContinuousClock.Instant, requireForward: () throws(TidemarkError) -> Void
  ) throws(TidemarkError) {
    let settings = server.settings
    let (target, tree) = (settings.target, settings.tree)
    progress("going on with \(report.plan.backup.label) to \(settings.request.target.description)")
    if standing.isRunning {
      CrashPoint.reach("continue.before-stop")
      do throws(TidemarkError) { try server.shutDown() } catch { throw server.reopened(after: error) }
      CrashPoint.reach("continue.after-stop")
      // One that wasn't at rest went on until now.
      try requireForward()
      report.endPhase("stop", since: &mark)
    }
    try tree.makeDirectories(target.spoolDirectory)
    try RestoreRun.clear(target.spoolDirectory)
    try run.planFile(report.plan, target, lockPath).write(target.sideDirectory, tree)
    CrashPoint.reach("continue.after-plan")
    try RestoreState(report.plan, settings.request, port: server.port).write(target.sideDirectory, tree)
    CrashPoint.reach("continue.before-settings")
    try settings.rewrite(port: server.port)
    CrashPoint.reach("continue.after-settings")

    // PostgreSQL begins again at its last restartpoint, and so does the spool.
    var ahead = report.plan
    if let redo = try server.redo() {
      // The last segment of all has no end that could lie before it.
      let first = ahead.segments.firstIndex { (try? $0.endLSN(ahead.segmentSize)).map { $0 > redo } ?? true }
      ahead.segments = first.map { Array(ahead.segments[$0...]) } ?? []
    }
    let spool = WALSpool(
      repository, ahead, directory: target.spoolDirectory, tree: tree,
      tablespaces: TablespaceGuard(
        sideDirectory: target.sideDirectory, tree: tree, isIsolated: false,
        isTheCluster: host.dataDirectory == target.directory, end: report.plan.end),
      memory: RestoreMemory(byteCount: settings.request.memoryByteCount))
    spool.replayIsNext()
    try spool.start()
    defer { spool.stop() }
    do throws(TidemarkError) {
      try server.start()
      CrashPoint.reach("continue.after-start")
      report.endPhase("start", since: &mark)
      try run.complete(&report, server, spool, &mark)
    } catch {
      server.stop()
      throw error
    }
    report.plan.segments = ahead.segments
    report.profile = [spool.meter.profile]
  }

  /// The target lies on the way that the server came, and not behind it.
  private func requireForward(
    _ plan: RestorePlan, _ restore: RestoreRequest, _ standing: RecoveryStanding, _ state: RestoreState
  ) throws(TidemarkError) {
    guard let here = standing.lsn else { return }
    func refusal(_ summary: String, _ cause: String) -> TidemarkError {
      TidemarkError(
        .targetUnreachable, summary, object: restore.target.description, cause: "\(cause); \(standing.description)",
        kept: standing.kept, next: "choose a later target, or restore anew into an empty directory to go back")
    }
    // The end of what was replayed belongs to the record before it.
    let before = LSN(rawValue: max(here.rawValue, 1) - 1)
    let wal = try repository.walCatalog(plan.backup.layout, segmentSize: plan.segmentSize)
    let stood = try wal.history(TimelineID(state.timeline)).timeline(of: before)
    guard try wal.history(plan.targetTimeline).contains(stood, upTo: here) else {
      throw refusal(
        "the target lies on a branch that the restored server has passed by",
        "timeline \(plan.targetTimeline) doesn't lead through timeline \(stood) as far as that")
    }
    let wanted: LSN? = if case .lsn(let lsn) = restore.target { lsn } else { plan.end }
    // The same target again is what a killed command's successor asks for.
    let isSame = try state.target() == restore.target && state.isExclusive == restore.isExclusive
    if let wanted, wanted < here, !isSame {
      throw refusal("the target lies behind where the restored server stands", "the target is at \(wanted)")
    }
    let isPast = { (last: Int64, wanted: Int64) in restore.isExclusive ? last >= wanted : last > wanted }
    if case .time(let wanted) = restore.target, let last = standing.lastCommit, isPast(last, wanted) {
      throw refusal(
        "the target lies behind where the restored server stands",
        "the target is at \(plan.end?.description ?? "an earlier position")")
    }
  }
}
