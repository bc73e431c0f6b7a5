// A program run to its end with its input given and its output collected. Input and both outputs are served together,
// so that no pipe can block the others. When the program has ended, what is in the pipes is taken and nobody waits for
// their end: a daemon that it left behind (pg_ctl start) may hold them open.
import CLinux
import Diagnostics
import Glibc

/// What a program that was run to its end left behind.
package struct ProgramOutcome: Sendable {
  package var ending: ChildProcess.Ending
  package var output: [UInt8]
  /// The beginning of its standard error, 1 MiB at most.
  package var error: [UInt8]

  package var succeeded: Bool { ending.succeeded }
  package var outputText: String { String(decoding: output, as: UTF8.self) }
  package var errorText: String { String(decoding: error, as: UTF8.self) }
}

extension ChildProcess {
  private static let errorByteCountMax = 1 << 20

  /// Runs `program` to its end. A status other than 0 is no error here: the caller knows what it means.
  ///
  /// - Parameters:
  ///   - environment: replaces the whole environment; `nil` passes ours on.
  ///   - outputLimit: bytes of standard output that are accepted.
  /// - Throws: `local-io` when it can't be started, hasn't ended at the deadline (it is killed) or writes more than
  ///   `outputLimit`; `interrupted` when a signal asked us to end (it is killed).
  package static func run(
    _ program: String, _ arguments: [String], environment: [String: String]? = nil, workingDirectory: String? = nil,
    input: [UInt8]? = nil, deadline: Deadline = .never, outputLimit: Int = 64 << 20
  ) throws(TidemarkError) -> ProgramOutcome {
    if input != nil { Termination.ignoreBrokenPipes() }
    let stdin: Pipe? = input == nil ? nil : try Pipe()
    let stdout = try Pipe()
    let stderr = try Pipe()
    let child = try ChildProcess(
      program, arguments, environment: environment, workingDirectory: workingDirectory,
      input: stdin.map { .descriptor($0.reading) } ?? .null, output: .descriptor(stdout.writing),
      error: .descriptor(stderr.writing))
    stdin?.closeReading()
    stdout.closeWriting()
    stderr.closeWriting()

    var outcome = ProgramOutcome(ending: .exited(0), output: [], error: [])
    var unsent = (input ?? [])[...]
    if unsent.isEmpty { stdin?.closeWriting() }
    while true {
      var descriptors = [
        pollfd(fd: child.endDescriptor, events: Int16(POLLIN), revents: 0),
        pollfd(fd: stdout.reading, events: Int16(POLLIN), revents: 0),
        pollfd(fd: stderr.reading, events: Int16(POLLIN), revents: 0),
        pollfd(fd: stdin?.writing ?? -1, events: Int16(POLLOUT), revents: 0),
      ]
      // At most a second, so that a signal that another thread took is noticed.
      let limit = deadline.earlier(.after(.seconds(1))).pollMilliseconds
      if poll(&descriptors, 4, limit) < 0, errno != EINTR {
        throw systemError("cannot wait for the program", program)
      }
      let ended = try child.wait(until: .after(.zero))
      try stdout.drain(into: &outcome.output, keeping: outputLimit + 1)
      try stderr.drain(into: &outcome.error, keeping: errorByteCountMax)
      if outcome.output.count > outputLimit {
        throw TidemarkError(
          .localIO, "the program writes more than expected", object: program, cause: "over \(outputLimit) bytes")
      }
      if let ended {
        outcome.ending = ended
        return outcome
      }
      if let stdin { try stdin.send(&unsent) }
      try Termination.check()
      if deadline.hasPassed {
        throw TidemarkError(
          .localIO, "the program didn't end in time and was killed", object: program,
          cause: outcome.errorText.isEmpty ? nil : String(outcome.errorText.suffix(500)))
      }
    }
  }
}
