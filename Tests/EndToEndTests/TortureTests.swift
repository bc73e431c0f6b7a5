// The random version of the trust tests, for as long as one wants: scripts/torture. Transactions are written and noted
// when PostgreSQL acknowledged them; meanwhile lines fail, regions go away, programs are killed, copies rot and vanish,
// always in one region at a time; and restores to noted moments must bring back exactly what was acknowledged by then.
import Foundation
import SystemSupport
import TestSupport
import Testing

private let minutes = ProcessInfo.processInfo.environment["TIDEMARK_TORTURE_MINUTES"].flatMap { Double($0) }

@Suite("Torture", .enabled(if: minutes != nil, "scripts/torture runs this"))
struct TortureTests {
  @Test("nothing that was acknowledged is lost, whatever is injected")
  func torture() throws {
    let seed = ProcessInfo.processInfo.environment["TIDEMARK_FAULT_SEED"].flatMap { UInt64($0) } ?? 1
    let run = try TortureRun(seed: seed)
    let end = Deadline.after(.seconds((minutes ?? 1) * 60))
    while !end.hasPassed { try run.step() }
    try run.finish()
    run.say("done: \(run.summary)")
    #expect(run.findings.isEmpty, "\(run.findings.joined(separator: "\n"))")
  }
}

/// One run on one server and its two regions.
private final class TortureRun {
  /// A moment at which so many rows were acknowledged.
  private struct Noted {
    var rowCount: Int
    var lsn: String
  }

  private let installation: Installation
  private var generator: SeededGenerator
  private var noted: [Noted] = []
  private var rowCount = 0
  /// The first moment that a backup certainly precedes.
  private var firstRestorable: Int?
  private var restoreCount = 0
  private var counts: [String: Int] = [:]
  private(set) var findings: [String] = []
  private var server: PostgresServer { installation.server }

  init(seed: UInt64) throws {
    generator = SeededGenerator(seed: seed)
    installation = try Installation(.v15, usesS3: true, degradeAfter: "3s", isFaulty: true, seed: seed)
    try server.psql("CREATE TABLE ledger (id int PRIMARY KEY, note text)")
    say("seed \(seed)")
  }

  var summary: String {
    "\(rowCount) transactions acknowledged; "
      + counts.sorted { $0.key < $1.key }.map { "\($0.value) × \($0.key)" }.joined(separator: ", ") + "; injected: "
      + installation.proxies.map(\.description).joined(separator: "; ") + "; findings: \(findings.count)"
  }

  func say(_ text: String) {
    print("torture: \(text)")
    fflush(nil)
  }

  private func note(_ action: String) {
    counts[action, default: 0] += 1
    say(action)
  }

  private func find(_ what: String) {
    findings.append(what)
    say("FINDING: \(what)")
  }

  private func random(_ range: ClosedRange<Int>) -> Int { Int.random(in: range, using: &generator) }

  func step() throws {
    switch random(1...20) {
    case 1...6: try write()
    case 7...8: try backup(isKilled: false)
    case 9...10: try backup(isKilled: true)
    case 11...12: try weather()
    case 13: try rot()
    case 14: try lose()
    case 15...16: try sync(isKilled: random(0...1) == 1)
    case 17: try crashServer()
    default: try restore()
    }
  }

  /// Fair weather, everything repaid, and a restore to the very end.
  func finish() throws {
    for proxy in installation.proxies { proxy.set(.pass) }
    try write()
    try archive()
    let outcome = try installation.run(["--json", "sync"])
    if !outcome.succeeded { find("the last sync: \(outcome.outputText) \(outcome.errorText)") }
    if firstRestorable == nil {
      try backup(isKilled: false)
      try write()
      try archive()
    }
    try check(noted.count - 1)
  }

  // MARK: Work

  private func write() throws {
    let count = random(1...40)
    for _ in 0..<count {
      rowCount += 1
      let lsn = try server.psql(
        "INSERT INTO ledger VALUES (\(rowCount), md5('\(rowCount)')); SELECT pg_current_wal_insert_lsn()")
      noted.append(Noted(rowCount: rowCount, lsn: lsn))
    }
    note("write")
  }

  /// Finishes the segment and waits until PostgreSQL knows it archived.
  private func archive() throws {
    let name = try server.psql("SELECT pg_walfile_name(pg_switch_wal())")
    let isArchived = try eventually(.seconds(120)) {
      try server.psql("SELECT coalesce(last_archived_wal, '') >= '\(name)' FROM pg_stat_archiver") == "t"
    }
    if !isArchived { find("\(name) isn't archived after two minutes") }
  }

