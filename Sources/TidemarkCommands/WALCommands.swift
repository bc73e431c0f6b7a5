// `wal-push` and `wal-fetch`: PostgreSQL's archive_command and restore_command, with the exit statuses that it reads.
import ArgumentParser
import BackupRepository
import Configuration
import Diagnostics
import PointInTimeRestore
import PostgresFormats
import S3Storage
import SystemSupport
import WALArchive

struct WALPushCommand: TidemarkCommand {
  static let configuration = CommandConfiguration(
    commandName: "wal-push", abstract: "Archive one WAL file: archive_command = 'tidemark wal-push %p'.")
  @OptionGroup var global: GlobalOptions
  @Argument(help: "The file, as %p gives it.") var path: String

  func execute() throws(TidemarkError) -> Int32 {
    // What the regions' requests need, while configuration and keys have one core busy. The first request says what couldn't
    // be loaded.
    let library = WorkerThread<Void>("libcurl") { try S3Store.loadLibrary() }
    defer { _ = try? library.join() }
    let context = try CommandContext(global)
    let push = WALPush(try context.repository(), dataDirectory: context.configuration.postgres.dataDirectory)
    let report: WALPushReport
    do throws(TidemarkError) { report = try push.push(path) } catch {
      throw error.with(kept: "the file in pg_wal: PostgreSQL keeps it and tries again")
    }
    CommandRecord.current.note(report)
    context.logger.info(
      "archived",
      metadata: ["file": "\(report.name)", "bytes": "\(report.storedByteCount)", "was-there": "\(report.wasThere)"])
    return 0
  }
}

struct WALFetchCommand: TidemarkCommand {
  static let configuration = CommandConfiguration(
    commandName: "wal-fetch", abstract: "Fetch one WAL file: restore_command = 'tidemark wal-fetch %f %p'.",
    discussion: "Exit status 1 says that the file is proven absent; 201 damaged, 202 unreachable, 203 anything else.")
  @OptionGroup var global: GlobalOptions
  var recordedName: String? { nil }
  @Argument(help: "The file's name, as %f gives it.") var name: String
  @Argument(help: "Where to put it, as %p gives it.") var destination: String
  @Option(help: "The plan of a running restore.") var plan: String?

  static let otherFailure: Int32 = 203

  /// Above 125 stops the recovery; everything below says "not in the archive" to PostgreSQL.
  func status(of error: TidemarkError) -> Int32 {
    switch error.exitStatus {
    case .damaged: 201
    case .unavailable, .tryAgain: isStandby && error.code != .interrupted ? 1 : 202
    default: Self.otherFailure
    }
  }

  /// A standby never promotes by itself, and must outlive a region's failure.
  private var isStandby: Bool { fileExists("standby.signal") }

  func execute() throws(TidemarkError) -> Int32 {
    let file = try WALFileName(text: name)
    var planned: RecoveryPlanFile?
    if let plan {
      let content = try RecoveryPlanFile(decoding: try readFile(plan), path: plan)
      switch try PlannedWALFetch(content).fetch(file, to: destination) {
      case .fetched: return 0
      case .absent: return 1
      case .notSpooled: planned = content
      }
    }
    let context = try CommandContext(global)
    var repository = try context.repository()
    if let region = planned?.region { repository = try repository.only(region: region) }
    let outcome: WALFetchOutcome
    if let planned {
      guard let cluster = SystemIdentifier(text: planned.systemIdentifier) else {
        throw TidemarkError(
          .walFileInvalid, "the plan of the restore names no system identifier", object: plan,
          cause: "'\(planned.systemIdentifier)'", kept: "the archive, unchanged", next: "begin the restore anew")
      }
      let fetch = WALFetch(repository, systemIdentifier: cluster)
      outcome = try fetch.fetch(file, to: destination) { path throws(TidemarkError) in
        try examine(path, file, planned, fetch, context.configuration.postgres)
        return true
      }
    } else {
      outcome = try fetch(file, repository, context)
    }
    switch outcome {
    case .fetched: return 0
    case .absent:
      // What a plan named was there when it was made: its absence is a loss, never the end of WAL.
      if plan != nil { throw TidemarkError(.walHole, "a file that the restore's plan names is gone", object: name) }
      return 1
    }
  }

