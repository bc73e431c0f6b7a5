// What tests do with restored clusters and with what the regions hold.
import Foundation
import SystemSupport
import TestSupport
import Testing

extension Installation {
  /// Every stored object with its digest, without the probes of `check` and what the archiver is just writing, which
  /// lies below a name of the store's own and is gone again before a digest of it is taken.
  func objects() throws -> [String: String] {
    let places = servers.isEmpty ? ["\(root)/west", "\(root)/east"] : servers.map(\.directory)
    let list = try ChildProcess.run(
      "/bin/sh",
      ["-c", "find \"$@\" -type f -path '*/crm/*' -not -path '*/probes/*' -print0 | xargs -0 -r sha256sum", "sh"]
        + places)
    try #require(list.succeeded, "\(list.errorText)")
    var objects: [String: String] = [:]
    for line in list.outputText.split(separator: "\n") { objects[String(line.dropFirst(66))] = String(line.prefix(64)) }
    return objects
  }

  /// The stored objects whose path holds `text`, in one region.
  func stored(_ text: String, in region: String) throws -> [String] {
    let list = try ChildProcess.run("find", ["\(root)/\(region)", "-type", "f", "-path", "*\(text)*"])
    return list.outputText.split(separator: "\n").map(String.init).sorted()
  }

  /// The restored cluster in `target`, not started, as one that archives like the original.
  func cluster(at target: String, settings: [String: String] = [:]) throws -> PostgresServer {
    var options = PostgresServer.Options()
    options.settings = ["archive_mode": "on", "archive_command": "\(program) --config \(configuration) wal-push %p"]
    options.settings.merge(settings) { $1 }
    return try PostgresServer(server.version, dataDirectory: target, options)
  }

  /// Restores and starts a cluster that archives onto its own timeline, as one that takes the original's place.
  func successor(_ name: String, _ arguments: [String], settings: [String: String] = [:]) throws -> PostgresServer {
    let target = "\(root)/\(name)"
    _ = try json(["restore", "--no-start", "--target-directory", target] + arguments)
    let server = try cluster(at: target, settings: settings)
    try server.start()
    try #require(try eventually(.seconds(60)) { try server.psql("SELECT pg_is_in_recovery()") == "f" }, "\(server.log)")
    return server
  }

  /// Runs SQL on the restored server in `target`.
  func query(_ target: String, _ port: Int, _ sql: String, database: String = "postgres") throws -> String {
    let outcome = try postgres(
      "psql",
      [
        "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", "\(target).tidemark/socket", "-p", "\(port)", "-U", "postgres", "-d",
        database, "-c", sql,
      ])
    return outcome.outputText.trimmingCharacters(in: .whitespacesAndNewlines)
  }

  /// Runs one of PostgreSQL's programs as PostgreSQL's user.
  @discardableResult
  func postgres(_ program: String, _ arguments: [String], succeeds: Bool = true) throws -> ProgramOutcome {
    let command = PostgresServer.unprivileged("\(server.version.binDirectory)/\(program)", arguments)
    let outcome = try ChildProcess.run(
      command[0], Array(command.dropFirst()), workingDirectory: "/", deadline: .after(.seconds(240)))
    if succeeds { try #require(outcome.succeeded, "\(program): \(outcome.errorText) \(outcome.outputText)") }
    return outcome
  }
}

/// `#expect` of equality, for closures in which that macro can't throw.
func expectEqual(
  _ found: String, _ wanted: String, _ comment: String = "", sourceLocation: SourceLocation = #_sourceLocation
) { #expect(found == wanted, "\(comment)", sourceLocation: sourceLocation) }
