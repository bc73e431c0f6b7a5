// What these tests share: the error's code, bytes fed in pieces, and the tools that they compare with.
import Diagnostics
import Foundation
import SystemSupport
import TestSupport
import Testing

@testable import PostgresFormats

/// The server's version, which has the same name as the formats' type.
typealias ServerVersion = TestSupport.PostgresVersion
typealias FormatVersion = PostgresFormats.PostgresVersion

/// The code of the error that `body` throws, `nil` when it throws none.
func code(of body: () throws -> Void) -> ErrorCode? {
  do {
    try body()
    return nil
  } catch { return TidemarkError.wrapping(error).code }
}

/// Hands `bytes` over in pieces of random lengths from 1 to `longest`.
func inPieces(
  _ bytes: [UInt8], longest: Int, _ numbers: inout SeededNumbers, _ take: (UnsafeRawBufferPointer) throws -> Void
) throws {
  try bytes.withUnsafeBytes { whole in
    var position = 0
    while position < whole.count {
      let count = min(Int.random(in: 1...longest, using: &numbers), whole.count - position)
      try take(UnsafeRawBufferPointer(rebasing: whole[position..<position + count]))
      position += count
    }
  }
}

/// The whole file, however large a test's may be.
func contents(_ path: String) throws -> [UInt8] { try readFile(path, limit: 1 << 30) }

extension PostgresServer {
  /// Runs a program of this version that needs no server, in UTC, and returns its output.
  func tool(_ program: String, _ arguments: [String]) throws -> String {
    let outcome = try ChildProcess.run(
      "\(version.binDirectory)/\(program)", arguments,
      environment: ["PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"], deadline: .after(.seconds(60)))
    try #require(outcome.succeeded, "\(program): \(outcome.errorText)")
    return outcome.outputText
  }
}

/// Runs `script` in Python and returns its output.
func python(_ script: String, _ arguments: [String] = []) throws -> [UInt8] {
  let outcome = try ChildProcess.run(
    "python3", ["-c", "import io, sys, tarfile\n" + script] + arguments, deadline: .after(.seconds(60)))
  try #require(outcome.succeeded, "\(outcome.errorText)")
  return outcome.output
}
