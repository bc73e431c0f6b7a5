// The WAL that a restore fetches ahead of the replay, where PostgreSQL asks first for a segment that lies far ahead.
import Foundation
import Glibc
import SystemSupport
import TestSupport
import Testing

@Suite("The window of the WAL spool", .serialized)
struct SpoolWindowTests {
  /// More segments than the spool holds at once, which is 24.
  private static let aheadCount = 27

  /// PostgreSQL reads the backup's checkpoint record before it replays from the redo position: on a busy server the
  /// one lies many segments behind the other. Here the checkpointer is held meanwhile, and so that it doesn't come to its
  /// end before, it is let go on for a millisecond at a time.
  @Test("a checkpoint that lies further ahead than the spool reaches is fetched all the same")
  func farCheckpoint() throws {
    let installation = try Installation(
      .v15, usesS3: false,
      configure: {
        $0.settings["shared_buffers"] = "128MB"
        $0.settings["log_checkpoints"] = "on"
      })
    let server = installation.server
    // So many changed pages that their checkpoint takes a moment.
    try server.psql("CREATE TABLE t AS SELECT g AS id, repeat('x', 1000) AS note FROM generate_series(1, 80000) g")
    let checkpointer = try #require(
      pid_t(try server.psql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")))
    defer { kill(checkpointer, SIGCONT) }
    func step() {
      kill(checkpointer, SIGCONT)
      usleep(1_000)
      kill(checkpointer, SIGSTOP)
    }
    kill(checkpointer, SIGSTOP)
    let backup = WorkerThread("backup") { try installation.run(["--json", "backup"]) }
    let begun = try eventually(.seconds(60)) {
      step()
      return server.log.contains("checkpoint starting: immediate force wait")
    }
    try #require(begun)
    // The redo position is fixed a moment after that was logged.
    step()
    try server.psql(
      """
      DO $$ BEGIN FOR i IN 1..\(Self.aheadCount) LOOP
        PERFORM pg_create_restore_point('ahead'), pg_switch_wal(); END LOOP; END $$
      """)
    kill(checkpointer, SIGCONT)
    let outcome = try backup.join()
    try #require(outcome.succeeded, "\(outcome.errorText)")
    try server.psql("INSERT INTO t VALUES (0, 'last')")
    try installation.archiveWAL()

    // That it came about is proven by what the server itself wrote down.
    let target = "\(installation.root)/label"
    _ = try installation.json(["restore", "--target-directory", target, "--no-start"])
    let label = String(decoding: try readFile("\(target)/backup_label"), as: UTF8.self)
    let positions = try label.split(separator: "\n").prefix(2).map { line in
      try server.psql(
        "SELECT '\(try #require(line.split(separator: ": ").last?.split(separator: " ").first))'::pg_lsn - '0/0'")
    }
    let numbers = try positions.map { try #require(Int($0)) }
    #expect((numbers[1] - numbers[0]) >> 24 > 24, "\(label)")

    try installation.restore("far", []) { query in
      expectEqual(try query("SELECT count(*), min(id) FROM t"), "80001|0")
    }
  }

  @Test("a restore_command whose server is told to stop takes nothing from the spool any more")
  func orphan() throws {
    let installation = try Installation(.v15, usesS3: false)
    let segment = "000000010000000000000007"
    let (spool, lock) = ("\(installation.root)/spool", "\(installation.root)/spool.lock")
    for path in [spool, "\(installation.root)/pg_wal"] {
      try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
      try PostgresServer.give(path)
    }
    try write(plan: "1", segment, spool, lock, to: installation)
    // As if a restore filled the spool.
    let restore = try FileLock(lock, purpose: "the test")
    try PostgresServer.give(lock)
    let destination = "\(installation.root)/pg_wal/RECOVERYXLOG"
    let arguments = ["wal-fetch", segment, destination, "--plan", "\(installation.root)/plan.json"]
    func start() throws -> ChildProcess {
      let command = PostgresServer.unprivileged(
        installation.program, ["--config", installation.configuration] + arguments)
      let process = try ChildProcess(command[0], Array(command.dropFirst()), workingDirectory: "/", output: .null)
      let hasAsked = try eventually(.seconds(60)) {
        FileManager.default.fileExists(atPath: "\(spool)/\(segment).wanted")
      }
      try #require(hasAsked)
      return process
    }
    let stopped = try start()
    kill(stopped.pid, SIGTERM)
    usleep(50_000)
    try DurableFile.write([1, 2, 3], to: "\(spool)/\(segment)")
    try PostgresServer.give("\(spool)/\(segment)")
    #expect(try stopped.wait(until: .after(.seconds(60))) == .exited(202))
    #expect(!FileManager.default.fileExists(atPath: destination))
    #expect(try readFile("\(spool)/\(segment)") == [1, 2, 3])
    // One that isn't gets it.
    try FileManager.default.moveItem(atPath: "\(spool)/\(segment)", toPath: "\(installation.root)/kept")
    try? FileManager.default.removeItem(atPath: "\(spool)/\(segment).wanted")
    let waiting = try start()
    try FileManager.default.moveItem(atPath: "\(installation.root)/kept", toPath: "\(spool)/\(segment)")
    #expect(try waiting.wait(until: .after(.seconds(60))) == .exited(0))
    #expect(try readFile(destination) == [1, 2, 3])
    withExtendedLifetime(restore) {}
  }

  @Test("a plan that names no cluster is refused: whose tablespaces a segment must not touch can't be known then")
  func planWithoutCluster() throws {
    let installation = try Installation(.v15, usesS3: false)
    try installation.archiveWAL()
    let stored = try #require(try installation.stored("/wal/", in: "west").first)
    let segment = baseName(stored)
    let destination = "\(installation.root)/RECOVERYXLOG"
    let arguments = ["wal-fetch", segment, destination, "--plan", "\(installation.root)/plan.json"]
    let (spool, lock) = ("\(installation.root)/spool", "\(installation.root)/spool.lock")
    let known = try installation.server.psql("SELECT system_identifier FROM pg_control_system()")
    try write(plan: "nobody's", segment, spool, lock, to: installation)
    let text = try installation.refuse(203, "wal-file-invalid", arguments)
    #expect(text.contains("nobody's") && text.contains("plan.json"), "\(text)")
    #expect(!FileManager.default.fileExists(atPath: destination))
    try write(plan: known, segment, spool, lock, to: installation)
    #expect(try installation.run(arguments).succeeded)
    #expect(FileManager.default.fileExists(atPath: destination))
  }

  /// A restore's plan of one segment, of the cluster that is named.
  private func write(
    plan cluster: String, _ segment: String, _ spool: String, _ lock: String, to installation: Installation
  ) throws {
    let plan: [String: Any] = [
      "format": 1, "systemIdentifier": cluster, "histories": [Int](), "spool": spool, "lock": lock,
      "legs": [["timeline": 1, "firstSegment": segment, "lastSegment": segment] as [String: Any]],
    ]
    try DurableFile.write(
      [UInt8](try JSONSerialization.data(withJSONObject: plan)), to: "\(installation.root)/plan.json")
    try PostgresServer.give("\(installation.root)/plan.json")
  }
}