  private func backup(isKilled: Bool) throws {
    if isKilled {
      let point = [
        "backup.before-upload", "backup.after-upload", "create.before-put", "create.after-put", "create.before-debts",
        "debt.after-record", "backup.before-manifest", "backup.after-manifest",
      ][random(0...7)]
      let outcome = try installation.run(
        ["backup"], environment: ["TIDEMARK_CRASH_AT": "\(point):\(random(1...3))"])
      note("backup killed at \(point) (\(outcome.ending))")
      return
    }
    let outcome = try installation.run(["backup"])
    note("backup (\(outcome.ending))")
    // In bad weather a backup may fail; it must say so, and a later one must succeed.
    if outcome.succeeded, firstRestorable == nil { firstRestorable = noted.count }
  }

  private func sync(isKilled: Bool) throws {
    let points = ["sync.before-copy", "sync.before-settle", "debt.before-settle"]
    let environment = isKilled ? ["TIDEMARK_CRASH_AT": points[random(0...2)]] : [:]
    let outcome = try installation.run(["sync"], environment: environment)
    note("sync (\(outcome.ending))")
  }

  // MARK: Harm

  /// Changes what one region's line does; the other one's is fair or a little rough.
  private func weather() throws {
    let victim = random(0...1)
    for (index, proxy) in installation.proxies.enumerated() {
      let mode: FaultProxy.Mode =
        if index != victim {
          random(0...1) == 0 ? .pass : .random(probability: 0.02, among: Fault.passing)
        } else {
          switch random(0...4) {
          case 0: .frozen
          case 1: .always(.reset)
          case 2: .always(.refusal(status: 503, code: "SlowDown", retryAfter: 1))
          case 3: .random(probability: 0.1, among: Fault.passing + [.spoiltAnswer])
          default: .pass
          }
        }
      proxy.set(mode)
      let name =
        if case .random(let probability, _) = mode { "\(Int(probability * 100)) % of requests" } else { "\(mode)" }
      note("weather in \(index == 0 ? "west" : "east"): \(name.replacing("TestSupport.", with: ""))")
    }
  }

  /// An object that both regions hold, the same in both.
  private func sharedObject() throws -> String? {
    let west = "\(installation.servers[0].directory)/west"
    let east = "\(installation.servers[1].directory)/east"
    let list = try ChildProcess.run("sh", ["-c", "cd \"$0\" && find . -type f -path '*/crm/*/*' | sort", west])
    let names = list.outputText.split(separator: "\n").map(String.init)
    guard let name = names.randomElement(using: &generator) else { return nil }
    guard try ChildProcess.run("cmp", ["-s", "\(west)/\(name)", "\(east)/\(name)"]).succeeded else { return nil }
    return name
  }

  private func copy(_ name: String) -> String {
    let index = random(0...1)
    return "\(installation.servers[index].directory)/\(["west", "east"][index])/\(name)"
  }

  private func rot() throws {
    guard let name = try sharedObject() else { return }
    let path = copy(name)
    var bytes = try Data(contentsOf: URL(filePath: path))
    guard !bytes.isEmpty else { return }
    bytes[random(0...(bytes.count - 1))] ^= UInt8(1 << random(0...7))
    try bytes.write(to: URL(filePath: path))
    note("rot")
    say("  a bit of \(path)")
  }

  private func lose() throws {
    guard let name = try sharedObject() else { return }
    let path = copy(name)
    try FileManager.default.removeItem(atPath: path)
    note("loss")
    say("  of \(path)")
  }

  private func crashServer() throws {
    try server.stop(.immediate)
    try server.start()
    note("crash of PostgreSQL")
  }

  // MARK: Restoring

  private func restore() throws {
    guard let first = firstRestorable, noted.count > first else { return }
    // An object that rotted in one region can't be had while the other one is away: both must be there.
    for proxy in installation.proxies { proxy.set(.random(probability: 0.03, among: Fault.passing)) }
    note("weather for a restore")
    try archive()
    try check(random(first...(noted.count - 1)))
  }

  private func check(_ index: Int) throws {
    let moment = noted[index]
    restoreCount += 1
    let target = "restored-\(restoreCount)"
    do {
      try installation.restore(target, ["--to-lsn", moment.lsn]) { query in
        let rows = try query("SELECT count(*) || ' ' || coalesce(max(id), 0) FROM ledger WHERE note = md5(id::text)")
        if rows != "\(moment.rowCount) \(moment.rowCount)" {
          self.find("a restore to \(moment.lsn) has the rows \(rows), acknowledged were \(moment.rowCount)")
        }
      }
    } catch {
      find("a restore to \(moment.lsn) failed: \(error)")
    }
    note("restore")
    _ = try ChildProcess.run(
      "rm", ["-rf", "\(installation.root)/\(target)", "\(installation.root)/\(target).tidemark"])
  }
}
