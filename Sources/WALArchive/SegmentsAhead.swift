// Segments that lie ready before PostgreSQL asks for them. A `restore` has its own spool, planned to its end; this is for
// servers that ask by themselves: standbys that catch up, and recoveries begun by hand. A fetch that succeeded leaves a
// process behind that fetches the next few segments, and the next fetch takes its segment from there by rename.
//
// It is a short cut and nothing else. Only whole, checked segments lie here; that one isn't here says nothing; whatever
// goes wrong here leaves the fetch to ask the regions as ever. Segments are immutable, so one that lies here is the one
// that the regions hold, unless an operator replaced an object by hand: after ``ageMax`` it isn't taken any more.
import BackupRepository
import Diagnostics
import Envelope
import Glibc
import PostgresFormats
import SystemSupport

package struct SegmentsAhead: Sendable {
  /// Older ones are fetched anew.
  private static let ageMax = Duration.seconds(600)
  /// How long a fetch waits for a segment that is on its way here.
  private static let waitMax = Duration.seconds(10)
  private static let pollInterval = Duration.milliseconds(1)
  /// Larger segments aren't fetched ahead: they would fill the disk of the state directory.
  private static let segmentByteCountMax = 64 << 20
  private static let threadCount = 2
  /// Of the first page, which names cluster and segment.
  private static let pageByteCount = 8192
  /// So many times the room that the segments take must be free.
  private static let roomFactor = 8

  /// Whoever needs the segment has more patience.
  private static var limits: ReadLimits {
    var limits = ReadLimits()
    limits.total = .seconds(10)
    return limits
  }

  private let repository: Repository
  private let systemIdentifier: SystemIdentifier
  private let directory: String

  /// - Parameter dataDirectory: whose server asks: each has segments of its own.
  package init(_ repository: Repository, systemIdentifier: SystemIdentifier, dataDirectory: String) {
    self.repository = repository
    self.systemIdentifier = systemIdentifier
    let places = repository.regions.regions.map { "\($0.store.location) \($0.key(repository.layout.marker))" }
    let identity = (places.sorted() + [systemIdentifier.description, Self.resolved(dataDirectory)])
      .joined(separator: "\n")
    let name = SHA256Digest.of(Array(identity.utf8)).hexadecimal.prefix(16)
    directory = "\(repository.stateDirectory)/ahead/\(name)"
  }

  private static func resolved(_ path: String) -> String {
    guard let resolved = realpath(path, nil) else { return path }
    defer { free(resolved) }
    return String(cString: resolved)
  }

  private func incoming(_ segment: WALSegmentName) -> String { "\(directory)/.\(segment).incoming" }
  private var lock: String { "\(directory)/lock" }
  /// What the process that fetches ahead had to say: the next fetch says it, since nobody reads that process's errors.
  private var events: String { "\(directory)/events" }

  // MARK: Taking

  /// Moves the segment to `destination`, waiting for it while it is on its way. Returns its size; `nil` when it isn't to
  /// be had here.
  /// - Throws: `interrupted`.
  package func take(_ segment: WALSegmentName, to destination: String) throws(TidemarkError) -> Int? {
    let path = "\(directory)/\(segment)"
    let deadline = Deadline.after(Self.waitMax)
    while !deadline.hasPassed {
      try Termination.check()
      do throws(TidemarkError) {
        if let byteCount = try examine(segment, path) {
          if try move(path, to: destination) { return byteCount }
          continue
        }
      } catch {
        repository.logger.info("not taken from the segments ahead", metadata: ["error": "\(error)"])
        return nil
      }
      // It may have arrived between the two looks.
      guard isComing(segment) || fileExists(path) else { return nil }
      usleep(UInt32(Self.pollInterval.milliseconds * 1000))
    }
    return nil
  }

  /// The size of a segment that may be taken. What a crash of the host left behind, or lies here too long, is removed.
  private func examine(_ segment: WALSegmentName, _ path: String) throws(TidemarkError) -> Int? {
    guard fileExists(path) else { return nil }
    let file = try OpenFile(path, O_RDONLY | O_NOFOLLOW)
    let status = try file.status()
    var first = [UInt8](repeating: 0, count: Self.pageByteCount)
    let filled = try first.withUnsafeMutableBytes { buffer in
      Result { () throws(TidemarkError) in try file.read(into: buffer, at: 0) }
    }.get()
    let age = time(nil) - status.st_mtim.tv_sec
    do throws(TidemarkError) {
      guard filled == first.count, age >= -60, age <= Int(Self.ageMax.seconds) else {
        throw TidemarkError(.walFileInvalid, "the segment is cut short or too old", object: path)
      }
      _ = try first.withUnsafeBytes { bytes in
        Result { () throws(TidemarkError) in
          try WALSegmentCheck.check(
            segment, first: bytes, fileByteCount: UInt64(status.st_size), systemIdentifier: systemIdentifier)
        }
      }.get()
      return Int(status.st_size)
    } catch {
      unlink(path)
      throw error
    }
  }

  /// Returns `false` when somebody else took it.
  private func move(_ path: String, to destination: String) throws(TidemarkError) -> Bool {
    if rename(path, destination) == 0 { return true }
    switch errno {
    case ENOENT: return false
    case EXDEV:
      // PostgreSQL flushes what it keeps.
      let content = try readFile(path, limit: Self.segmentByteCountMax)
      let output = try OpenFile(destination, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o600)
      try output.write(content)
      try output.close()
      unlink(path)
      return true
    default: throw systemError("cannot move the segment", path)
    }
  }

  /// Whether somebody is fetching it: the kernel drops the lock of a process that ended.
  private func isComing(_ segment: WALSegmentName) -> Bool {
    let path = incoming(segment)
    guard fileExists(path) else { return false }
    return Self.isLocked(path)
  }

  private static func isLocked(_ path: String) -> Bool {
    let descriptor = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC)
    guard descriptor >= 0 else { return false }
    defer { close(descriptor) }
    return flock(descriptor, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK
  }

  // MARK: Going ahead

  /// Leaves a process behind that fetches `count` segments after `segment`, unless one is at it or half of them lie ready.
  /// - Parameter program: this program with its arguments; it must call ``fetch(after:size:count:)``.
  package func extend(after segment: WALSegmentName, size: WALSegmentSize, count: Int, program: [String]) {
    guard count > 0, size.byteCount <= Self.segmentByteCountMax, !Self.isFirstProcessPostgres, !Self.isLocked(lock)
    else { return }
    do throws(TidemarkError) {
      let ready = try following(segment, size, count).count { fileExists("\(directory)/\($0)") }
      guard ready * 2 < count else { return }
      for path in ["\(repository.stateDirectory)/ahead", directory] where mkdir(path, 0o700) != 0 && errno != EEXIST {
        throw systemError("cannot create the directory", path)
      }
      try ChildProcess.detach(program[0], Array(program.dropFirst()), errors: events)
    } catch {
      repository.logger.info("no segments are fetched ahead", metadata: ["error": "\(error)"])
    }
  }

  /// What the process that fetched ahead had to say: damage that it met and mended, for one. It is said once.
  package func takeEvents() -> String? {
    let mine = "\(events).\(getpid())"
    guard fileExists(events), rename(events, mine) == 0 else { return nil }
    defer { unlink(mine) }
    // A text that can't be read is a loss of words alone: what it tells of was mended, or will be met again.
    guard let text = try? readFile(mine, limit: 1 << 20), !text.isEmpty else { return nil }
    return String(decoding: text, as: UTF8.self)
  }

  /// In a container whose first process is the postmaster itself, processes that are left behind become its children, and
  /// one that is killed counts as a crashed backend (`reaper` in postmaster.c): it would restart the server.
  private static let isFirstProcessPostgres: Bool = {
    // Unreadable where another user's processes are hidden: then it isn't our server's.
    guard let name = try? readFile("/proc/1/comm", limit: 64) else { return false }
    return name.starts(with: Array("postgres".utf8)) || name.starts(with: Array("postmaster".utf8))
  }()

  private func following(
    _ segment: WALSegmentName, _ size: WALSegmentSize, _ count: Int
  ) throws(TidemarkError) -> [WALSegmentName] {
    var names: [WALSegmentName] = []
    var name = segment
    for _ in 0..<count {
      name = try name.next(size)
      names.append(name)
    }
    return names
  }

  /// Fetches the segments after `segment` that don't lie ready, and removes what lies here besides. It ends with the first
  /// that can't be had.
  /// - Throws: `locked` where another process is at it.
  package func fetch(after segment: WALSegmentName, size: WALSegmentSize, count: Int) throws(TidemarkError) {
    let held = try FileLock(lock, purpose: "fetching segments ahead")
    defer { withExtendedLifetime(held) {} }
    let names = try following(segment, size, count)
    try removeOthers(names)
    var space = statvfs()
    guard statvfs(directory, &space) == 0,
      Int64(space.f_bavail) * Int64(space.f_frsize) >= Int64(Self.roomFactor * count * size.byteCount)
    else { return }
    let (next, ended) = (Counter(), Cancellation())
    try withThreads("ahead", count: min(Self.threadCount, count), onFailure: { _ in ended.cancel() }) { _ in
      while !ended.isCancelled {
        try Termination.check()
        let index = next.add(1) - 1
        guard index < names.count else { return }
        if fileExists("\(directory)/\(names[index])") { continue }
        if try !fetch(names[index], size) { ended.cancel() }
      }
    }
  }

  /// Returns `false` when the regions don't have it.
  private func fetch(_ segment: WALSegmentName, _ size: WALSegmentSize) throws(TidemarkError) -> Bool {
    let path = incoming(segment)
    let name = repository.layout.lineage(systemIdentifier).wal(.segment(segment))
    // Held until the segment lies ready: who waits for it looks for that first.
    let coming = try FileLock(path, purpose: "a segment that is fetched ahead")
    defer { withExtendedLifetime(coming) {} }
    do throws(TidemarkError) {
      let (header, byteCount) = try repository.readSealed(
        .walSegment, name, limit: size.byteCount, to: path, limits: Self.limits)
      try WALFetch.requireDigest(header, name)
      guard byteCount == size.byteCount else {
        throw TidemarkError(.walFileInvalid, "a segment of another size", object: name.text)
      }
      // After a crash of the host a name must not stand for pages that never came to the disk.
      try OpenFile(path, O_WRONLY).synchronize()
      CrashPoint.reach("ahead.before-rename")
      if rename(path, "\(directory)/\(segment)") != 0 { throw systemError("cannot rename the file", path) }
      return true
    } catch {
      unlink(path)
      if error.code == .objectNotFound { return false }
      throw error
    }
  }

  /// Under the lock: nobody else brings segments here.
  private func removeOthers(_ names: [WALSegmentName]) throws(TidemarkError) {
    let kept = Set(names.map(\.description))
    for entry in try directoryEntries(directory) where !kept.contains(entry) {
      let isIncoming = entry.hasPrefix(".") && entry.hasSuffix(".incoming")
      if isIncoming || WALSegmentName(entry) != nil { unlink("\(directory)/\(entry)") }
    }
  }
}
