// WAL for the replay, fetched ahead of it into a directory on the target's file system while the files still come.
// `restore_command` takes a segment from it by rename. The spool never holds more than a window of segments.
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
  /// As many while the files still come: enough for the replay's first half second. What goes into more of them then is
  /// taken from the files, and a replay leaves a core to whoever fetches.
  static let segmentCountBeforeReplay = 4

  private let repository: Repository
  private let plan: RestorePlan
  private let directory: String
  private let tree: OwnedTree
  private let stopped = Cancellation()
  private let next = Counter()
  private let fetchedBytes = Counter()
  private let fetches = Counter()
  /// The segments that were put into the spool, whether or not they were taken since.
  private let delivered = Mutex<Set<String>>([])
  private let failure = Mutex<TidemarkError?>(nil)
  private let threads = Mutex<[WorkerThread<Void>]>([])
  /// Its input is the regions; it waits for output while the spool is full.
  let meter = StageMeter("wal")
  /// Milliseconds for which the replay waited for a segment that was on its way, as far as its wishes were seen.
  private let starvedMilliseconds = Counter()
  /// How often the spool looks for wishes.
  private static let wishInterval = Duration.milliseconds(20)
  private let tablespaces: TablespaceGuard
  private let threadCount: Int
  private let readyCountMax = Atomic(segmentCountBeforeReplay)

  init(
    _ repository: Repository, _ plan: RestorePlan, directory: String, tree: OwnedTree, tablespaces: TablespaceGuard,
    memory: RestoreMemory
  ) {
    threadCount = memory.segmentCount(plan.segmentSize.byteCount)
    self.tablespaces = tablespaces
    self.repository = repository
    self.plan = plan
    self.directory = directory
    self.tree = tree
  }

  /// Fetches all timeline histories at once, then starts fetching segments in the background.
  func start() throws(TidemarkError) {
    try tree.makeDirectories(PlannedWALFetch.keptDirectory(directory))
    for timeline in plan.histories { try fetch(.history(timeline), .timelineHistory) }
    let started = (0..<threadCount).map { index in
      WorkerThread<Void>("wal-\(index)") { [self] in
        do { try meter.thread { try fetchSegments() } } catch {
          try fail(TidemarkError.wrapping(error))
          throw error
        }
      }
    }
    let again = WorkerThread<Void>("wal-again") { [self] in
      do { try fetchAgain() } catch {
        try fail(TidemarkError.wrapping(error))
        throw error
      }
    }
    threads.withLock { $0 = started + [again] }
  }

  /// The files are there, and the replay is next: from here on the spool holds as much as it may.
  func replayIsNext() { readyCountMax.store(Self.segmentCountMax, ordering: .relaxed) }

  /// From here on `wal-fetch` fetches by itself: what the replay doesn't need must not end it, and what it needs and
  /// nobody has ends it with the status that says so.
  private func fail(_ error: TidemarkError) throws(TidemarkError) {
    failure.withLock { if $0 == nil { $0 = error } }
    try tree.write("", to: "\(directory)/\(PlannedWALFetch.failed)")
  }

  /// The first error, for the restore's own output: the server's log would bury it.
  var firstFailure: TidemarkError? { failure.withLock { $0 } }
  var byteCount: Int64 { Int64(fetchedBytes.value) }
  var starvedSeconds: Double { Double(starvedMilliseconds.value) / 1000 }

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
    var lastLook = ContinuousClock.now
    while !stopped.isCancelled {
      let now = ContinuousClock.now
      defer { lastLook = now }
      for name in try directoryEntries(directory) where name.hasSuffix(PlannedWALFetch.wanted) {
        let segment = String(name.dropLast(PlannedWALFetch.wanted.count))
        // A wish for a segment that is on its way is granted by its arrival. But the checkpoint that PostgreSQL looks at
        // first may lie further ahead than the spool reaches before anything was taken from it.
        if !delivered.withLock({ $0.contains(segment) }) {
          starvedMilliseconds.add(Int((now - lastLook).milliseconds))
          if isOnItsWay(segment), try !isFull() { continue }
        }
        try DurableFile.remove("\(directory)/\(name)")
        if fileExists("\(directory)/\(segment)") { continue }
        try fetch(WALFileName(text: segment), .walSegment)
      }
      usleep(UInt32(Self.wishInterval.milliseconds * 1000))
    }
  }

  /// Whether a thread fetches the segment, or does so as soon as there is room.
  private func isOnItsWay(_ segment: String) -> Bool {
    WALSegmentName(segment).map { plan.segments.prefix(next.value).contains($0) } ?? false
  }

  /// Whether as many segments lie ready as may.
  private func isFull() throws(TidemarkError) -> Bool { try readyCount() >= readyCountMax.load(ordering: .relaxed) }

  /// How many segments lie ready; wishes don't count.
  private func readyCount() throws(TidemarkError) -> Int {
    try directoryEntries(directory).count { WALSegmentName($0) != nil }
  }

  /// Whether the replay, which is one process, has the segments for a while and is to have a core as well: with threads
  /// of ours on each core it waited for one a tenth of its time.
  private func leavesOneCore() throws(TidemarkError) -> Bool {
    guard readyCountMax.load(ordering: .relaxed) == Self.segmentCountMax else { return false }
    return try readyCount() >= Self.segmentCountMax / 2
  }

  private func fetchSegments() throws(TidemarkError) {
    var cores = ThreadCores()
    while !stopped.isCancelled {
      let index = next.add(1) - 1
      guard index < plan.segments.count else { return }
      try meter.waitingForOutput { () throws(TidemarkError) in
        while try isFull(), !stopped.isCancelled {
          try Termination.check()
          usleep(5_000)
        }
      }
      if stopped.isCancelled { return }
      cores.leaveOne(try leavesOneCore())
      try fetch(.segment(plan.segments[index]), .walSegment)
    }
  }

  private func fetch(_ file: WALFileName, _ kind: ObjectKind) throws(TidemarkError) {
    let name = plan.backup.layout.wal(file)
    // A history is asked for more than once, so it lies where `wal-fetch` alone looks, which leaves it there.
    let isKept = if case .history = file { true } else { false }
    let path = "\(isKept ? PlannedWALFetch.keptDirectory(directory) : directory)/\(file)"
    // Of its own: a wish may be granted while the segment's turn comes.
    let temporary = "\(directory)/.\(file).\(fetches.add(1)).incoming"
    let (_, byteCount) = try repository.readSealed(kind, name, limit: 1 << 30, to: temporary, meter: meter)
    if case .segment(let segment) = file { try tablespaces.inspect(segment, at: temporary, plan.segmentSize) }
    let output = try OpenFile(temporary, O_WRONLY)
    try tree.give(output)
    // PostgreSQL flushes each segment that it is given before it replays it (xlogarchive.c, `KeepFileRestoredFromArchive`).
    // Done here, on a thread that is ahead of the replay, that finds nothing left to write.
    try output.synchronize()
    try output.close()
    if rename(temporary, path) != 0 { throw systemError("cannot rename the file", path) }
    delivered.withLock { _ = $0.insert(file.description) }
    fetchedBytes.add(byteCount)
  }
}
