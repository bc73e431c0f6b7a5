// Other programs, started without a shell: PostgreSQL's own tools, and servers in tests. A child gets the three
// standard descriptors and nothing else, default signal handling and an empty signal mask. A child that is still
// running when its `ChildProcess` goes away is killed: to leave a server behind, let a program like pg_ctl start it.
import CLinux
import Diagnostics
import Glibc
import Synchronization

/// A running program.
package final class ChildProcess: Sendable {
  /// How a program ended.
  package enum Ending: Sendable, Equatable, CustomStringConvertible {
    case exited(Int32)
    case signalled(Int32)

    package var succeeded: Bool { self == .exited(0) }
    package var description: String {
      switch self {
      case .exited(let status): "exit status \(status)"
      case .signalled(let number): "ended by signal \(number)"
      }
    }
  }

  /// Where a standard descriptor of the child leads.
  package enum Stream: Sendable {
    /// /dev/null.
    case null
    /// The same as ours.
    case inherited
    /// A descriptor of ours, which stays ours to close.
    case descriptor(Int32)
    /// A file that is created or appended to.
    case file(String)
  }

  package let program: String
  package let pid: pid_t
  private let pidDescriptor: Int32
  private let ending = Mutex<Ending?>(nil)

  /// Starts `program`: a path, or a bare name that is looked up in PATH.
  ///
  /// - Parameters:
  ///   - environment: replaces the whole environment; `nil` passes ours on.
  ///   - ownGroup: makes the child the leader of a process group of its own, out of reach of the terminal's signals.
  /// - Throws: `local-io` or `local-permission` when it can't be started.
  package init(
    _ program: String, _ arguments: [String], environment: [String: String]? = nil, workingDirectory: String? = nil,
    input: Stream = .null, output: Stream = .inherited, error: Stream = .inherited, ownGroup: Bool = false
  ) throws(TidemarkError) {
    self.program = program
    pid = try Self.spawn(
      program, arguments, environment: environment, workingDirectory: workingDirectory,
      streams: [input, output, error], ownGroup: ownGroup)
    let opened = clinux_pidfd_open(pid)
    if opened < 0 {
      let failure = systemError("cannot watch the program", program)
      Glibc.kill(pid, SIGKILL)
      var status: Int32 = 0
      waitpid(pid, &status, 0)
      pidDescriptor = -1
      throw failure
    }
    pidDescriptor = opened
  }

  deinit {
    if pidDescriptor < 0 { return }
    if ending.withLock({ $0 == nil }) {
      Glibc.kill(pid, SIGKILL)
      var status: Int32 = 0
      while waitpid(pid, &status, 0) < 0, errno == EINTR {}
    }
    Glibc.close(pidDescriptor)
  }

  /// Waits for the end. `nil` when the deadline passed before. May be called again, and from several threads.
  package func wait(until deadline: Deadline = .never) throws(TidemarkError) -> Ending? {
    while true {
      if let ending = try reap() { return ending }
      if deadline.hasPassed { return nil }
      var descriptors = [pollfd(fd: pidDescriptor, events: Int16(POLLIN), revents: 0)]
      if poll(&descriptors, 1, deadline.pollMilliseconds) < 0, errno != EINTR {
        throw systemError("cannot wait for the program", program)
      }
    }
  }

  // A process that can't be asked about counts as running: whoever waits has a limit.
  package var isRunning: Bool { ((try? reap()) ?? nil) == nil }

  /// Sends `number` unless the program has ended. A pid that was reaped is never signalled.
  package func signal(_ number: Int32) {
    ending.withLock { if $0 == nil { _ = Glibc.kill(pid, number) } }
  }

  /// Sends `number` to the child's process group: only for a child that was started with `ownGroup`.
  package func signalGroup(_ number: Int32) { _ = Glibc.kill(-pid, number) }

  /// SIGTERM, then SIGKILL when it hasn't ended within `grace`. Returns how it ended.
  @discardableResult
  package func terminate(grace: Duration = .seconds(10)) throws(TidemarkError) -> Ending {
    signal(SIGTERM)
    if let ending = try wait(until: .after(grace)) { return ending }
    return try kill()
  }

  /// SIGKILL. Returns how it ended.
  @discardableResult
  package func kill() throws(TidemarkError) -> Ending {
    signal(SIGKILL)
    // Without a deadline `wait` returns only at the end.
    guard let ending = try wait() else { preconditionFailure("waited without a deadline") }
    return ending
  }

  /// A descriptor for poll(2) that is readable once the program has ended.
  var endDescriptor: Int32 { pidDescriptor }

  private func reap() throws(TidemarkError) -> Ending? {
    try ending.withLock { (ending) throws(TidemarkError) -> Ending? in
      if ending != nil { return ending }
      var status: Int32 = 0
      let result = try retryingInterrupts("cannot wait for the program", program) { waitpid(pid, &status, WNOHANG) }
      if result == 0 { return nil }
      // wait(2): the low seven bits hold the signal, the next byte the exit status.
      ending = status & 0x7F == 0 ? .exited((status >> 8) & 0xFF) : .signalled(status & 0x7F)
      return ending
    }
  }
}

extension Deadline {
  /// For poll(2): −1 for never, at most an hour.
  package var pollMilliseconds: Int32 {
    remaining.map { Int32(min($0.milliseconds, 3_600_000)) } ?? -1
  }
}
