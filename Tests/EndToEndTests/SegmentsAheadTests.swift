// Segments that `wal-fetch` leaves a process behind to fetch, and what may happen to them before they are asked for.
import Foundation
import Glibc
import SystemSupport
import TestSupport
import Testing

extension Installation {
  /// A copy of the configuration in which servers that ask by themselves have `walAhead` segments fetched ahead.
  func configuration(walAhead: Int) throws -> String {
    let path = "\(root)/ahead-\(walAhead).yaml"
    let text = String(decoding: try readFile(configuration), as: UTF8.self) + "limits: {wal-ahead: \(walAhead)}\n"
    try DurableFile.write(Array(text.utf8), to: path, mode: 0o644)
    try PostgresServer.give(path)
    return path
  }
}

@Suite("Segments that are fetched ahead", .serialized)
struct SegmentsAheadTests {
  private static let aheadCount = 3
  private let installation: Installation
  private let configuration: String
  /// As PostgreSQL asks for them, with what they hold.
  private let segments: [String]
  private var root: String { installation.root }
  private var wal: String { "\(installation.server.dataDirectory)/pg_wal" }
  private var target: String { "\(wal)/RECOVERYXLOG" }

  init() throws {
    installation = try Installation(.v15, usesS3: false)
    configuration = try installation.configuration(walAhead: Self.aheadCount)
    let server = installation.server
    // So that what was archived stays for the comparison.
    try server.psql("ALTER SYSTEM SET wal_keep_size = '1GB'")
    try server.psql("SELECT pg_reload_conf()")
    var names: [String] = []
    for id in 1...7 {
      try server.psql("CREATE TABLE t\(id) AS SELECT generate_series(1, 100) AS id")
      names.append(try server.psql("SELECT pg_walfile_name(pg_current_wal_lsn())"))
      try server.psql("SELECT pg_switch_wal()")
    }
    segments = names
    try installation.archiveWAL()
  }

  /// The directory in which they lie; `nil` before there is one.
  private var directory: String? {
    (try? directoryEntries("\(root)/state/ahead"))?.first.map { "\(root)/state/ahead/\($0)" }
  }

  private func ready() throws -> [String] {
    guard let directory else { return [] }
    return try directoryEntries(directory).filter { $0.count == 24 }.sorted()
  }

  private func fetch(_ index: Int) throws -> ProgramOutcome {
    try installation.run(["wal-fetch", segments[index], target], configuration: configuration)
  }

  /// Fetches the segment and compares it with the server's own.
  @discardableResult
  private func fetchWell(_ index: Int, location: SourceLocation = #_sourceLocation) throws -> ProgramOutcome {
    unlink(target)
    let outcome = try fetch(index)
    #expect(outcome.succeeded, "\(outcome.errorText)", sourceLocation: location)
    #expect(try readFile(target) == readFile("\(wal)/\(segments[index])"), sourceLocation: location)
    return outcome
  }

  private func waitForReady(_ indexes: ClosedRange<Int>, location: SourceLocation = #_sourceLocation) throws {
    // Beside what was fetched and not taken before, and what was archived since.
    let isReady = try eventually(.seconds(60)) { try !isAtWork() && Set(ready()).isSuperset(of: segments[indexes]) }
    let found = try ready()
    try #require(isReady, "\(found)", sourceLocation: location)
  }

  private func isAtWork() -> Bool {
    guard let directory, let descriptor = try? OpenFile("\(directory)/lock", O_RDONLY) else { return false }
    return flock(descriptor.descriptor, LOCK_SH | LOCK_NB) != 0
  }

  private func move(regionsTo suffix: String, from old: String = "") throws {
    for region in ["west", "east"] {
      try FileManager.default.moveItem(atPath: "\(root)/\(region)\(old)", toPath: "\(root)/\(region)\(suffix)")
    }
  }

  @Test("they are taken without the regions, and what doesn't lie ready isn't absent for that")
  func taken() throws {
    try fetchWell(0)
    try waitForReady(1...3)
    try move(regionsTo: "-away")
    for index in 1...3 { try fetchWell(index) }
    // What was left behind gives up before long.
    try #require(try eventually(.seconds(60)) { !isAtWork() })
    // Nobody can be asked for the next one, which isn't absent for that (trap 23): it waits for the regions.
    unlink(target)
    let waiting = WorkerThread<ProgramOutcome>("fetch") { [self] in try fetch(4) }
    usleep(700_000)
    #expect(!fileExists(target))
    try move(regionsTo: "", from: "-away")
    let outcome = try waiting.join()
    #expect(outcome.succeeded, "\(outcome.errorText)")
    #expect(try readFile(target) == readFile("\(wal)/\(segments[4])"))
    // The archive's end: what is there lies ready, and the segment after it is proven absent.
    try waitForReady(5...6)
    for index in 5...6 { try fetchWell(index) }
    let next = "00000001000000000000007F"
    #expect(try installation.run(["wal-fetch", next, target], configuration: configuration).ending == .exited(1))
  }

