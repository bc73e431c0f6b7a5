// A restore that goes on: looked at where it paused, led forward to a later target, promoted, or finished after it was
// killed. Each server is PostgreSQL's own, and each point kills a process of the real program.
import Foundation
import SystemSupport
import TestSupport
import Testing

@Suite("A restore that goes on", .serialized)
struct ContinuationTests {
  private static let rows = "SELECT string_agg(id::text, ',' ORDER BY id) FROM ledger"
  private static let replaySettings = ["checkpoint_timeout", "max_wal_size", "bgwriter_", "recovery_prefetch"]

  /// A backup, then rows 1 to 6, each at a known moment and position of its own segment.
  private struct History {
    let installation: Installation
    var times: [String] = []
    var positions: [String] = []

    init(_ version: PostgresVersion) throws {
      installation = try Installation(version, usesS3: false)
      let server = installation.server
      try server.psql("CREATE TABLE ledger (id int PRIMARY KEY)")
      _ = try installation.json(["backup"])
      for row in 1...6 {
        try server.psql("INSERT INTO ledger VALUES (\(row)); SELECT pg_create_restore_point('after \(row)')")
        times.append(try server.psql("SELECT clock_timestamp()"))
        positions.append(try server.psql("SELECT pg_current_wal_lsn()"))
        if row % 2 == 0 { try installation.archiveWAL() }
      }
      try server.psql("INSERT INTO ledger VALUES (7)")
      try installation.archiveWAL()
    }
  }
  private static let shared = Result { try History(.v15) }

  private func running(_ installation: Installation, _ target: String) throws -> Bool {
    try installation.postgres("pg_ctl", ["status", "-D", target], succeeds: false).succeeded
  }

  /// What any client of the cluster finds, under the cluster's own access rules.
  private func read(_ installation: Installation, _ port: Int, _ sql: String) throws -> String {
    try installation.postgres(
      "psql", ["-XAtq", "-h", "localhost", "-p", "\(port)", "-U", "postgres", "-d", "postgres", "-c", sql]
    ).outputText.trimmingCharacters(in: .whitespacesAndNewlines)
  }

  private func settings(_ target: String) throws -> String {
    String(decoding: try readFile("\(target)/postgresql.auto.conf"), as: UTF8.self)
  }

  private func port() throws -> [String] { ["--port", "\(try LoopbackPort.free())"] }

  @Test("pause, look, go forward, look again, promote", arguments: PostgresVersion.allAvailable)
  func forward(_ version: PostgresVersion) throws {
    let history = version == .v15 ? try Self.shared.get() : try History(version)
    let installation = history.installation
    let target = "\(installation.root)/forward"
    let base = ["restore", "--target-directory", target]
    defer { _ = try? installation.postgres("pg_ctl", ["stop", "-m", "immediate", "-D", target], succeeds: false) }
    let first = try installation.json(
      base + ["--to-time", history.times[1], "--target-action", "pause"] + port())
    let port = try #require(first["port"] as? Int)
    #expect(try read(installation, port, Self.rows) == "1,2")
    #expect(try Self.replaySettings.allSatisfy { try !settings(target).contains($0) })

    // Behind it lies what can't be had any more, and saying so changes nothing.
    for (arguments, place) in [
      (["--continue-to-time", history.times[0]], ""),
      (["--continue-to-lsn", history.positions[0]], history.positions[0]),
      (["--continue-to-name", "after 1"], ""),
    ] {
      let text = try installation.refuse(76, "target-unreachable", base + arguments)
      #expect(text.contains("the restored server stands at "), "\(text)")
      #expect(text.contains("target is at \(place)") || text.contains("it lies at "), "\(text)")
      #expect(try read(installation, port, Self.rows) == "1,2")
    }
    try installation.refuse(64, "usage", base + ["--continue-to-time", "yesterday"])
    try installation.refuse(64, "usage", base + ["--continue", "--to-latest"])
    try installation.refuse(64, "usage", base + ["--continue-to-latest", "--target-action", "pause"])
    try installation.refuse(64, "usage", ["restore", "--target-directory", "\(target)-no", "--continue"])
    // Nor is it written over, and the way on is named.
    #expect(try installation.refuse(76, "target-in-use", base).contains("--continue"))

    for (arguments, expected) in [
      (["--continue-to-time", history.times[2]], "1,2,3"), (["--continue-to-lsn", history.positions[3]], "1,2,3,4"),
      (["--continue-to-name", "after 5"], "1,2,3,4,5"),
      // The same again is what a killed command's successor asks for.
      (["--continue-to-name", "after 5"], "1,2,3,4,5"),
    ] {
      let report = try installation.json(base + arguments + ["--target-action", "pause"])
      #expect(report["port"] as? Int == port)
      #expect(report["continuedFrom"] as? String != nil)
      #expect(try read(installation, port, Self.rows) == expected, "\(arguments)")
      #expect(try read(installation, port, "SELECT pg_is_in_recovery()") == "t")
      #expect(try Self.replaySettings.allSatisfy { try !settings(target).contains($0) })
    }
    let last = try installation.json(base + ["--continue-to-latest"])
    #expect((last["reached"] as? [String: Any])?["timeline"] as? Int == 2)
    #expect(try read(installation, port, Self.rows) == "1,2,3,4,5,6,7")
    #expect(try read(installation, port, "SELECT pg_is_in_recovery()") == "f")
    try expectClean(target)
    let text = try installation.refuse(76, "target-unreachable", base + ["--continue-to-time", history.times[5]])
    #expect(text.contains("the recovery has ended"), "\(text)")
    // To finish what is finished harms nothing.
    _ = try installation.json(base + ["--continue"])
    #expect(try read(installation, port, Self.rows) == "1,2,3,4,5,6,7")
  }

