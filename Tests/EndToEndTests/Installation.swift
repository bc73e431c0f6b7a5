// A PostgreSQL server that archives by the real program into two regions, each a real S3 server or a directory, with
// everything in one private directory that PostgreSQL's user owns.
import Foundation
import SystemSupport
import TestSupport
import Testing

final class Installation: Sendable {
  let directory: TemporaryDirectory
  let server: PostgresServer
  let servers: [RcloneServer]
  /// Before each server, where faults were asked for.
  let proxies: [FaultProxy]
  var root: String { directory.path }
  var configuration: String { "\(root)/tidemark.yaml" }
  var program: String { "\(root)/tidemark" }

  /// With `usesS3` the regions are rclone's S3 servers, otherwise directories that a test can take away.
  /// - Parameters:
  ///   - isFaulty: puts a proxy before each server, which passes everything on until it is told otherwise. A request that
  ///     moves no byte for two seconds has then failed.
  ///   - archives: whether the server runs `wal-push` by itself.
  ///   - seed: of the proxies' random faults.
  ///   - configure: changes how the server is made.
  ///   - connection: what the configuration says of the server.
  ///   - postgres: further keys of the configuration's `postgres`, in place of the directory of programs.
  init(
    _ version: PostgresVersion, usesS3: Bool, degradeAfter: String = "60s", isFaulty: Bool = false,
    archives: Bool = true, seed: UInt64 = .random(in: 1...999_999),
    configure: (inout PostgresServer.Options) -> Void = { _ in },
    connection: (PostgresServer) -> String = { $0.connectionString }, postgres: String? = nil
  ) throws {
    directory = try TemporaryDirectory()
    let root = directory.path
    let built = directoryName(try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) + "/tidemark"
    try FileManager.default.copyItem(atPath: built, toPath: "\(root)/tidemark")
    servers = usesS3 ? [try RcloneServer(buckets: ["west"]), try RcloneServer(buckets: ["east"])] : []
    proxies =
      isFaulty ? try servers.enumerated().map { try FaultProxy(upstream: $1.port, seed: seed + UInt64($0)) } : []
    var regions: [String] = []
    for (index, name) in ["west", "east"].enumerated() {
      if usesS3 {
        let credentials = "\(root)/\(name).credentials"
        let text =
          "[default]\naws_access_key_id = \(RcloneServer.accessKey)\naws_secret_access_key = \(RcloneServer.secretKey)\n"
        try DurableFile.write(Array(text.utf8), to: credentials)
        try PostgresServer.give(credentials)
        let endpoint = isFaulty ? proxies[index].endpoint : servers[index].endpoint
        let limits = isFaulty ? ", connect-timeout: 2s, silence-limit: 2s" : ""
        regions.append(
          "{name: \(name), endpoint: \"\(endpoint)\", bucket: \(name), region: us-1, credentials-file: \(credentials)\(limits)}"
        )
      } else {
        try FileManager.default.createDirectory(atPath: "\(root)/\(name)", withIntermediateDirectories: true)
        try PostgresServer.give("\(root)/\(name)")
        regions.append("{name: \(name), endpoint: \"file://\(root)/\(name)\"}")
      }
    }
    try PostgresServer.give(root)
    var options = PostgresServer.Options()
    // An empty command leaves the segments to the test.
    options.archiveCommand = archives ? "\(root)/tidemark --config \(root)/tidemark.yaml wal-push %p" : ""
    options.settings["max_prepared_transactions"] = "4"
    // So that a test still finds a segment in pg_wal after it was archived.
    options.settings["wal_keep_size"] = "256MB"
    configure(&options)
    server = try PostgresServer(version, options)
    let yaml = """
      cluster: crm
      postgres:
        connection: \(connection(server))
        \(postgres ?? "bin-directory: \(version.binDirectory)")
      repository:
        prefix: backups/tidemark
        durability: {required: 2, degrade-after: \(degradeAfter)}
        regions:
          - \(regions[0])
          - \(regions[1])
      encryption: {identity-file: \(root)/identity.key, writer-key-file: \(root)/writer.key}
      objectives: {rto: 5m, rpo: 30s}
      state-directory: \(root)/state

      """
    try DurableFile.write(Array(yaml.utf8), to: "\(root)/tidemark.yaml", mode: 0o644)
    try PostgresServer.give("\(root)/tidemark.yaml")
    let made = try run(["init"])
    try #require(made.succeeded, "\(made.errorText)")
  }