  /// For a server that asks by itself.
  private func fetch(
    _ file: WALFileName, _ repository: Repository, _ context: CommandContext
  ) throws(TidemarkError) -> WALFetchOutcome {
    let server = try WALFetch.server(
      destination: destination, dataDirectory: context.configuration.postgres.dataDirectory)
    let fetch = WALFetch(repository, systemIdentifier: server.systemIdentifier)
    let aheadCount = context.configuration.limits.walAhead
    guard case .segment(let segment) = file else { return try fetch.fetch(file, to: destination) }
    let ahead =
      aheadCount == 0
      ? nil
      : SegmentsAhead(repository, systemIdentifier: server.systemIdentifier, dataDirectory: server.dataDirectory)
    if let events = ahead?.takeEvents() { StandardErrorLog.write(events) }
    let outcome =
      isStandby
      ? try fetchForStandby(
        segment, fetch, ahead,
        StandbyPath(repository, systemIdentifier: server.systemIdentifier, dataDirectory: "."))
      : try fetch.fetch(file, to: destination, ahead: ahead)
    if let ahead, outcome != .absent {
      // The segment is handed over: nothing that goes wrong from here on may say otherwise.
      do throws(TidemarkError) {
        let arguments = [
          try RestoreCommand.program(), "--config", try RestoreCommand.absolute(context.configurationPath),
          WALFetchAheadCommand.configuration.commandName ?? "", segment.description,
          try RestoreCommand.absolute(server.dataDirectory),
        ]
        ahead.extend(after: segment, size: server.segmentSize, count: aheadCount, program: arguments)
      } catch { context.logger.info("no segments are fetched ahead", metadata: ["error": "\(error)"]) }
    }
    return outcome
  }

  /// The segment, unless it leads the standby into a dead branch.
  private func fetchForStandby(
    _ name: WALSegmentName, _ fetch: WALFetch, _ ahead: SegmentsAhead?, _ path: StandbyPath
  ) throws(TidemarkError) -> WALFetchOutcome {
    // Beside the transfer, which takes longer.
    let search = WorkerThread("fork") { path.fork(in: name) }
    var isJoined = false
    let transfer = Result { () throws(TidemarkError) in
      try fetch.fetch(.segment(name), to: destination, ahead: ahead) { _ throws(TidemarkError) in
        isJoined = true
        guard let fork = try search.join() else { return true }
        StandardErrorLog.logger(global.logLevel).notice(
          "not given to this standby: its way leaves this timeline here",
          metadata: ["file": "\(name)", "fork": "\(fork.switchLSN)", "follows": "\(fork.followed)"])
        return false
      }
    }
    if !isJoined { _ = try search.join() }
    return try transfer.get()
  }

  /// Nobody but this process stands between the segment and its replay: what `restore` looks at is looked at here.
  private func examine(
    _ path: String, _ file: WALFileName, _ plan: RecoveryPlanFile, _ fetch: WALFetch,
    _ postgres: TidemarkConfiguration.Postgres
  ) throws(TidemarkError) {
    guard case .segment(let name) = file else { return }
    let content = try MappedFile(path, limit: WALFetch.segmentByteCountMax)
    guard let size = WALSegmentSize(byteCount: content.byteCount) else { return }
    let tablespaces = TablespaceGuard(
      sideDirectory: directoryName(plan.spool), tree: try OwnedTree(userName: postgres.osUser),
      isIsolated: plan.isIsolated == true,
      isTheCluster: postgres.dataDirectory.map { "\($0).tidemark" } == directoryName(plan.spool),
      end: try plan.end.map { (text) throws(TidemarkError) in try LSN(text: text) })
    try content.withBytes { bytes throws(TidemarkError) in try tablespaces.inspect(name, bytes, size) }
    let next = WALFileName.segment(try name.next(size))
    if tablespaces.mayContinue(name), plan.has(next) {
      try fetch.read(next).withUnsafeBufferPointer { (buffer) throws(TidemarkError) in
        try tablespaces.inspect(try name.next(size), UnsafeRawBufferPointer(buffer), size)
      }
    }
  }
}

/// What `wal-fetch` leaves behind: nobody else calls it.
struct WALFetchAheadCommand: TidemarkCommand {
  static let configuration = CommandConfiguration(
    commandName: "wal-fetch-ahead", abstract: "Fetch the segments that a server will ask for next.",
    shouldDisplay: false)
  @OptionGroup var global: GlobalOptions
  var recordedName: String? { nil }
  @Argument(help: "The segment that the server was given.") var name: String
  @Argument(help: "The server's data directory.") var dataDirectory: String

  /// Where the first process of a container is the postmaster, it takes any other end for a crash of its own.
  func status(of error: TidemarkError) -> Int32 { 1 }

  func execute() throws(TidemarkError) -> Int32 {
    guard case .segment(let segment) = try WALFileName(text: name) else {
      throw TidemarkError(.usage, "not a segment's name", object: name)
    }
    let context = try CommandContext(global)
    let server = try WALFetch.server(destination: "\(dataDirectory)/pg_wal/\(name)", dataDirectory: nil)
    let ahead = SegmentsAhead(
      try context.repository(), systemIdentifier: server.systemIdentifier, dataDirectory: server.dataDirectory)
    do throws(TidemarkError) {
      try ahead.fetch(after: segment, size: server.segmentSize, count: context.configuration.limits.walAhead)
    } catch {
      if error.code != .locked { throw error }
    }
    return 0
  }
}
