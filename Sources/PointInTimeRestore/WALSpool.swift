// WAL for the replay, fetched ahead of it into a directory on the target's file system while the files still come.
// `wal-fetch` takes a segment from it by rename. The spool never holds more than a window of segments.
import BackupRepository
import Diagnostics
import Envelope
import Glibc
import PostgresFormats
import Synchronization
import SystemSupport

package final class WALSpool: Sendable {
  /// Segments that lie ready at once.
  static let segmentCountMax = 24
  private static let threadCount = 2

  private let repository: Repository
  private let plan: RestorePlan
  private let directory: String
  private let tree: OwnedTree
  /// Keeps a scratch copy from replaying the creation of a tablespace, which would take the live one's directory.
  private let creations: TablespaceCreationWatch?
  private let stopped = Cancellation()
  private let next = Counter()
  private let fetchedBytes = Counter()
  private let failure = Mutex<TidemarkError?>(nil)
  private let threads = Mutex<[WorkerThread<Void>]>([])
  /// Its input is the regions; it waits for output while the spool is full.
  let meter = StageMeter("wal")

  init(_ repository: Repository, _ plan: RestorePlan, directory: String, tree: OwnedTree, isIsolated: Bool = false) {
    self.repository = repository
    self.plan = plan
    self.directory = directory
    self.tree = tree
    creations = isIsolated ? TablespaceCreationWatch() : nil
  }

  /// Fetches all timeline histories at once, then starts fetching segments in the background.
  func start() throws(TidemarkError) {
    for timeline in plan.histories { try fetch(.history(timeline), .timelineHistory) }
    let started = (0..<Self.threadCount).map { index in
      WorkerThread<Void>("wal-\(index)") { [self] in
        do { try meter.thread { try fetchSegments() } } catch {
          failure.withLock { if $0 == nil { $0 = TidemarkError.wrapping(error) } }
          throw error
        }
      }
    }
    let again = WorkerThread<Void>("wal-again") { [self] in
      do { try fetchAgain() } catch {
        failure.withLock { if $0 == nil { $0 = TidemarkError.wrapping(error) } }
        throw error
      }
    }
    threads.withLock { $0 = started + [again] }
  }

  /// The first error, for the restore's own output: the server's log would bury it.
  var firstFailure: TidemarkError? { failure.withLock { $0 } }
  var byteCount: Int64 { Int64(fetchedBytes.value) }

  /// Ends the fetching and waits for the threads. It may be called again.
  func stop() {
    stopped.cancel()
    let running = threads.withLock { threads in
      defer { threads = [] }
      return threads
    }
    for thread in running {
      // The first error was kept when it happened.
      _ = try? thread.join()
    }
  }

  /// PostgreSQL asks for the last segment once more when it ends the recovery: `wal-fetch` then leaves a wish.
  private func fetchAgain() throws(TidemarkError) {
    while !stopped.isCancelled {
      for name in try directoryEntries(directory) where name.hasSuffix(PlannedWALFetch.wanted) {
        try fetch(WALFileName(text: name.dropLast(PlannedWALFetch.wanted.count)), .walSegment)
        try DurableFile.remove("\(directory)/\(name)")
      }
      usleep(20_000)
    }
  }

  /// Segments that lie ready, without the marks that `wal-fetch` leaves.
  private func readyCount() throws(TidemarkError) -> Int {
    try directoryEntries(directory).count { WALSegmentName($0) != nil }
  }

  private func fetchSegments() throws(TidemarkError) {
    while !stopped.isCancelled {
      let index = next.add(1) - 1
      guard index < plan.segments.count else { return }
      try meter.waitingForOutput { () throws(TidemarkError) in
        while try readyCount() >= Self.segmentCountMax, !stopped.isCancelled {
          try Termination.check()
          usleep(5_000)
        }
      }
      if stopped.isCancelled { return }
      try fetch(.segment(plan.segments[index]), .walSegment)
    }
  }

  private func fetch(_ file: WALFileName, _ kind: ObjectKind) throws(TidemarkError) {
    let name = plan.backup.layout.wal(file)
    let (plaintext, _) = try repository.readSealed(kind, name, limit: 1 << 30, meter: meter)
    if let creations, case .segment(let segment) = file { try creations.look(at: plaintext, segment) }
    let path = "\(directory)/\(file)"
    let temporary = "\(directory)/.\(file).incoming"
    let output = try OpenFile(temporary, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o600)
    try output.write(plaintext)
    try tree.give(output)
    try output.close()
    if rename(temporary, path) != 0 { throw systemError("cannot rename the file", path) }
    fetchedBytes.add(plaintext.count)
  }
}

/// `wal-fetch` on behalf of a running `restore`: it answers from the plan and the spool.
package struct PlannedWALFetch {
  package enum Outcome: Sendable, Equatable {
    case fetched
    /// Beyond the end that the plan fixed.
    case absent
    /// The plan has it and the spool doesn't, and no `restore` fills the spool any more: to be fetched directly.
    case notSpooled
  }
  package let plan: RecoveryPlanFile
  /// Marks of segments that were taken, and of those that are asked for once more.
  static let taken = ".taken"
  static let wanted = ".wanted"

  package init(_ plan: RecoveryPlanFile) { self.plan = plan }

  /// Waits for the spool while `restore` lives.
  package func fetch(_ file: WALFileName, to destination: String) throws(TidemarkError) -> Outcome {
    guard plan.has(file) else { return .absent }
    let path = "\(plan.spool)/\(file)"
    var hasAsked = false
    while true {
      if case .history = file, fileExists(path) {
        // Asked for more than once, so it stays.
        try DurableFile.write(try readFile(path), to: destination)
        return .fetched
      }
      // The mark comes first: a segment that is gone without one is still on its way.
      if fileExists(path) { try mark(path + Self.taken) }
      if rename(path, destination) == 0 { return .fetched }
      guard errno == ENOENT else { throw systemError("cannot move the segment", path) }
      if fileExists(path + Self.taken), !hasAsked {
        try mark(path + Self.wanted)
        hasAsked = true
      }
      guard fileExists(plan.lock), isLocked(plan.lock), !fileExists("\(plan.spool)/.failed") else {
        if plan.isIsolated != true { return .notSpooled }
        throw TidemarkError(.recoveryFailed, "the drill that this server belongs to has ended", object: plan.spool)
      }
      usleep(5_000)
    }
  }

  private func mark(_ path: String) throws(TidemarkError) {
    try OpenFile(path, O_WRONLY | O_CREAT, mode: 0o600).close()
  }

  private func isLocked(_ path: String) -> Bool {
    do throws(TidemarkError) {
      _ = try FileLock(path, purpose: "a restore")
      return false
    } catch { return true }
  }
}
