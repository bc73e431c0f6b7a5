// `restore --delta`: over a stopped cluster of the same system identifier only what differs is fetched, nothing outside
// of it is touched, its WAL is kept, and a killed one can't be started and is continued.
import Foundation
import Glibc
import SystemSupport
import TestSupport
import Testing

@Suite("Delta restore", .serialized)
struct DeltaRestoreTests {
  private static let digest = "SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM t t"
  private static let shared = Result {
    let installation = try Installation(.v15, usesS3: false)
    // Some packs' worth: what is random compresses little.
    try installation.server.psql(
      """
      CREATE TABLE t AS SELECT g AS id, sha256(g::text::bytea) || sha256((-g)::text::bytea) AS note
        FROM generate_series(1, 400000) g;
      ALTER TABLE t ADD PRIMARY KEY (id); CHECKPOINT
      """)
    _ = try installation.json(["backup"])
    return (installation: installation, digest: try installation.server.psql(digest))
  }
  private let installation: Installation
  private let digest: String
  private var root: String { installation.root }

  init() throws { (installation, digest) = try Self.shared.get() }

  private func arguments(_ target: String, _ more: String...) -> [String] {
    ["restore", "--to-backup-end", "--target-directory", target] + more
  }

  /// The bytes that all regions gave.
  private func fetched(_ report: [String: Any]) throws -> Int {
    let regions = try #require(report["regions"] as? [String: [String: Any]])
    return regions.values.reduce(0) { $0 + ($1["bytes"] as? Int ?? 0) }
  }

  /// Every file below `directory`, with its digest.
  private func contents(_ directory: String) throws -> String {
    try ChildProcess.run(
      "/bin/sh",
      ["-c", "cd \"$1\" && find . | sort && find . -type f -print0 | sort -z | xargs -0 -r sha256sum", "sh", directory]
    ).outputText
  }

  private func put(_ text: String, at path: String) throws {
    try DurableFile.write(Array(text.utf8), to: path)
    try PostgresServer.give(path)
  }

  /// Starts the restored cluster by itself, runs `body`, and stops it.
  private func running(_ target: String, _ body: (PostgresServer) throws -> Void) throws {
    let server = try installation.cluster(at: target, settings: ["archive_mode": "off"])
    try server.start()
    defer { _ = try? server.stop() }
    try #require(try eventually(.seconds(60)) { try server.psql("SELECT pg_is_in_recovery()") == "f" })
    try body(server)
  }

  private func expectUnstartable(_ target: String, _ point: String) throws {
    let start = try installation.postgres(
      "pg_ctl", ["start", "-w", "-t", "20", "-D", target, "-l", "\(root)/unstartable.log"], succeeds: false)
    #expect(!start.succeeded, "\(point)")
    #expect(!fileExists("\(target)/global/pg_control"), "\(point)")
  }

