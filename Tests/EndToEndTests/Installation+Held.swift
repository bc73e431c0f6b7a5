// Runs of the program that stand still at a named place, while a test does something to what they work on.
import Foundation
import Glibc
import SystemSupport
import TestSupport
import Testing

/// A run that was stopped at a crash point. It is killed when this goes away before it ended.
struct HeldRun {
  let process: ChildProcess
  fileprivate let log: String
  fileprivate let arguments: [String]

  var errorText: String { ((try? readFile(log)).map { String(decoding: $0, as: UTF8.self) }) ?? "" }

  /// Lets it go on and waits for its end.
  func finish() throws -> ChildProcess.Ending {
    process.signal(SIGCONT)
    let ending = try process.wait(until: .after(.seconds(240)))
    return try #require(ending, "tidemark \(arguments) doesn't end: \(errorText)")
  }
}

extension Installation {
  /// Starts the program and returns when it stands still at `point` (`NAME` or `NAME:COUNT`).
  func hold(at point: String, _ arguments: [String], configuration other: String? = nil) throws -> HeldRun {
    let log = "\(root)/held-\(UUID().uuidString).log"
    let command = PostgresServer.unprivileged(
      "/usr/bin/env",
      ["HOME=\(root)", "TIDEMARK_STOP_AT=\(point)", program, "--config", other ?? configuration]
        + ["--log-level", "warning"] + arguments)
    let process = try ChildProcess(
      command[0], Array(command.dropFirst()), workingDirectory: "/", output: .null, error: .file(log))
    let held = HeldRun(process: process, log: log, arguments: arguments)
    let isStopped = try eventually(.seconds(120)) {
      // "PID (NAME) STATE …": proc(5).
      let state = String(decoding: (try? readFile("/proc/\(process.pid)/stat")) ?? [], as: UTF8.self)
        .split(separator: ")").last?.split(separator: " ").first
      return state == "T" || !process.isRunning
    }
    try #require(isStopped && process.isRunning, "\(point) wasn't reached: \(held.errorText)")
    return held
  }
}
