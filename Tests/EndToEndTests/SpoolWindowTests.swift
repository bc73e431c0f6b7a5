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
}