  private func expectClean(_ target: String) throws {
    let text = try settings(target)
    for word in ["recovery_target", "restore_command"] + Self.replaySettings {
      #expect(!text.contains(word), "\(text)")
    }
    let spool = try FileManager.default.contentsOfDirectory(atPath: "\(target).tidemark/spool")
    #expect(spool.isEmpty, "\(spool)")
  }

  @Test(
    "killed between the pause at its target and the end of its promotion, a restore is finished by the command it names",
    arguments: [
      "restore.paused", "restore.promoting", "restore.after-replay", "restore.before-settings",
      "restore.after-settings",
      "durable-file.before-rename:10",
    ])
  func killedAtTheTarget(_ point: String) throws {
    let history = try Self.shared.get()
    let installation = history.installation
    let target = "\(installation.root)/\(point.replacing(":", with: "-"))"
    let base = ["restore", "--target-directory", target]
    defer { _ = try? installation.postgres("pg_ctl", ["stop", "-m", "immediate", "-D", target], succeeds: false) }
    let port = try port()
    let killed = try installation.run(
      base + ["--to-time", history.times[2]] + port, environment: ["TIDEMARK_CRASH_AT": point])
    try #require(killed.ending == .signalled(SIGKILL), "\(point): \(killed.ending) \(killed.errorText)")
    if point == "restore.paused" {
      // The replay had what makes it fast, and reads nothing ahead that was just written.
      let lines = try settings(target)
      for name in Self.replaySettings { #expect(lines.contains("\n\(name)"), "\(lines)") }
    }
    // Who simply repeats the command is told.
    let again = try installation.run(base + ["--to-time", history.times[2]])
    #expect(again.ending == .exited(76), "\(again.errorText)")
    if point == "restore.paused" {
      #expect(again.errorText.contains("restore --target-directory \(target) --continue"), "\(again.errorText)")
    }
    _ = try installation.json(base + ["--continue"])
    let number = try #require(Int(port[1]))
    #expect(try read(installation, number, Self.rows) == "1,2,3", "\(point)")
    #expect(try read(installation, number, "SELECT pg_is_in_recovery()") == "f", "\(point)")
    try expectClean(target)
  }

  @Test(
    "killed while it goes forward, the next one goes on",
    arguments: [
      "continue.after-close", "continue.before-stop", "continue.after-stop", "continue.after-plan",
      "continue.before-settings",
      "durable-file.before-rename:6", "continue.after-settings", "continue.after-start", "restore.after-replay",
    ])
  func killedOnTheWay(_ point: String) throws {
    let history = try Self.shared.get()
    let installation = history.installation
    let target = "\(installation.root)/way-\(point.replacing(":", with: "-"))"
    let base = ["restore", "--target-directory", target]
    defer { _ = try? installation.postgres("pg_ctl", ["stop", "-m", "immediate", "-D", target], succeeds: false) }
    let port = try port()
    _ = try installation.json(base + ["--to-lsn", history.positions[1], "--target-action", "pause"] + port)
    let forward = base + ["--continue-to-lsn", history.positions[3], "--target-action", "pause"]
    let killed = try installation.run(forward, environment: ["TIDEMARK_CRASH_AT": point])
    try #require(killed.ending == .signalled(SIGKILL), "\(point): \(killed.ending) \(killed.errorText)")
    let back = try installation.run(base + ["--continue-to-lsn", history.positions[0]])
    #expect(back.ending == .exited(76), "\(point): \(back.errorText)")
    let number = try #require(Int(port[1]))
    _ = try installation.json(forward)
    #expect(try read(installation, number, Self.rows) == "1,2,3,4", "\(point)")
    // The server itself may die meanwhile, with its host.
    try installation.postgres("pg_ctl", ["stop", "-m", "immediate", "-D", target])
    _ = try installation.json(base + ["--continue-to-lsn", history.positions[4]])
    #expect(try read(installation, number, Self.rows) == "1,2,3,4,5", "\(point)")
    try expectClean(target)
  }

  @Test("a restore that wasn't started, or shut down at its target, is gone on with; one without whole files isn't")
  func otherBeginnings() throws {
    let history = try Self.shared.get()
    let installation = history.installation
    for (name, arguments) in [
      ("unstarted", ["--no-start", "--target-action", "pause"]), ("down", ["--target-action", "shutdown"]),
    ] {
      let target = "\(installation.root)/\(name)"
      defer { _ = try? installation.postgres("pg_ctl", ["stop", "-m", "immediate", "-D", target], succeeds: false) }
      let begun = try installation.json(
        ["restore", "--target-directory", target, "--to-name", "after 2"]
          + arguments + port())
      let number = try #require(begun["port"] as? Int)
      #expect(try Self.replaySettings.allSatisfy { try !settings(target).contains($0) }, "\(name)")
      #expect(try !running(installation, target))
      // The end of the run before is no end of the next one's.
      let log = "\(target).tidemark/server.log"
      let said = fileExists(log) ? String(decoding: try readFile(log), as: UTF8.self) : ""
      try DurableFile.write(Array("\(said)2026-01-01 00:00:00 UTC [1] FATAL:  of before\n".utf8), to: log, mode: 0o600)
      try PostgresServer.give(log)
      _ = try installation.json(
        ["restore", "--target-directory", target, "--continue-to-time", history.times[3], "--target-action", "pause"])
      #expect(try read(installation, number, Self.rows) == "1,2,3,4", "\(name)")
      _ = try installation.json(["restore", "--target-directory", target, "--continue"])
      #expect(try read(installation, number, Self.rows) == "1,2,3,4", "\(name)")
      try expectClean(target)
    }
    let target = "\(installation.root)/partial"
    let killed = try installation.run(
      ["restore", "--target-directory", target], environment: ["TIDEMARK_CRASH_AT": "restore.before-control-file"])
    try #require(killed.ending == .signalled(SIGKILL))
    let text = try installation.refuse(
      76, "target-unreachable", ["restore", "--target-directory", target, "--continue"])
    #expect(text.contains("before its files were whole"), "\(text)")
  }

  @Test("the replay's own settings are in no server that this program doesn't promote itself")
  func replaySettings() throws {
    let history = try Self.shared.get()
    let installation = history.installation
    let target = "\(installation.root)/settings"
    _ = try installation.json(["restore", "--target-directory", target, "--no-start"])
    #expect(try Self.replaySettings.allSatisfy { try !settings(target).contains($0) })
    let report = try installation.restore("settings-promoted", []) { query in
      expectEqual(try query("SHOW max_wal_size"), "1GB")
      expectEqual(try query("SHOW checkpoint_timeout"), "1h")
    }
    #expect(report["started"] as? Bool == true)
    try expectClean("\(installation.root)/settings-promoted")
  }
}
