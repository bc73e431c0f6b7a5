// A restore from beginning to end, measured: plan, files and WAL at once, start, replay, first read-write query.
import BackupRepository
import Diagnostics
import Foundation
import Glibc
import PostgresFormats
import SystemSupport

package struct RestorePhase: Sendable, Codable, Equatable {
  package var name: String
  package var seconds: Double
  package var bytes: Int64
}

/// What of a cluster that was there a delta restore used.
package struct DeltaReport: Sendable, Codable, Equatable {
  /// Bytes of files that were as in the backup.
  package var keptBytes: Int64 = 0
  /// Bytes of files that were written.
  package var writtenBytes: Int64 = 0
  package var removedFiles = 0
  /// Where the cluster's own WAL is kept, and tablespaces that the backup doesn't have.
  package var setAside: [String] = []
}

package struct RestoreReport: Sendable {
  package var plan: RestorePlan
  package var phases: [RestorePhase] = []
  package var reached = ReachedState()
  package var rtoSeconds = 0.0
  package var port: Int?
  package var isStarted = false
  package var isPaused = false
  package var fileCount = 0
  /// What a delta restore found and did; `nil` where there was nothing to compare with.
  package var delta: DeltaReport?
  /// Commands for a shell, in their order.
  package var nextSteps: [String] = []
  /// Where the time of files and WAL went.
  package var profile: [StageProfile] = []
  /// What most of the time was spent on; `nil` for a plan alone.
  package var limit: RestoreLimit?
  /// The restored server's first transaction of its own.
  package var firstTransaction: UInt64?
  /// What the operator should know.
  package var remarks: [String] = []
  /// The server, while it runs.
  package var server: RecoveredServer?
  /// Where the recovery stood from which this one went on.
  package var continuedFrom: LSN?

  package init(plan: RestorePlan) {
    self.plan = plan
    remarks = plan.remarks
  }

  mutating func endPhase(_ name: String, _ bytes: Int64 = 0, since mark: inout ContinuousClock.Instant) {
    let now = ContinuousClock.now
    phases.append(RestorePhase(name: name, seconds: (now - mark).seconds, bytes: bytes))
    mark = now
  }
}