  @Test("what a crash left, what is too old and what is foreign is fetched anew")
  func spoilt() throws {
    try fetchWell(0)
    try waitForReady(1...3)
    let directory = try #require(directory)
    let good = try readFile("\(directory)/\(segments[2])")
    // Pages that never came to the disk, a cut file, another segment's content, and an old one with a mark inside.
    var marked = good
    marked[marked.count - 1] ^= 1
    for (name, bytes, age) in [
      ("zeros", [UInt8](repeating: 0, count: good.count), 0), ("cut", Array(good[..<100]), 0),
      ("short", Array(good[..<(1 << 20)]), 0), ("another", try readFile("\(wal)/\(segments[3])"), 0),
      ("old", marked, 3600),
    ] {
      let path = "\(directory)/\(segments[2])"
      try DurableFile.write(bytes, to: path)
      try PostgresServer.give(path)
      if age > 0 {
        var times = [timeval(tv_sec: time(nil) - age, tv_usec: 0), timeval(tv_sec: time(nil) - age, tv_usec: 0)]
        try #require(utimes(path, &times) == 0)
      }
      unlink(target)
      let outcome = try fetch(2)
      #expect(outcome.succeeded, "\(name): \(outcome.errorText)")
      #expect(try readFile(target) == good, "\(name)")
    }
  }

  @Test("a fetch waits for a segment that is on its way, and not for one whose process died")
  func waits() throws {
    let data = installation.server.dataDirectory
    // Of one at a time, so that it is known which one the held process is at.
    let configuration = try installation.configuration(walAhead: 1)
    @Sendable func fetch(_ index: Int) throws -> ProgramOutcome {
      try installation.run(["wal-fetch", segments[index], target], configuration: configuration)
    }
    func begin() throws -> HeldRun {
      try installation.hold(
        at: "ahead.before-rename", ["wal-fetch-ahead", segments[0], data], configuration: configuration)
    }
    // Makes the directory.
    #expect(try fetch(0).succeeded)
    try waitForReady(1...1)
    let directory = try #require(directory)
    for name in try ready() { unlink("\(directory)/\(name)") }

    var held = try begin()
    // A second one leaves it to the first.
    let second = try installation.run(["wal-fetch-ahead", segments[0], data], configuration: configuration)
    #expect(second.succeeded, "\(second.errorText)")
    unlink(target)
    let waiting = WorkerThread<ProgramOutcome>("fetch") { try fetch(1) }
    usleep(700_000)
    #expect(!fileExists(target))
    #expect(try held.finish() == .exited(0))
    #expect(try waiting.join().succeeded)
    #expect(try readFile(target) == readFile("\(wal)/\(segments[1])"))

    try #require(try eventually { !isAtWork() })
    for name in try ready() { unlink("\(directory)/\(name)") }
    held = try begin()
    // The server that waits is told to stop: nothing is handed over to the next one.
    unlink(target)
    let log = "\(root)/stopped.log"
    let command = PostgresServer.unprivileged(
      installation.program, ["--config", configuration, "wal-fetch", segments[1], target])
    let stopped = try ChildProcess(
      command[0], Array(command.dropFirst()), workingDirectory: "/", output: .null, error: .file(log))
    usleep(500_000)
    stopped.signal(SIGTERM)
    #expect(try stopped.wait(until: .after(.seconds(30))) == .exited(202))
    #expect(try !directoryEntries(wal).contains { $0.hasPrefix("RECOVERYXLOG") })

    held.process.signal(SIGKILL)
    #expect(try held.finish() == .signalled(SIGKILL))
    let begun = ContinuousClock.now
    #expect(try fetch(1).succeeded)
    #expect(ContinuousClock.now - begun < .seconds(5))
    #expect(try readFile(target) == readFile("\(wal)/\(segments[1])"))
    // The next one clears up what the killed one left.
    try waitForReady(2...2)
    #expect(try !directoryEntries(directory).contains { $0.hasSuffix(".incoming") })
  }

  @Test(
    "from another file system they are copied, and where there is too little room none are fetched",
    .enabled(if: SmallFileSystem.canMount, "only root can mount the small file systems of this test"))
  func otherFileSystem() throws {
    for (size, hasRoom) in [("1g", true), ("64m", false)] {
      let state = try SmallFileSystem("\(root)/state", "size=\(size)")
      defer { state.unmount() }
      try fetchWell(0)
      if hasRoom {
        try waitForReady(1...3)
        try move(regionsTo: "-away")
        try fetchWell(1)
        #expect(try !ready().contains(segments[1]))
        try move(regionsTo: "", from: "-away")
      } else {
        try #require(try eventually { directory.map { fileExists("\($0)/lock") } == true && !isAtWork() })
        #expect(try ready().isEmpty)
        try fetchWell(1)
      }
      try #require(try eventually(.seconds(60)) { !isAtWork() })
    }
  }

  @Test("damage that is met ahead is told by the next fetch, and what is damaged is never given")
  func damage() throws {
    for region in ["west", "east"] {
      let path = try #require(try installation.stored(segments[2], in: region).first)
      var bytes = try readFile(path)
      bytes[bytes.count / 2] ^= 1
      try DurableFile.write(bytes, to: path)
      try PostgresServer.give(path)
    }
    try fetchWell(0)
    try #require(try eventually(.seconds(60)) { try ready().contains(segments[1]) && !isAtWork() })
    #expect(try !ready().contains(segments[2]))
    let told = try fetchWell(1).errorText
    #expect(told.contains("damaged") && told.contains(segments[2]), "\(told)")
    unlink(target)
    #expect(try fetch(2).ending == .exited(201))
    #expect(!fileExists(target))
  }
}
