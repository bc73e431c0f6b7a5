// Since when a region has been failing, known to every process of this host: a file in the state directory that
// appears with the first failure and goes with the next success. `archive_command` starts a process per segment, and
// each must know that the region is down without waiting for it again.
import Diagnostics
import Glibc
import Synchronization
import SystemSupport

/// The health of one region as this host has seen it.
package final class RegionHealth: Sendable {
  /// How often a region that is known to be down is tried again.
  package static let probeInterval = Duration.seconds(15)

  private struct State {
    /// Seconds since 1970 of the first failure without a success since.
    var failingSince: Int64?
    /// The code of a failure since then.
    var reason: String?
    var lastProbe: ContinuousClock.Instant?
  }

  private let path: String?
  private let state: Mutex<State>

  /// `path` is where the state is kept; `nil` keeps it in memory alone.
  package init(path: String?) {
    self.path = path
    var initial = State()
    // A file that can't be read or parsed is as good as none: the region is then tried, and a failure noted anew.
    if let path, fileExists(path), let bytes = try? readFile(path, limit: 4096) {
      let words = String(decoding: bytes, as: UTF8.self).split { $0 == " " || $0 == "\n" }
      initial.failingSince = words.first.flatMap { Int64($0) }.map { min($0, wallClockSeconds()) }
      initial.reason = words.dropFirst().first.map(String.init)
    }
    state = Mutex(initial)
  }

  /// For how long the region has been failing; `nil` when it isn't.
  package var failingFor: Duration? {
    state.withLock { $0.failingSince.map { .seconds(max(0, wallClockSeconds() - $0)) } }
  }

  /// Why it is failing, in words.
  package var lastFailure: String? { state.withLock { state in state.reason.map { "it failed with \($0)" } } }

  /// Whether this process should try the region although it is failing: at most once per ``probeInterval``. Between
  /// processes the file's time of change tells when somebody last tried.
  package func claimProbe() -> Bool {
    state.withLock { state in
      if let last = state.lastProbe, ContinuousClock.now - last < Self.probeInterval { return false }
      if state.lastProbe == nil, let path {
        var status = stat()
        if stat(path, &status) == 0,
          wallClockSeconds() - Int64(status.st_mtim.tv_sec) < Self.probeInterval.components.seconds
        {
          state.lastProbe = .now
          return false
        }
        utimes(path, nil)
      }
      state.lastProbe = .now
      return true
    }
  }

  /// Notes the failure of a request that began `elapsed` ago. Returns whether it is the first.
  @discardableResult
  package func noteFailure(_ error: TidemarkError, elapsed: Duration) throws(TidemarkError) -> Bool {
    let since = wallClockSeconds() - elapsed.components.seconds
    let isFirst = state.withLock { state in
      defer { if state.failingSince == nil { state.failingSince = since } }
      state.reason = error.code.rawValue
      return state.failingSince == nil
    }
    if isFirst, let path {
      try DurableFile.createDirectories(directoryName(path))
      try DurableFile.write(Array("\(since) \(error.code.rawValue)\n".utf8), to: path)
    }
    return isFirst
  }

  /// Notes a success. Returns whether the region had been failing.
  @discardableResult
  package func noteSuccess() throws(TidemarkError) -> Bool {
    let wasFailing = state.withLock { state in
      defer { state = State() }
      return state.failingSince != nil
    }
    if wasFailing, let path { try DurableFile.remove(path) }
    return wasFailing
  }
}

/// The wall clock, in seconds since 1970.
package func wallClockSeconds() -> Int64 {
  var moment = timespec()
  clock_gettime(CLOCK_REALTIME, &moment)
  return Int64(moment.tv_sec)
}

/// The wall clock, in microseconds since 1970.
package func wallClockMicroseconds() -> Int64 {
  var moment = timespec()
  clock_gettime(CLOCK_REALTIME, &moment)
  return Int64(moment.tv_sec) * 1_000_000 + Int64(moment.tv_nsec) / 1000
}
