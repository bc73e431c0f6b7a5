// A restore that goes on where something is in its way: another branch, a second command, a full disk, a region that is
// gone, a backup that expired during the pause. It goes on, or it is refused and the server stands as it stood.
import Foundation
import Glibc
import SystemSupport
import TestSupport
import Testing

@Suite("A restore that goes on with something in its way", .serialized)
struct ContinuationFaultTests {
  private static let rows = "SELECT string_agg(id::text, ',' ORDER BY id) FROM ledger"

  /// Rows 1 to 6 on timeline 1, each of a known transaction and before a known position; behind row 3 timeline 2 branches
  /// off and has row 30.
  private struct History {
    let installation: Installation
    var positions: [String] = []
    var transactions: [String] = []

    init() throws {
      installation = try Installation(.v15, usesS3: false)
      let server = installation.server
      try server.psql("CREATE TABLE ledger (id int PRIMARY KEY)")
      _ = try installation.json(["backup"])
      for row in 1...6 {
        transactions.append(
          try server.psql("BEGIN; INSERT INTO ledger VALUES (\(row)); SELECT pg_current_xact_id(); COMMIT"))
        try server.psql("SELECT pg_create_restore_point('after \(row)')")
        positions.append(try server.psql("SELECT pg_current_wal_lsn()"))
        if row % 2 == 0 { try installation.archiveWAL() }
      }
      try server.psql("INSERT INTO ledger VALUES (7)")
      try installation.archiveWAL()
      let second = try installation.successor("second", ["--to-name", "after 3"])
      try second.psql("INSERT INTO ledger VALUES (30)")
      try Installation.archiveWAL(second)
      try second.stop()
    }
  }
  private static let shared = Result { try History() }
  private let history: History
  private let installation: Installation
  private var root: String { installation.root }

  init() throws {
    history = try Self.shared.get()
    installation = history.installation
  }

  /// A restore that is paused behind `row`, on timeline 1.
  private struct Paused {
    let installation: Installation
    let target: String
    let port: Int
    var base: [String] { ["restore", "--target-directory", target] }

    /// What any client of the cluster finds, under the cluster's own access rules.
    func read(_ sql: String) throws -> String {
      try installation.postgres(
        "psql", ["-XAtq", "-h", "localhost", "-p", "\(port)", "-U", "postgres", "-d", "postgres", "-c", sql]
      ).outputText.trimmingCharacters(in: .whitespacesAndNewlines)
    }
    func stop() {
      _ = try? installation.postgres("pg_ctl", ["stop", "-m", "immediate", "-D", target], succeeds: false)
    }
  }

  private func paused(_ name: String, behind row: Int) throws -> Paused {
    let target = "\(root)/\(name)"
    let port = Int(try LoopbackPort.free())
    _ = try installation.json(
      ["restore", "--target-directory", target, "--to-lsn", history.positions[row - 1], "--timeline", "1"]
        + ["--target-action", "pause", "--port", "\(port)"])
    return Paused(installation: installation, target: target, port: port)
  }

  private func forward(_ paused: Paused, to row: Int) -> [String] {
    paused.base + [
      "--continue-to-lsn", history.positions[row - 1], "--timeline", "1", "--target-action", "pause",
    ]
  }

  @Test("to a transaction that is ahead, never to one behind or to one that isn't there")
  func transactions() throws {
    let paused = try paused("transactions", behind: 2)
    defer { paused.stop() }
    let on = ["--timeline", "1", "--target-action", "pause"]
    for wanted in [history.transactions[0], "99999999"] {
      let text = try installation.refuse(76, "target-unreachable", paused.base + ["--continue-to-xid", wanted] + on)
      #expect(text.contains("the restored server stands at "), "\(text)")
      #expect(try paused.read(Self.rows) == "1,2")
    }
    let xids = history.transactions
    for (arguments, expected) in [
      (["--continue-to-xid", xids[3]], "1,2,3,4"), (["--exclusive", "--continue-to-xid", xids[5]], "1,2,3,4,5"),
      (["--continue-to-xid", xids[5]], "1,2,3,4,5,6"),
    ] {
      _ = try installation.json(paused.base + arguments + on)
      #expect(try paused.read(Self.rows) == expected, "\(arguments)")
    }
    for other in ["--delta", "--plan-only", "--no-start"] {
      let text = try installation.refuse(64, "usage", paused.base + ["--continue", other])
      #expect(text.contains(other), "\(text)")
    }
    // Nor does --delta alone write over it.
    try installation.refuse(76, "target-in-use", paused.base + ["--delta"])
    #expect(try paused.read(Self.rows) == "1,2,3,4,5,6")
  }

  @Test("not onto a branch that it has passed by, and on along its own")
  func branches() throws {
    let paused = try paused("branches", behind: 4)
    defer { paused.stop() }
    let text = try installation.refuse(
      76, "target-unreachable", paused.base + ["--continue-to-latest", "--timeline", "2"])
    #expect(text.contains("on a branch that the restored server has passed by"), "\(text)")
    #expect(text.contains("the restored server stands at "), "\(text)")
    #expect(try paused.read(Self.rows) == "1,2,3,4")
    _ = try installation.json(paused.base + ["--continue-to-latest", "--timeline", "1"])
    #expect(try paused.read(Self.rows) == "1,2,3,4,5,6,7")
  }

