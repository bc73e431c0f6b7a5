// What an outage of one region costs: time within the limits that the configuration promises, never data. One server
// and its two regions serve all of these tests, one after the other.
import Foundation
import SystemSupport
import TestSupport
import Testing

@Suite("A region that fails", .serialized)
struct RegionOutageTests {
  /// As the installation configures them.
  private static let degradeAfter = Duration.seconds(3)
  private static let silenceLimit = Duration.seconds(2)
  private static let shared = Result {
    let installation = try Installation(
      .v15, usesS3: true, degradeAfter: "3s", isFaulty: true, archives: false)
    try installation.server.psql(
      "CREATE TABLE t AS SELECT g AS id, md5(g::text) AS note FROM generate_series(1, 5000) g")
    return installation
  }

  private let installation: Installation
  private var east: FaultProxy { installation.proxies[1] }

  init() throws {
    installation = try Self.shared.get()
    // Whatever the test before did to it.
    for proxy in installation.proxies { proxy.set(.pass) }
  }

  /// Finishes a segment and returns its path.
  private func segment() throws -> String {
    try installation.server.psql("INSERT INTO t SELECT g, 'more' FROM generate_series(1, 100) g")
    let name = try installation.server.psql("SELECT pg_walfile_name(pg_switch_wal())")
    return "\(installation.server.dataDirectory)/pg_wal/\(name)"
  }

  /// Pushes a new segment, requires success, and returns how long that took.
  private func push() throws -> (Duration, ProgramOutcome) {
    let path = try segment()
    let start = ContinuousClock.now
    let outcome = try installation.run(["wal-push", path])
    try #require(outcome.succeeded, "\(outcome.errorText)")
    return (ContinuousClock.now - start, outcome)
  }

  private func debts() throws -> Int {
    let path = "\(installation.root)/state/debts/east"
    return FileManager.default.fileExists(atPath: path)
      ? try FileManager.default.contentsOfDirectory(atPath: path).count : 0
  }

  /// The region is well again: what it lacks is copied, and both hold the same.
  private func converge() throws {
    let report = try installation.json(["sync"])
    #expect(report["findings"] as? [String] == [])
    let left = try debts()
    #expect(left == 0)
    let difference = try ChildProcess.run(
      "diff",
      ["-rq", "-x", "probes", "\(installation.servers[0].directory)/west", "\(installation.servers[1].directory)/east"])
    #expect(difference.succeeded, "\(difference.outputText)")
  }

  @Test("that refuses connections: the first segment waits for degrade-after, the next ones don't")
  func refusing() throws {
    let (usual, _) = try push()
    east.goDown()
    let (first, _) = try push()
    #expect(first < usual + Self.degradeAfter + .seconds(2), "\(first), usually \(usual)")
    for _ in 0..<3 {
      let (next, _) = try push()
      #expect(next < usual + .seconds(1), "\(next), usually \(usual)")
    }
    let owed = try debts()
    #expect(owed == 4)
    try east.comeBack()
    try converge()
  }

  @Test("that accepts and never answers: the same, with the limit on silence")
  func frozen() throws {
    let (usual, _) = try push()
    east.set(.frozen)
    let (first, _) = try push()
    #expect(first < usual + Self.degradeAfter + Self.silenceLimit + .seconds(2), "\(first), usually \(usual)")
    let (next, _) = try push()
    #expect(next < usual + .seconds(1), "\(next), usually \(usual)")
    let owed = try debts()
    #expect(owed == 2)
    east.set(.pass)
    try converge()
  }

  @Test("that says 503 for a moment owes nothing; one that goes on saying it does")
  func throttling() throws {
    east.script([.refusal(status: 503, code: "SlowDown", retryAfter: 1), .refusal(status: 503, code: "SlowDown")])
    _ = try push()
    let none = try debts()
    #expect(none == 0)
    let (usual, _) = try push()
    east.set(.always(.refusal(status: 503, code: "SlowDown", retryAfter: 1)))
    let (first, outcome) = try push()
    #expect(first < usual + Self.degradeAfter + .seconds(2), "\(first), usually \(usual)")
    #expect(outcome.errorText.contains("HTTP 503"))
    let one = try debts()
    #expect(one == 1)
    east.set(.pass)
    try converge()
  }

  @Test("whose credentials expire for a moment is asked again; one that refuses them owes and says so")
  func expiredCredentials() throws {
    east.script([.refusal(status: 400, code: "ExpiredToken")])
    _ = try push()
    let none = try debts()
    #expect(none == 0)
    let (usual, _) = try push()
    east.set(.always(.refusal(status: 400, code: "ExpiredToken")))
    let (first, outcome) = try push()
    #expect(first < usual + Self.degradeAfter + .seconds(2), "\(first), usually \(usual)")
    #expect(outcome.errorText.contains("ExpiredToken"))
    #expect(outcome.errorText.contains("access-denied"))
    east.set(.pass)
    try converge()
  }

  @Test("whose clock differs by 20 minutes costs nothing but redundancy, and says so")
  func skewedClock() throws {
    let (usual, _) = try push()
    east.set(.skewedClock(seconds: 1200))
    let (first, outcome) = try push()
    #expect(first < usual + Self.degradeAfter + .seconds(2), "\(first), usually \(usual)")
    #expect(outcome.errorText.contains("clock-skewed"))
    let checked = try installation.run(["check"])
    #expect(checked.outputText.contains("clock"), "\(checked.outputText)\(checked.errorText)")
    east.set(.pass)
    try converge()
  }

