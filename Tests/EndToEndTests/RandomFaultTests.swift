// The whole work with faults on every line, at random from a seed: what is acknowledged is there in the end, and what is
// restored is what was written. TIDEMARK_FAULT_SEED repeats a run as far as threads allow.
import Foundation
import SystemSupport
import TestSupport
import Testing

@Suite("Random faults")
struct RandomFaultTests {
  private static let digest = "SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM t"

  @Test("backup, wal-push, wal-fetch, sync and restore get over faults on both regions' lines")
  func everything() throws {
    let seed =
      ProcessInfo.processInfo.environment["TIDEMARK_FAULT_SEED"].flatMap { UInt64($0) } ?? .random(in: 1...999_999)
    print("random faults come from seed \(seed): TIDEMARK_FAULT_SEED repeats them")
    let installation = try Installation(.v15, usesS3: true, degradeAfter: "5s", isFaulty: true, seed: seed)
    let server = installation.server
    try server.psql("CREATE TABLE t AS SELECT g AS id, md5(g::text) AS note FROM generate_series(1, 20000) g")
    for proxy in installation.proxies {
      proxy.set(.random(probability: 0.12, among: Fault.passing + [.spoiltAnswer]))
    }
    func injected() -> String { installation.proxies.map(\.description).joined(separator: "; ") }

    _ = try installation.json(["backup"])
    try server.psql("INSERT INTO t SELECT g, 'between' FROM generate_series(20001, 21000) g")
    try installation.archiveWAL()
    _ = try installation.json(["backup"])
    try server.psql("INSERT INTO t SELECT g, 'after' FROM generate_series(21001, 22000) g")
    let expected = try server.psql(Self.digest)
    let name = try server.psql("SELECT pg_walfile_name(pg_current_wal_lsn())")
    let original = try Data(contentsOf: URL(filePath: "\(server.dataDirectory)/pg_wal/\(name)")).prefix(8192)
    try installation.archiveWAL()

    let fetched = "\(installation.root)/fetched"
    try FileManager.default.createDirectory(atPath: "\(fetched)/global", withIntermediateDirectories: true)
    try FileManager.default.createDirectory(atPath: "\(fetched)/pg_wal", withIntermediateDirectories: true)
    try FileManager.default.copyItem(
      atPath: "\(server.dataDirectory)/global/pg_control", toPath: "\(fetched)/global/pg_control")
    try PostgresServer.give(fetched)
    let fetch = try installation.run(["wal-fetch", name, "\(fetched)/pg_wal/RECOVERYXLOG"])
    #expect(fetch.succeeded, "\(fetch.errorText) \(injected())")
    let copy = try Data(contentsOf: URL(filePath: "\(fetched)/pg_wal/RECOVERYXLOG"))
    #expect(copy.prefix(8192) == original)

    // The end of the archive is known only when both regions could be asked; the transaction's place is known.
    try installation.restore("restored", ["--to-latest"]) { query in
      let rows = try query(Self.digest)
      #expect(rows == expected, "\(injected())")
    }
    _ = try installation.run(["sync"])
    let injectedCount = installation.proxies.reduce(0) { $0 + $1.injected.values.reduce(0, +) }
    #expect(injectedCount > 5, "\(injected())")

    for proxy in installation.proxies { proxy.set(.pass) }
    let report = try installation.json(["sync"])
    #expect(report["findings"] as? [String] == [], "\(injected())")
    let difference = try ChildProcess.run(
      "diff",
      ["-rq", "-x", "probes", "\(installation.servers[0].directory)/west", "\(installation.servers[1].directory)/east"])
    #expect(difference.succeeded, "\(difference.outputText) \(injected())")
    for region in ["west", "east"] {
      try installation.restore("from-\(region)", ["--to-latest", "--from-region", region]) { query in
        let rows = try query(Self.digest)
        #expect(rows == expected, "\(injected())")
      }
    }
  }
}