  @Test("onto a branch that is still ahead")
  func branchAhead() throws {
    let paused = try paused("ahead", behind: 2)
    defer { paused.stop() }
    _ = try installation.json(paused.base + ["--continue-to-latest", "--timeline", "2"])
    #expect(try paused.read(Self.rows) == "1,2,3,30")
  }

  @Test("of two at once the second is refused, and the first goes on")
  func two() throws {
    let paused = try paused("two", behind: 2)
    defer { paused.stop() }
    let held = try installation.hold(at: "continue.before-stop", forward(paused, to: 4))
    let text = try installation.refuse(75, "locked", forward(paused, to: 5))
    #expect(text.contains("a restore into this directory"), "\(text)")
    #expect(try held.finish() == .exited(0), "\(held.errorText)")
    #expect(try paused.read(Self.rows) == "1,2,3,4")
    _ = try installation.json(forward(paused, to: 5))
    #expect(try paused.read(Self.rows) == "1,2,3,4,5")
  }

  @Test(
    "a disk that is full, or fills up on the way, ends it; with room it goes on",
    .enabled(if: SmallFileSystem.canMount, "only root can mount"),
    arguments: ["", "continue.after-stop"])
  func fullDisk(_ point: String) throws {
    let small = try SmallFileSystem("\(root)/small\(point)", "size=400m")
    defer { small.unmount() }
    let paused = try paused("small\(point)/data", behind: 2)
    defer { paused.stop() }
    if point.isEmpty {
      try small.fill()
      let outcome = try installation.run(forward(paused, to: 4))
      #expect(outcome.ending == .exited(74), "\(outcome.ending) \(outcome.errorText)")
      // Nothing was begun.
      #expect(try paused.read(Self.rows) == "1,2")
    } else {
      let held = try installation.hold(at: point, forward(paused, to: 4))
      try small.fill()
      let ending = try held.finish()
      #expect([.exited(74), .exited(65)].contains(ending), "\(point): \(ending) \(held.errorText)")
      #expect(held.errorText.contains("No space left on device"), "\(point): \(held.errorText)")
    }
    try small.makeRoom()
    _ = try installation.json(forward(paused, to: 4))
    #expect(try paused.read(Self.rows) == "1,2,3,4")
  }

  @Test("with a region gone it goes on by the other, and says so")
  func regionGone() throws {
    let paused = try paused("region", behind: 2)
    defer { paused.stop() }
    try FileManager.default.moveItem(atPath: "\(root)/west", toPath: "\(root)/away")
    defer { try? FileManager.default.moveItem(atPath: "\(root)/away", toPath: "\(root)/west") }
    var report = try installation.json(forward(paused, to: 4))
    #expect(report["regionsNotAsked"] as? [String] == ["west"])
    #expect(try paused.read(Self.rows) == "1,2,3,4")
    // Without any region nothing is stopped.
    try FileManager.default.moveItem(atPath: "\(root)/east", toPath: "\(root)/away-too")
    let outcome = try installation.run(forward(paused, to: 5))
    #expect(outcome.ending == .exited(69) || outcome.ending == .exited(78), "\(outcome.ending) \(outcome.errorText)")
    #expect(try paused.read(Self.rows) == "1,2,3,4")
    try FileManager.default.moveItem(atPath: "\(root)/away-too", toPath: "\(root)/east")
    report = try installation.json(paused.base + ["--continue-to-latest", "--timeline", "1"])
    #expect(try paused.read(Self.rows) == "1,2,3,4,5,6,7")
  }

  /// The last of the suite: it needs a server of its own.
  @Test("after its backup expired it is refused with the ways out, and the server stands as it stood")
  func expired() throws {
    let installation = try Installation(.v15, usesS3: false)
    try installation.server.psql("CREATE TABLE ledger (id int PRIMARY KEY); INSERT INTO ledger VALUES (1)")
    let label = try #require(try installation.json(["backup"])["label"] as? String)
    try installation.server.psql("INSERT INTO ledger VALUES (2); SELECT pg_create_restore_point('two')")
    try installation.server.psql("INSERT INTO ledger VALUES (3); SELECT pg_create_restore_point('three')")
    try installation.archiveWAL()
    let target = "\(installation.root)/expired"
    let port = Int(try LoopbackPort.free())
    let paused = Paused(installation: installation, target: target, port: port)
    _ = try installation.json(
      paused.base + ["--to-name", "two", "--target-action", "pause", "--port", "\(port)"])
    defer { paused.stop() }
    // The newest two are protected.
    for _ in 1...2 { _ = try installation.json(["backup"]) }
    let removed = try installation.run(["expire", "--remove", label])
    try #require(removed.succeeded, "\(removed.errorText)")
    for arguments in [["--continue-to-name", "three"], ["--continue"]] {
      let text = try installation.refuse(76, "backup-not-found", paused.base + arguments)
      #expect(text.contains(label) && text.contains("expired"), "\(text)")
      #expect(text.contains("kept:  the restored server"), "\(text)")
      #expect(text.contains("pg_wal_replay_resume()"), "\(text)")
      #expect(try paused.read(Self.rows) == "1,2")
    }
    // The way out that was named.
    _ = try paused.read("SELECT pg_wal_replay_resume()")
    #expect(try eventually { try paused.read("SELECT pg_is_in_recovery()") == "f" })
    #expect(try paused.read(Self.rows) == "1,2")
  }
}