  @Test("in the middle of a backup leaves a backup that each region can restore after sync")
  func middleOfBackup() throws {
    let before = east.requestCount
    let installation = installation
    let east = east
    let cut = WorkerThread<Void>("cut") {
      _ = try eventually(.seconds(60)) { east.requestCount > before + 6 }
      east.goDown()
    }
    let backup = try archiving { try installation.json(["backup", "--full"]) }
    try cut.join()
    #expect(backup["label"] as? String != nil)
    let owed = try debts()
    #expect(owed > 0)
    try east.comeBack()
    try converge()
    let report = try installation.restore("after-cut", ["--to-backup-end", "--from-region", "east"]) { query in
      let count = try query("SELECT count(*) > 5000 FROM t")
      #expect(count == "t")
    }
    #expect((report["regions"] as? [String: Any])?.keys.sorted() == ["east"])
  }

  @Test("costs a restore ten seconds at most, refusing or frozen", arguments: ["refusing", "frozen"])
  func restore(how: String) throws {
    _ = try archiving { try installation.json(["backup"]) }
    func seconds(_ name: String) throws -> Double {
      let report = try installation.restore(name, ["--to-backup-end"]) { query in
        let count = try query("SELECT count(*) > 5000 FROM t")
        #expect(count == "t")
      }
      return try #require(report["rtoSeconds"] as? Double)
    }
    let usual = try seconds("usual-\(how)")
    // West is asked first: the outage must hit the preferred region.
    let west = installation.proxies[0]
    if how == "frozen" { west.set(.frozen) } else { west.goDown() }
    let during = try seconds("during-\(how)")
    let limit = usual + 10 + (how == "frozen" ? Self.silenceLimit.seconds : 0)
    #expect(during < limit, "\(during) s, without the outage \(usual) s")
    if how == "frozen" { west.set(.pass) } else { try west.comeBack() }
    try converge()
  }

  @Test("that freezes while packs are fetched costs a restore the limit on silence and a little more")
  func freezesOnTheWay() throws {
    let (west, east) = (installation.proxies[0], installation.proxies[1])
    // Some packs' worth, so that several threads meet it.
    try installation.server.psql(
      """
      CREATE TABLE bulk AS SELECT g AS id, sha256(g::text::bytea) || sha256((-g)::text::bytea) AS note
        FROM generate_series(1, 200000) g
      """)
    _ = try archiving { try installation.json(["backup"]) }
    // East is slow to answer, so west is asked first.
    east.set(.always(.latency(.milliseconds(60))))
    func seconds(_ name: String) throws -> Double {
      let report = try installation.restore(name, ["--to-backup-end"]) { query in
        let count = try query("SELECT count(*) FROM bulk")
        #expect(count == "200000")
      }
      return try #require(report["rtoSeconds"] as? Double)
    }
    let usual = try seconds("usual-way")
    west.set(.frozenFrom("/packs/"))
    let during = try seconds("frozen-way")
    let isFrozen = west.isFrozen
    #expect(isFrozen)
    // What never answers is left after five seconds in any case, and what stops in the middle after the limit on silence:
    // the threads meet both at once, and nobody meets either twice.
    let limit = usual + max(5, Self.silenceLimit.seconds) + 3
    #expect(during < limit, "\(during) s, without the outage \(usual) s")
    for proxy in [west, east] { proxy.set(.pass) }
    try installation.server.psql("DROP TABLE bulk")
    try converge()
  }

  @Test("that is slow is named as what limited a restore")
  func slow() throws {
    let expected = try installation.server.psql("SELECT count(*) FROM t")
    _ = try archiving { try installation.json(["backup"]) }
    for proxy in installation.proxies { proxy.set(.always(.latency(.milliseconds(800)))) }
    defer { for proxy in installation.proxies { proxy.set(.pass) } }
    let report = try installation.restore("slow", ["--to-backup-end"]) { query in
      let count = try query("SELECT count(*) FROM t")
      #expect(count == expected)
    }
    let limit = try #require(report["limit"] as? [String: Any])
    let phases = try #require(report["phases"] as? [[String: Any]]).compactMap { $0["seconds"] as? Double }
    let causes = try ["region", "cpu", "disk", "replay", "overhead"].map {
      try #require(limit["\($0)Seconds"] as? Double)
    }
    // Every second of every phase has one cause; the plan's own requests count as overhead.
    #expect(abs(causes.reduce(0, +) - phases.reduce(0, +)) < 0.001, "\(limit)")
    #expect(causes[0] > 0.8, "\(limit)")
    #expect(causes[0] > max(causes[1], causes[2]), "\(limit)")
  }

  /// Lets the server archive by itself while `body` runs, and until it has nothing left to archive: a backup's history
  /// file that is pushed later would be a debt that no test expects.
  private func archiving<Result>(_ body: () throws -> Result) throws -> Result {
    let command = "\(installation.root)/tidemark --config \(installation.configuration) wal-push %p"
    func set(_ command: String) throws {
      try installation.server.psql("ALTER SYSTEM SET archive_command = '\(command)'")
      try installation.server.psql("SELECT pg_reload_conf()")
    }
    try set(command)
    defer { _ = try? set("") }
    let result = try body()
    let archived = try eventually(.seconds(60)) {
      try installation.server.psql(
        "SELECT count(*) = 0 FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'") == "t"
    }
    try #require(archived, "\(installation.server.log)")
    return result
  }
}
