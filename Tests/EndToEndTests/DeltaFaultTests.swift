// `restore --delta` where something is in its way: a file system that begins at the target, a second restore, a full disk,
// a kill between two packs. One backup serves all of these tests.
import Foundation
import Glibc
import SystemSupport
import TestSupport
import Testing

@Suite("A delta restore with something in its way", .serialized)
struct DeltaFaultTests {
  private static let digest = "SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM t t"
  private static let shared = Result {
    let installation = try Installation(.v15, usesS3: false)
    let server = installation.server
    // Some packs' worth: what is random compresses little.
    try server.psql(
      """
      CREATE TABLE t AS SELECT g AS id, sha256(g::text::bytea) || sha256((-g)::text::bytea) AS note
        FROM generate_series(1, 300000) g;
      ALTER TABLE t ADD PRIMARY KEY (id); CHECKPOINT
      """)
    _ = try installation.json(["backup"])
    try server.psql("CREATE TABLE later AS SELECT 1 AS id")
    try installation.archiveWAL()
    let path = try server.psql("SELECT pg_relation_filepath('t')")
    return (installation: installation, digest: try server.psql(digest), table: path)
  }
  private let installation: Installation
  private let digest: String
  /// The file of table `t`, below a data directory.
  private let table: String
  private var root: String { installation.root }

  init() throws { (installation, digest, table) = try Self.shared.get() }

  private func arguments(_ target: String, _ more: String...) -> [String] {
    ["restore", "--to-backup-end", "--target-directory", target] + more
  }

  /// The bytes and requests that all regions gave.
  private func fetched(_ report: [String: Any]) throws -> (bytes: Int, requests: Int) {
    let regions = try #require(report["regions"] as? [String: [String: Any]]).values
    return (
      regions.reduce(0) { $0 + ($1["bytes"] as? Int ?? 0) }, regions.reduce(0) { $0 + ($1["requests"] as? Int ?? 0) }
    )
  }

  private func stop(_ target: String) throws {
    try installation.postgres("pg_ctl", ["stop", "-m", "fast", "-D", target])
  }

  private func expectUnstartable(_ target: String) throws {
    let start = try installation.postgres(
      "pg_ctl", ["start", "-w", "-t", "20", "-D", target, "-l", "\(root)/unstartable.log"], succeeds: false)
    #expect(!start.succeeded && !fileExists("\(target)/global/pg_control"))
  }