  deinit {
    _ = try? server.stop(.immediate)
    for server in servers { _ = try? server.stop() }
  }

  /// Runs the program as PostgreSQL's user, with `environment` added to ours, and with another configuration if one is
  /// named.
  func run(
    _ arguments: [String], environment: [String: String] = [:], configuration other: String? = nil
  ) throws -> ProgramOutcome {
    let command = PostgresServer.unprivileged(
      "/usr/bin/env",
      // Whoever runs the tests has a home that PostgreSQL's user can't read.
      ["HOME=\(root)"] + environment.map { "\($0.key)=\($0.value)" } + [
        program, "--config", other ?? configuration, "--log-level", "warning",
      ]
        + arguments)
    return try ChildProcess.run(
      command[0], Array(command.dropFirst()), workingDirectory: "/", deadline: .after(.seconds(240)))
  }

  /// Runs the program with `--json`, requires success (or a check's findings), and returns its document.
  func json(_ arguments: [String], allowsFindings: Bool = false) throws -> [String: Any] {
    let outcome = try run(["--json"] + arguments)
    let isGood = outcome.succeeded || (allowsFindings && outcome.ending == .exited(1))
    try #require(isGood, "tidemark \(arguments): \(outcome.errorText)")
    let document = try JSONSerialization.jsonObject(with: Data(outcome.output))
    return try #require(document as? [String: Any])
  }

  /// Requires that the program ends with this status and names this code, and returns what the operator reads.
  @discardableResult
  func refuse(
    _ status: Int32, _ code: String, _ arguments: [String], configuration other: String? = nil
  ) throws -> String {
    let outcome = try run(arguments, configuration: other)
    #expect(outcome.ending == .exited(status), "\(arguments): \(outcome.errorText)")
    #expect(outcome.errorText.contains("[\(code)]"), "\(arguments): \(outcome.errorText)")
    return outcome.errorText
  }

  /// Finishes the current segment and waits until it is archived.
  func archiveWAL() throws { try Self.archiveWAL(server) }

  static func archiveWAL(_ server: PostgresServer) throws {
    // Something to archive: since PostgreSQL 17 the name of an unused segment is that of one that isn't finished.
    try server.psql("SELECT pg_create_restore_point('archive')")
    let name = try server.psql("SELECT pg_walfile_name(pg_switch_wal())")
    let archived = try eventually(.seconds(60)) {
      // Another timeline's history file may be the one that was archived last.
      try server.psql(
        """
        SELECT EXISTS (SELECT FROM pg_ls_archive_statusdir() WHERE name = '\(name).done') OR
          coalesce(last_archived_wal, '') ~ '^[0-9A-F]{24}$' AND last_archived_wal >= '\(name)' FROM pg_stat_archiver
        """) == "t"
    }
    try #require(archived, "\(server.log)")
  }

  /// Restores into a new directory, runs `body` on the started server, and stops it.
  @discardableResult
  func restore(
    _ name: String, _ arguments: [String], _ body: (_ query: (String) throws -> String) throws -> Void
  ) throws -> [String: Any] {
    let target = "\(root)/\(name)"
    // Below the ports that outgoing connections take: the one that is free now is still free when the server starts.
    let free = try #require(
      (0..<100).lazy.map { _ in UInt16.random(in: 15_000...31_000) }.first { !LoopbackPort.accepts($0) })
    let chosen = arguments.contains("--port") || arguments.contains("--no-start") ? [] : ["--port", "\(free)"]
    let report = try json(["restore", "--target-directory", target] + chosen + arguments)
    let port = try #require(report["port"] as? Int)
    defer { _ = try? postgres("pg_ctl", ["stop", "-m", "immediate", "-D", target], succeeds: false) }
    try body { sql in try query(target, port, sql) }
    return report
  }
}
