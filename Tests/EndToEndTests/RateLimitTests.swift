// Limits on bytes per second, as measured from outside: what the regions got, in how long. Never more than the limit, and
// no slower than the work without one and the bytes at the limit take together.
import Foundation
import SystemSupport
import TestSupport
import Testing

@Suite("Rate limits", .serialized)
struct RateLimitTests {
  private static let rate = 4 << 20

  private func timed<Result>(_ body: () throws -> Result) rethrows -> (Result, seconds: Double) {
    let start = ContinuousClock.now
    let result = try body()
    return (result, (ContinuousClock.now - start).seconds)
  }

  @Test("backup and sync send, and verify reads, no faster than they may and hardly slower; a restore isn't held up")
  func limits() throws {
    let installation = try Installation(.v15, usesS3: true)
    let configuration = String(decoding: try readFile(installation.configuration), as: UTF8.self)
    func limit(_ rate: Int) throws {
      try DurableFile.write(
        Array((configuration + "limits: {upload-rate: \(rate)}\n").utf8), to: installation.configuration, mode: 0o644)
    }
    // Digests don't compress.
    try installation.server.psql(
      """
      CREATE TABLE t AS SELECT g AS id, sha256(g::text::bytea) || sha256((-g)::text::bytea) AS noise
        FROM generate_series(1, 70000) g
      """)
    _ = try installation.json(["backup"])
    let (free, freeSeconds) = try timed { try installation.json(["backup", "--full"]) }
    let stored = try #require(free["storedBytes"] as? Double)
    #expect(stored > 6_000_000)

    try limit(Self.rate)
    let (backup, seconds) = try timed { try installation.json(["backup", "--full"]) }
    let sent = try #require(backup["storedBytes"] as? Double) * 2
    let due = sent / Double(Self.rate)
    #expect(due > 2)
    // The clock runs for the whole program; what isn't packs and file tables takes no part in the limit.
    #expect(seconds >= due * 0.98, "\(sent) bytes in \(seconds) s")
    #expect(
      seconds <= due * 1.3 + freeSeconds * 3 + 3, "\(sent) bytes in \(seconds) s, \(freeSeconds) s without a limit")
    // Only what is new is sent, so little of it takes little time, however much is read.
    let (small, smallSeconds) = try timed { try installation.json(["backup"]) }
    #expect(try #require(small["storedBytes"] as? Double) * 2 < sent / 4)
    #expect(smallSeconds < due, "\(smallSeconds) s")

    // A restore reads more than a second's worth.
    let (_, restoreSeconds) = try timed {
      try installation.restore("restored", ["--to-backup-end"]) { query in
        expectEqual(try query("SELECT count(*) FROM t"), "70000")
      }
    }
    #expect(restoreSeconds < freeSeconds + due + 10)

    // WAL is never held up: 16 MiB at this rate would take half a minute.
    try limit(1 << 20)
    try installation.server.psql("INSERT INTO t SELECT id, sha256(noise) || noise FROM t LIMIT 20000")
    let (_, archiveSeconds) = try timed { try installation.archiveWAL() }
    #expect(archiveSeconds < 10)

    try limit(Self.rate)
    let (verified, verifySeconds) = try timed {
      try installation.json(["verify", "--rate-limit", "8MiB"])
    }
    let read = try #require((verified["counts"] as? [String: Any])?["bytes"] as? Double)
    let readDue = read / Double(8 << 20)
    #expect(
      verifySeconds >= readDue * 0.98 && verifySeconds <= readDue * 1.3 + 6, "\(read) bytes in \(verifySeconds) s")

    // The region lost what it had of the newest full backup.
    let label = try #require(backup["label"] as? String)
    let packs = try FileManager.default.subpathsOfDirectory(atPath: installation.servers[1].directory)
      .filter { $0.contains("/packs/\(label)/") }.map { "\(installation.servers[1].directory)/\($0)" }
      .filter { !isDirectory($0) }
    try #require(!packs.isEmpty)
    for pack in packs { try FileManager.default.removeItem(atPath: pack) }
    let (synced, syncSeconds) = try timed { try installation.json(["sync"]) }
    let copied = try #require(synced["copiedBytes"] as? Double)
    #expect(copied > sent / 4 && synced["findings"] as? [String] == [], "\(synced)")
    let copyDue = copied / Double(Self.rate)
    #expect(syncSeconds >= copyDue * 0.98 && syncSeconds <= copyDue * 1.3 + 6, "\(copied) bytes in \(syncSeconds) s")
  }
}