  @Test(
    "by root into a file system that begins at the target: its WAL stays in it, and everything is the server's user's",
    .enabled(if: SmallFileSystem.canMount, "only root can mount"))
  func mountPoint() throws {
    let target = "\(root)/mounted"
    let mounted = try SmallFileSystem(target, "size=600m")
    defer { mounted.unmount() }
    func restore(_ more: String...) throws -> [String: Any] {
      let port = String(try LoopbackPort.free())
      let outcome = try ChildProcess.run(
        installation.program,
        ["--config", installation.configuration, "--json", "restore", "--target-directory", target, "--port", port]
          + more,
        workingDirectory: "/", deadline: .after(.seconds(240)))
      try #require(outcome.succeeded, "\(outcome.errorText)")
      return try #require(try JSONSerialization.jsonObject(with: Data(outcome.output)) as? [String: Any])
    }
    func query(_ report: [String: Any], _ sql: String) throws -> String {
      try installation.query(target, try #require(report["port"] as? Int), sql)
    }
    let first = try restore("--to-latest")
    #expect(try query(first, "SELECT count(*) FROM later") == "1")
    try _ = query(first, "UPDATE t SET note = 'changed' WHERE id = 7; CREATE TABLE junk AS SELECT 1; CHECKPOINT")
    try stop(target)
    for turn in 1...2 {
      let report = try restore("--delta", "--to-latest")
      #expect(try query(report, Self.digest) == digest)
      #expect(try query(report, "SELECT to_regclass('junk') IS NULL AND to_regclass('later') IS NOT NULL") == "t")
      let delta = try #require(report["delta"] as? [String: Any])
      #expect((delta["writtenBytes"] as? Int ?? .max) * 10 < (delta["keptBytes"] as? Int ?? 0), "\(delta)")
      // Nothing can be moved out of a file system, so the WAL is kept in the directory, where PostgreSQL passes it over.
      let aside = try #require((delta["setAside"] as? [String])?.first)
      #expect(aside.hasPrefix("\(target)/pg_wal.tidemark-kept-"), "\(aside)")
      let kept = try FileManager.default.contentsOfDirectory(atPath: target).filter { $0.hasPrefix("pg_wal.") }
      #expect(kept.count == turn, "\(kept)")
      let foreign = try ChildProcess.run("find", [target, "\(target).tidemark", "!", "-user", "postgres"])
      #expect(foreign.outputText.isEmpty, "\(foreign.outputText)")
      try stop(target)
    }
  }

  @Test("of two at once the second is refused, and the first is none the worse")
  func two() throws {
    let target = "\(root)/two"
    let held = try installation.hold(at: "restore.after-pack", arguments(target, "--no-start"))
    let text = try installation.refuse(75, "locked", arguments(target, "--delta"))
    #expect(text.contains("a restore into this directory") && text.contains("\(target).tidemark/lock"), "\(text)")
    #expect(try held.finish() == .exited(0), "\(held.errorText)")
    // And two that write over what is there.
    try #require(truncate("\(target)/\(table)", 100_000) == 0)
    let second = try installation.hold(at: "restore.after-pack", arguments(target, "--no-start", "--delta"))
    try installation.refuse(75, "locked", arguments(target, "--delta"))
    #expect(try second.finish() == .exited(0), "\(second.errorText)")
    try installation.postgres("pg_verifybackup", ["-n", target])
  }

  @Test(
    "into a disk that fills up on the way: not startable, and with room it is continued",
    .enabled(if: SmallFileSystem.canMount, "only root can mount"))
  func fullDisk() throws {
    let small = try SmallFileSystem("\(root)/small", "size=400m")
    defer { small.unmount() }
    let target = "\(small.path)/data"
    _ = try installation.json(arguments(target, "--no-start"))
    try #require(truncate("\(target)/\(table)", 100_000) == 0)
    let held = try installation.hold(at: "delta.after-removal", arguments(target, "--delta", "--no-start"))
    try small.fill()
    #expect(try held.finish() == .exited(74), "\(held.errorText)")
    #expect(held.errorText.contains("No space left on device"), "\(held.errorText)")
    #expect(held.errorText.contains("repeat the restore with --delta"), "\(held.errorText)")
    try expectUnstartable(target)
    #expect(try installation.refuse(76, "target-not-empty", arguments(target)).contains("--delta"))
    // Still full: no better, and no worse.
    let again = try installation.run(arguments(target, "--delta"))
    #expect([.exited(74), .exited(76)].contains(again.ending), "\(again.ending) \(again.errorText)")
    try expectUnstartable(target)
    try small.makeRoom()
    try installation.restore("small/data", ["--to-backup-end", "--delta"]) { expectEqual(try $0(Self.digest), digest) }
  }

  @Test(
    "over a cluster in which another file system begins it is refused before anything changes",
    .enabled(if: SmallFileSystem.canMount, "only root can mount"), arguments: ["pg_wal", "base/1"])
  func mountedWithin(_ name: String) throws {
    let target = "\(root)/within"
    if !fileExists(target) { _ = try installation.json(arguments(target, "--no-start")) }
    let control = try readFile("\(target)/global/pg_control")
    let mounted = try SmallFileSystem("\(target)/\(name)", "size=1m")
    defer { mounted.unmount() }
    try DurableFile.write([7], to: "\(target)/\(name)/somebody's")
    let text = try installation.refuse(76, "target-not-empty", arguments(target, "--delta"))
    #expect(text.contains("\(target)/\(name)") && text.contains("unmount"), "\(text)")
    #expect(try readFile("\(target)/global/pg_control") == control)
    #expect(try readFile("\(target)/\(name)/somebody's") == [7])
    mounted.unmount()
    _ = try installation.json(arguments(target, "--delta", "--no-start"))
    try installation.postgres("pg_verifybackup", ["-n", target])
  }

  /// Two more regions, each at an S3 server of its own.
  @Test("killed between two packs, it fetches what is missing, and of packs that are nearly there only their frames")
  func ranges() throws {
    let (moto, rclone) = (try MotoServer(), try RcloneServer(buckets: ["rclone"]))
    try moto.createBucket("moto")
    let credentials = "\(root)/s3.credentials"
    let keys = "aws_access_key_id = \(RcloneServer.accessKey)\naws_secret_access_key = \(RcloneServer.secretKey)\n"
    try DurableFile.write(Array("[default]\n\(keys)".utf8), to: credentials)
    try PostgresServer.give(credentials)
    let east = "- {name: east, endpoint: \"file://\(root)/east\"}"
    let more = [("moto", moto.endpoint), ("rclone", rclone.endpoint)].map { name, endpoint in
      "\n    - {name: \(name), endpoint: \"\(endpoint)\", bucket: \(name), region: us-1, credentials-file: \(credentials)}"
    }
    let configuration = "\(root)/four.yaml"
    let text = String(decoding: try readFile(installation.configuration), as: UTF8.self)
    try DurableFile.write(Array(text.replacing(east, with: east + more.joined()).utf8), to: configuration, mode: 0o644)
    for command in ["init", "sync"] {
      let outcome = try installation.run([command], configuration: configuration)
      try #require(outcome.succeeded, "\(command): \(outcome.errorText)")
    }
    for region in ["moto", "rclone"] {
      let target = "\(root)/from-\(region)"
      let base = arguments(target, "--from-region", region, "--no-start")
      func restore(_ more: String...) throws -> [String: Any] {
        let outcome = try installation.run(["--json"] + base + more, configuration: configuration)
        try #require(outcome.succeeded, "\(outcome.errorText)")
        return try #require(try JSONSerialization.jsonObject(with: Data(outcome.output)) as? [String: Any])
      }
      let killed = try installation.run(
        base, environment: ["TIDEMARK_CRASH_AT": "restore.after-pack"], configuration: configuration)
      try #require(killed.ending == .signalled(SIGKILL), "\(killed.ending) \(killed.errorText)")
      try expectUnstartable(target)
      let rest = try fetched(try restore("--delta"))
      try installation.postgres("pg_verifybackup", ["-n", target])
      try FileManager.default.removeItem(atPath: target)
      let whole = try fetched(try restore())
      // One page in each MiB of the table differs, then a few alone.
      let file = try #require(FileHandle(forWritingAtPath: "\(target)/\(table)"))
      func spoil(_ places: [Int]) throws {
        for place in places {
          try file.seek(toOffset: UInt64(place))
          try file.write(contentsOf: Data(repeating: 7, count: 8192))
        }
      }
      try spoil([1 << 20, 25 << 20])
      let few = try fetched(try restore("--delta"))
      try spoil(Array(stride(from: 0, to: 30 << 20, by: 1 << 20)))
      let many = try fetched(try restore("--delta"))
      try installation.postgres("pg_verifybackup", ["-n", target])
      let text = "\(region): whole \(whole), rest \(rest), few \(few), many \(many)"
      #expect(rest.bytes * 4 < whole.bytes * 3, "\(text)")
      #expect(few.bytes * 4 < whole.bytes, "\(text)")
      // Never much more than the packs themselves, in not many more requests.
      for each in [rest, few, many] {
        #expect(each.bytes < whole.bytes + (1 << 20) && each.requests < whole.requests * 2, "\(text)")
      }
    }
  }
}