package struct RestoreRun {
  let repository: Repository
  let request: RestoreRequest
  let host: RestoreHost
  let begin: ContinuousClock.Instant
  let progress: @Sendable (String) -> Void

  /// `begin` is when the command started: the RTO runs from there.
  package init(
    _ repository: Repository, _ request: RestoreRequest, _ host: RestoreHost, begin: ContinuousClock.Instant,
    progress: @escaping @Sendable (String) -> Void
  ) {
    self.repository = repository
    self.request = request
    self.host = host
    self.begin = begin
    self.progress = progress
  }

  /// The plan alone, with everything that can be refused before a byte is written.
  package func planOnly() throws(TidemarkError) -> RestorePlan { try prepare().plan }

  private func prepare() throws(TidemarkError) -> (plan: RestorePlan, host: RestoreHost, target: RestoreTarget) {
    if request.target == .latest && request.action != .promote {
      throw TidemarkError(
        .usage, "--target-action \(request.action.rawValue) needs a target: PostgreSQL ignores it at the end of WAL",
        next: "give --to-time, --to-lsn, --to-xid, --to-name or --to-backup-end")
    }
    var plan = try RestorePlanner(repository, request).plan()
    var host = host
    do throws(TidemarkError) {
      let programs = try PostgresPrograms(
        configured: host.binDirectory, major: plan.backup.manifest.serverVersion / 10_000)
      host.binDirectory = programs.directory
      if let remark = programs.remark { plan.remarks.append(remark) }
    } catch {
      guard !request.starts else { throw error }
      host.binDirectory = nil
    }
    return (plan, host, try RestoreTarget(request, plan, configured: host.dataDirectory))
  }

  /// - Parameter onFailure: is given what was done before the error that is then thrown.
  package func run(onFailure: (RestoreReport) -> Void = { _ in }) throws(TidemarkError) -> RestoreReport {
    let (plan, host, target) = try prepare()
    var report = RestoreReport(plan: plan)
    do throws(TidemarkError) { try carryOut(&report, host, target) } catch {
      onFailure(report)
      throw broken(expired(error, plan), target)
    }
    return report
  }

  /// What is said when an object of the plan isn't there any more because its backup isn't.
  private func expired(_ error: TidemarkError, _ plan: RestorePlan) -> TidemarkError {
    guard error.code == .objectNotFound else { return error }
    let backup = plan.backup
    do throws(TidemarkError) {
      _ = try repository.readSealed(
        .manifest, backup.layout.manifest(backup.label), limit: Repository.manifestByteCountMax)
      return error
    } catch let second {
      // Whatever else happens there, the first error stands.
      guard second.code == .objectNotFound else { return error }
    }
    return TidemarkError(
      error.code, "the backup expired while it was being restored", object: backup.label.text,
      cause: error.description,
      next: "repeat the restore with --delta and another backup, which 'tidemark list' shows;"
        + " let retention.grace be longer than a restore takes")
  }

  /// What is said of a directory that was left without its control file.
  private func broken(_ error: TidemarkError, _ target: RestoreTarget) -> TidemarkError {
    guard !request.isIsolated, error.code != .locked, !fileExists("\(target.directory)/\(FileRestorer.controlFile)"),
      // Without the mark the error stands without what is kept.
      let mark = try? UnfinishedRestore(in: target.sideDirectory)
    else { return error }
    let kept = ["the repository, unchanged"] + mark.setAside.filter(fileExists)
    return error.with(
      kept: kept.joined(separator: "; "),
      next: "repeat the restore with --delta to continue it: until then nothing can be started in \(target.directory)")
  }

  private func carryOut(
    _ report: inout RestoreReport, _ host: RestoreHost, _ examined: RestoreTarget
  ) throws(TidemarkError) {
    var last = begin
    func phase(_ name: String, _ bytes: Int64 = 0) { report.endPhase(name, bytes, since: &last) }
    let plan = report.plan
    let tree = try OwnedTree(userName: host.osUser)
    let port = request.port ?? Self.freePort(plan)
    report.port = port
    phase("plan")
    progress("restoring \(plan.backup.label) to \(request.target.description)")

    let spoolDirectory = examined.spoolDirectory
    try tree.makeDirectories(directoryName(examined.directory), mode: 0o755)
    try tree.makeDirectories(spoolDirectory)
    let lockPath = "\(examined.sideDirectory)/lock"
    let lock = try FileLock(lockPath, purpose: "a restore into this directory")
    try tree.give(lockPath)
    // Another restore may have come to its end, and its server be running, since this one looked.
    let target = try RestoreTarget(request, plan, configured: host.dataDirectory)
    try Self.clear(spoolDirectory)
    try DurableFile.remove("\(target.sideDirectory)/tablespaces")
    try planFile(plan, target, lockPath).write(target.sideDirectory, tree)
    // A scratch copy ends with its drill.
    if !request.isIsolated { try RestoreState(plan, request, port: port).write(target.sideDirectory, tree) }

    var mark = UnfinishedRestore(systemIdentifier: plan.backup.manifest.systemIdentifier)
    mark.tablespaces = (target.deadCluster?.tablespaces ?? [:]).merging(target.tablespaces) { $1 }
    mark.setAside = target.deadCluster?.setAside ?? []
    try mark.write(in: target.sideDirectory, tree)
    CrashPoint.reach("restore.after-mark")
    let fileSystems = try WrittenFileSystems(target, tree)

    let tablespaces = TablespaceGuard(
      sideDirectory: target.sideDirectory, tree: tree, isIsolated: request.isIsolated,
      isTheCluster: host.dataDirectory == target.directory, end: plan.end)
    try tablespaces.own(target.laterTablespaces)
    let memory = RestoreMemory(byteCount: request.memoryByteCount)
    let spool = WALSpool(
      repository, plan, directory: spoolDirectory, tree: tree, tablespaces: tablespaces, memory: memory)
    if request.starts { try spool.start() }
    defer { spool.stop() }
    let total = plan.byteCount
    let restorer = FileRestorer(
      repository: repository, backup: plan.backup, target: target, tree: tree,
      threadCount: min(request.workerCount, memory.packCount)
    ) { [progress] written in progress("files: \(written >> 20) of \(total >> 20) MiB") }
    var prepared: DeltaPreparation.Outcome?
    if let cluster = target.deadCluster {
      progress("removing what the backup doesn't have")
      prepared = try DeltaPreparation(cluster: cluster, target: target, tree: tree, restorer: restorer).run(&mark)
    }
    let files = try restorer.run()
    spool.replayIsNext()
    report.fileCount = files.fileCount
    phase("files", files.byteCount)
    if let prepared {
      report.remarks += prepared.remarks
      report.delta = DeltaReport(
        keptBytes: files.keptByteCount, writtenBytes: files.byteCount - files.keptByteCount,
        removedFiles: prepared.removedFileCount, setAside: prepared.setAside)
    }
    try fileSystems.synchronize()
    let settings = RecoverySettings(request: request, plan: plan, host: host, target: target, tree: tree)
    try remapTablespaces(target, tree)
    try settings.write(port: port)
    try restorer.completeControlFile()
    try UnfinishedRestore.remove(in: target.sideDirectory)
    phase("sync")

    if request.starts {
      let server = RecoveredServer(settings: settings, port: port)
      do throws(TidemarkError) {
        try server.start()
        phase("start")
        try complete(&report, server, spool, &last)
        report.remarks += tablespaces.remarks
      } catch {
        server.stop()
        throw error
      }
    } else {
      report.rtoSeconds = (ContinuousClock.now - begin).seconds
    }
    report.profile = [restorer.meter.profile, spool.meter.profile]
    report.limit = RestoreLimit(
      phases: report.phases, files: restorer.meter.profile, wal: spool.meter.profile,
      starvedSeconds: spool.starvedSeconds)
    report.nextSteps = NextSteps(settings: settings, port: port).commands
    withExtendedLifetime(lock) {}
  }

  private func remapTablespaces(_ target: RestoreTarget, _ tree: OwnedTree) throws(TidemarkError) {
    let path = "\(target.directory)/tablespace_map"
    guard fileExists(path) else { return }
    let map = try TablespaceMap(parsing: try readFile(path, limit: TablespaceMap.byteCountMax))
    let remapped = try map.remapped(
      map.entries.compactMap { entry in target.tablespaces[entry.oid].map { (old: entry.location, new: $0) } })
    try tree.write(String(decoding: remapped.fileBytes, as: UTF8.self), to: path)
  }

  /// The captured port, or the next one that nobody listens on.
  private static func freePort(_ plan: RestorePlan) -> Int {
    let captured = plan.backup.manifest.settings.first { $0.name == "port" }.flatMap { Int($0.value) } ?? 5432
    for port in captured..<min(captured + 1000, 65536) where isFree(port) { return port }
    return captured
  }

  private static func isFree(_ port: Int) -> Bool {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    guard descriptor >= 0 else { return false }
    defer { close(descriptor) }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = in_port_t(port).bigEndian
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    let bound = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
      }
    }
    return bound && !fileExists("/tmp/.s.PGSQL.\(port)") && !fileExists("/var/run/postgresql/.s.PGSQL.\(port)")
  }

  /// Removes what an earlier restore left in the spool.
  static func clear(_ directory: String) throws(TidemarkError) {
    guard isDirectory(directory) else { return }
    for name in try directoryEntries(directory) {
      let path = "\(directory)/\(name)"
      guard isDirectory(path) else {
        try DurableFile.remove(path)
        continue
      }
      try clear(path)
      if rmdir(path) != 0 { throw systemError("cannot remove the directory", path) }
    }
  }
}