  @Test("only what differs is fetched, what the backup lacks goes, and the WAL that was there is kept")
  func differing() throws {
    let target = "\(root)/cluster"
    let full = try installation.restore("cluster", ["--to-backup-end"]) { expectEqual(try $0(Self.digest), digest) }
    try running(target) { server in
      try server.psql("UPDATE t SET note = 'changed' WHERE id IN (7, 250000); CREATE TABLE junk AS TABLE t; CHECKPOINT")
    }
    let report = try installation.json(arguments(target, "--delta", "--no-start"))
    let delta = try #require(report["delta"] as? [String: Any])
    let (kept, written) = (try #require(delta["keptBytes"] as? Int), try #require(delta["writtenBytes"] as? Int))
    #expect(kept + written == report["bytes"] as? Int)
    #expect(written * 20 < kept, "\(delta)")
    let bytes = (full: try fetched(full), delta: try fetched(report))
    #expect(bytes.delta * 4 < bytes.full, "\(bytes)")
    #expect(delta["removedFiles"] as? Int ?? 0 >= 2 && !fileExists("\(target)/postmaster.opts"))
    // It may be the only copy.
    let aside = try #require((delta["setAside"] as? [String])?.first)
    let segments = try FileManager.default.contentsOfDirectory(atPath: aside).filter { $0.count == 24 }
    #expect(!segments.isEmpty && aside.hasPrefix("\(target).tidemark/"))
    #expect((report["remarks"] as? [String])?.contains { $0.contains(aside) } == true)
    #expect(try FileManager.default.contentsOfDirectory(atPath: "\(target)/pg_wal") == ["archive_status"])
    try installation.postgres("pg_verifybackup", ["-n", target])
    try running(target) { server in
      let found = (try server.psql(Self.digest), try server.psql("SELECT to_regclass('junk') IS NULL"))
      #expect(found == (digest, "t"))
    }
    // And once more, with the server started and nothing changed but by its run.
    try installation.restore("cluster", ["--to-backup-end", "--delta"]) { expectEqual(try $0(Self.digest), digest) }
  }

  @Test("what lies behind a link or under a second name isn't touched; cut, grown and replaced files are as they were")
  func planted() throws {
    let target = "\(root)/planted"
    try installation.restore("planted", ["--to-backup-end"]) { _ in }
    let table = try #require(try relation(target))
    let outside = "\(root)/outside"
    try DurableFile.createDirectories("\(outside)/1")
    try put("untouched", at: "\(outside)/1/PG_VERSION")
    try put("untouched", at: "\(outside)/file")
    try PostgresServer.give(outside)
    try PostgresServer.give("\(outside)/1")
    try #require(link("\(target)/global/pg_filenode.map", "\(outside)/hard") == 0)
    let before = try contents(outside)
    for (path, place) in [("base/1", "1"), ("PG_VERSION", "file"), ("base/4/1247", "file")] {
      rename("\(target)/\(path)", "\(root)/replaced-\(baseName(path))")
      try #require(symlink("\(outside)/\(place)", "\(target)/\(path)") == 0)
    }
    try #require(symlink(outside, "\(target)/extra-link") == 0)
    try put("x", at: "\(target)/base/4/99999")
    try DurableFile.createDirectories("\(target)/base/4/1249.new/below")
    try put("x", at: "\(target)/base/4/1249.new/below/file")
    unlink("\(target)/base/4/1249")
    rename("\(target)/base/4/1249.new", "\(target)/base/4/1249")
    try PostgresServer.give("\(target)/base/4/1249")
    try PostgresServer.give("\(target)/base/4/1249/below")
    // A name that isn't UTF-8.
    _ = try ChildProcess.run("/bin/sh", ["-c", "touch \"$(printf '%s/\\377\\376' \"$1\")\"", "sh", target])
    var status = stat()
    try #require(stat(table, &status) == 0 && truncate(table, status.st_size - 3 * 8192 - 100) == 0)
    let grown = try #require(FileHandle(forWritingAtPath: "\(target)/pg_xact/0000"))
    try grown.seekToEnd()
    try grown.write(contentsOf: Data(repeating: 7, count: 100_000))
    try grown.close()
    let report = try installation.json(arguments(target, "--delta", "--no-start"))
    #expect((report["delta"] as? [String: Any])?["removedFiles"] as? Int ?? 0 >= 3)
    #expect(try contents(outside) == before)
    let odd = try ChildProcess.run(
      "find", [target, "-perm", "/7022", "-o", "-type", "l", "-o", "-links", "+1", "-type", "f"])
    #expect(odd.outputText.isEmpty, "\(odd.outputText)")
    // Nothing more, nothing less, and every file as in the backup.
    try installation.postgres("pg_verifybackup", ["-n", target])
    try running(target) { server in
      let found = try server.psql(Self.digest)
      #expect(found == digest)
    }
  }

  /// The file of table `t`.
  private func relation(_ target: String) throws -> String? {
    var path: String?
    try running(target) { path = "\(target)/\(try $0.psql("SELECT pg_relation_filepath('t')"))" }
    return path
  }

  @Test(
    "killed, it can't be started, a restore without --delta is refused, and it is continued",
    arguments: [
      "restore.after-mark", "delta.after-control-file-aside", "delta.after-wal-aside", "delta.after-marking",
      "delta.after-removal", "restore.before-control-file", "restore.after-control-file",
    ])
  func killed(_ point: String) throws {
    let target = "\(root)/killed"
    if !fileExists(target) { try installation.restore("killed", ["--to-backup-end"]) { _ in } }
    try running(target) { server in
      try server.psql("UPDATE t SET note = 'x' WHERE id % 100000 = 1; CREATE TABLE junk AS SELECT 1")
    }
    let wal = try contents("\(target)/pg_wal")
    let outcome = try installation.run(
      arguments(target, "--delta"), environment: ["TIDEMARK_CRASH_AT": point])
    try #require(outcome.ending == .signalled(SIGKILL), "\(point): \(outcome.ending) \(outcome.errorText)")
    let isWhole = ["restore.after-mark", "restore.after-control-file"].contains(point)
    #expect(fileExists("\(target)/global/pg_control") == isWhole)
    if !isWhole { try expectUnstartable(target, point) }
    let text = try installation.refuse(76, "target-not-empty", arguments(target))
    #expect(text.contains("--delta"), "\(text)")
    let report = try installation.restore("killed", ["--to-backup-end", "--delta"]) { query in
      expectEqual(try query(Self.digest), digest, point)
      expectEqual(try query("SELECT to_regclass('junk') IS NULL"), "t", point)
    }
    // Also what the killed one set aside is told.
    let aside = try #require((report["delta"] as? [String: Any])?["setAside"] as? [String])
    #expect(try aside.contains { try contents($0) == wal }, "\(point): \(aside)")
    #expect(!fileExists("\(target).tidemark/unfinished"))
  }

  @Test("a killed restore into an empty directory is continued as well, and what it fetched isn't fetched again")
  func continued() throws {
    let target = "\(root)/continued"
    let killed = try installation.run(
      arguments(target), environment: ["TIDEMARK_CRASH_AT": "restore.before-control-file"])
    try #require(killed.ending == .signalled(SIGKILL), "\(killed.errorText)")
    let report = try installation.restore("continued", ["--to-backup-end", "--delta"]) { query in
      expectEqual(try query(Self.digest), digest)
    }
    let delta = try #require(report["delta"] as? [String: Any])
    #expect((delta["writtenBytes"] as? Int ?? .max) * 20 < (delta["keptBytes"] as? Int ?? 0), "\(delta)")
  }

  @Test("a damaged copy is passed over and mended where only a part of it is fetched, too")
  func damaged() throws {
    let target = "\(root)/damaged"
    try installation.restore("damaged", ["--to-backup-end"]) { _ in }
    let table = try #require(try relation(target))
    let good = try installation.objects().filter { $0.key.contains("/packs/") }
    var events: Set<String> = []
    // Which region is asked first depends on how fast they were: of two packs in a row one is damaged here, one there.
    for turn in 0..<3 where events.isEmpty {
      for (index, region) in ["west", "east"].enumerated() {
        for (number, pack) in try installation.stored("/packs/", in: region).enumerated() where number % 2 == index {
          var bytes = try Data(contentsOf: URL(filePath: pack))
          // A byte of every frame, but neither head nor end.
          for offset in stride(from: 16 << 10, to: bytes.count - (16 << 10), by: 2048) { bytes[offset] ^= 1 }
          try bytes.write(to: URL(filePath: pack))
          try PostgresServer.give(pack)
        }
      }
      let file = try #require(FileHandle(forWritingAtPath: table))
      for place in stride(from: 1 + turn, to: 40, by: 6) {
        try file.seek(toOffset: UInt64(place) << 20)
        try file.write(contentsOf: Data(repeating: 0, count: 8192))
      }
      try file.close()
      let report = try installation.restore("damaged", ["--to-backup-end", "--delta"]) { query in
        expectEqual(try query(Self.digest), digest)
      }
      events.formUnion(try #require(report["events"] as? [[String: Any]]).compactMap { $0["kind"] as? String })
      // For the next turn and the other tests, what wasn't met.
      _ = try installation.json(["verify"], allowsFindings: true)
    }
    #expect(events == ["damaged", "mended"])
    let now = try installation.objects()
    for (name, sum) in good { #expect(now[name] == sum, "\(name)") }
  }

  @Test("what isn't the stopped cluster's own directory is refused, and nothing in it changes")
  func refused() throws {
    func expectUnchanged(_ directory: String, _ body: () throws -> Void) throws {
      let before = try contents(directory)
      try body()
      #expect(try contents(directory) == before, "\(directory)")
    }
    // Another cluster.
    let other = try PostgresServer(.v15)
    try other.stop()
    try expectUnchanged(other.dataDirectory) {
      let text = try installation.refuse(76, "system-identifier-foreign", arguments(other.dataDirectory, "--delta"))
      #expect(text.contains("--system-identifier"), "\(text)")
    }
    // No cluster's: without a control file, with a spoilt one, and with one behind a link.
    let strange = "\(root)/strange"
    try DurableFile.createDirectories("\(strange)/global")
    try put("15\n", at: "\(strange)/PG_VERSION")
    try PostgresServer.give("\(strange)/global")
    try PostgresServer.give(strange)
    try expectUnchanged(strange) {
      try installation.refuse(76, "target-not-empty", arguments(strange, "--delta"))
    }
    try put(String(repeating: "x", count: 8192), at: "\(strange)/global/pg_control")
    try expectUnchanged(strange) {
      try installation.refuse(76, "wal-file-invalid", arguments(strange, "--delta"))
    }
    unlink("\(strange)/global/pg_control")
    symlink("\(installation.server.dataDirectory)/global/pg_control", "\(strange)/global/pg_control")
    try expectUnchanged(strange) {
      try installation.refuse(76, "target-not-empty", arguments(strange, "--delta"))
    }
    symlink(strange, "\(root)/strange-link")
    try installation.refuse(76, "target-not-empty", arguments("\(root)/strange-link", "--delta"))
    // A running one, also when its file is gone.
    let target = "\(root)/runs"
    try installation.restore("runs", ["--to-backup-end"]) { query in
      let control = try readFile("\(target)/global/pg_control")
      let pid = try readFile("\(target)/postmaster.pid")
      try installation.refuse(76, "target-in-use", arguments(target, "--delta"))
      unlink("\(target)/postmaster.pid")
      try installation.refuse(76, "target-in-use", arguments(target, "--delta"))
      try put(String(decoding: pid, as: UTF8.self), at: "\(target)/postmaster.pid")
      #expect(try readFile("\(target)/global/pg_control") == control)
      expectEqual(try query(Self.digest), digest)
    }
    // A number that is another process's by now is no server.
    let sleep = PostgresServer.unprivileged("/bin/sleep", ["60"])
    let child = try ChildProcess(sleep[0], Array(sleep.dropFirst()))
    defer { _ = try? child.kill() }
    try put("\(child.pid)\n\(target)\n", at: "\(target)/postmaster.pid")
    let stale = try eventually { try installation.run(arguments(target, "--delta", "--plan-only")).succeeded }
    #expect(stale)
    unlink("\(target)/postmaster.pid")
  }
}
