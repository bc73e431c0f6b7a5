// The alert rules: promtool's own tests, that every metric they name is documented, and real failures that make them fire
// in a real Prometheus, by the files that real commands left.
import Foundation
import Glibc
import SystemSupport
import TestSupport
import Testing

@Suite("Alerts", .serialized)
struct AlertTests {
  private static let directory = "\(TestTools.packageRoot)/policies/alerts"

  @Test("promtool accepts the rules, and their unit tests pass")
  func promtool() throws {
    for arguments in [["check", "rules", "tidemark.yaml"], ["test", "rules", "tests.yaml"]] {
      let outcome = try ChildProcess.run(
        "promtool", arguments, workingDirectory: Self.directory, deadline: .after(.seconds(120)))
      #expect(outcome.succeeded, "\(outcome.outputText)\(outcome.errorText)")
    }
  }

  @Test("every metric in the rules and in the dashboard is one that docs/metrics.md describes")
  func documented() throws {
    let document = try String(contentsOfFile: "\(TestTools.packageRoot)/docs/metrics.md", encoding: .utf8)
    for file in ["tidemark.yaml", "grafana-dashboard.json"] {
      let text = try String(contentsOfFile: "\(Self.directory)/\(file)", encoding: .utf8)
      let names = Set(text.matches(of: /\btidemark_[a-z_]+/).map { String($0.output) })
      #expect(names.count >= 10)
      for name in names { #expect(document.contains("`\(name)"), "\(name) of \(file)") }
      if file.hasSuffix(".json") { _ = try JSONSerialization.jsonObject(with: Data(text.utf8)) }
    }
  }

  @Test("each alert is silent while all is well, and a real failure makes it fire") func realFailures() throws {
    let world = try WatchedInstallation(Self.directory)
    let (installation, prometheus, root) = (world.installation, world.prometheus, world.installation.root)
    try installation.server.psql("CREATE TABLE campaigns AS SELECT 1 AS id")
    _ = try installation.json(["backup"])
    try installation.archiveWAL()
    for command in ["check", "sync", "verify", "drill"] { _ = try installation.json([command]) }
    for metric in ["tidemark_drill_rpo_seconds", "tidemark_objective_rto_seconds", "probe_ssl_earliest_cert_expiry"] {
      let isThere = try eventually(.seconds(60)) { try prometheus.has(metric) }
      #expect(isThere, "\(metric)")
    }
    try world.expectQuiet()

    try regionsAway(world)
    try certificateEnds(world)
    try badDrill(world)
    try damagedPages(world)

    // A copy is gone in one region: verify mends it, and says so. A gap: a segment is gone in both.
    try installation.archiveWAL()
    func remove(_ part: String, _ regions: [String]) throws {
      let all = try ChildProcess.run("find", ["\(root)/east", "-path", "*/\(part)/*", "-type", "f"]).outputText
      let last = String(try #require(all.split(separator: "\n").max()))
      for region in regions {
        try FileManager.default.removeItem(atPath: last.replacing("\(root)/east", with: "\(root)/\(region)"))
      }
    }
    try remove("packs", ["east"])
    let mended = try installation.json(["verify"], allowsFindings: true)
    #expect(mended["ok"] as? Bool == false)
    try world.expect(["Findings of verify"])
    _ = try installation.json(["verify"])
    try world.expectQuiet()
    try remove("wal", ["east", "west"])
    try installation.archiveWAL()
    let gap = try installation.json(["check"], allowsFindings: true)
    #expect(gap["ok"] as? Bool == false)
    try world.expect(["Findings of check"])
    #expect(world.seen == (try world.allAlerts()))
  }

  /// One region goes away, and archiving goes on with debts; then both, and nothing is archived or backed up any more.
  private func regionsAway(_ world: WatchedInstallation) throws {
    let (installation, root) = (world.installation, world.installation.root)
    func move(_ from: String, _ to: String) throws {
      try FileManager.default.moveItem(atPath: "\(root)/\(from)", toPath: "\(root)/\(to)")
    }
    try move("east", "away")
    try installation.archiveWAL()
    try world.expect(["RegionBehind"])
    // The metric says for how long when a command ends.
    try world.expect(["RegionFailing"], short: true) { _ = try installation.run(["sync"]) }
    try move("west", "away-west")
    let backup = try installation.run(["backup"])
    #expect(!backup.succeeded)
    let segment = try installation.server.psql("SELECT pg_walfile_name(pg_current_wal_lsn())")
    _ = try installation.run(["wal-push", "\(installation.server.dataDirectory)/pg_wal/\(segment)"])
    try world.expect(["BackupFailed", "ArchivingFails"])
    try world.expect(["BackupTooOld", "ArchivingStalled"], short: true)
    try move("away-west", "west")
    try move("away", "east")
    _ = try installation.json(["sync"])
    _ = try installation.json(["backup"])
    try installation.archiveWAL()
    try world.expectEnd(["BackupTooOld", "ArchivingStalled", "RegionFailing"], short: true)
    try world.expectQuiet()
  }

  private func certificateEnds(_ world: WatchedInstallation) throws {
    try world.endpoint.renew(world.nearlyOver)
    try world.expect(["CertificateEnds"])
    try world.endpoint.renew(world.good)
    try world.expectQuiet()
  }

  /// Somebody emptied a table, archiving is broken, and the objective is more than this host can do.
  private func badDrill(_ world: WatchedInstallation) throws {
    let (installation, server) = (world.installation, world.installation.server)
    try server.psql("TRUNCATE campaigns")
    try installation.archiveWAL()
    let command = try server.psql("SHOW archive_command")
    try server.psql("ALTER SYSTEM SET archive_command = '/bin/false'")
    try server.psql("SELECT pg_reload_conf()")
    try server.psql("CREATE TABLE lost AS SELECT 1 AS id")
    try world.configure("{rto: 100ms, rpo: 10ms}")
    let drill = try installation.json(["drill"], allowsFindings: true)
    #expect(drill["ok"] as? Bool == false)
    try world.expect(["DrillFailed", "Findings of drill", "RecoveryTimeOverObjective", "DataLossOverObjective"])
    try world.expect(["DrillOverdue"], short: true)
    try server.psql("ALTER SYSTEM SET archive_command = '\(command)'")
    try server.psql("SELECT pg_reload_conf()")
    try server.psql("INSERT INTO campaigns VALUES (1)")
    try installation.archiveWAL()
    try world.configure(WatchedInstallation.objectives)
    _ = try installation.json(["drill"])
    try world.expectEnd(["DrillOverdue"], short: true)
    try world.expectQuiet()
  }

  private func damagedPages(_ world: WatchedInstallation) throws {
    let (installation, server) = (world.installation, world.installation.server)
    try server.psql("CREATE TABLE spoilt AS SELECT g AS id, repeat('x', 100) AS t FROM generate_series(1, 5000) g")
    let file = try server.psql("SELECT pg_relation_filepath('spoilt')")
    try server.psql("CHECKPOINT")
    let handle = try FileHandle(forUpdating: URL(filePath: "\(server.dataDirectory)/\(file)"))
    try handle.seek(toOffset: 3 * 8192 + 4000)
    try handle.write(contentsOf: Data("spoilt".utf8))
    try handle.close()
    let backup = try installation.run(["backup"])
    #expect(backup.ending == .exited(65), "\(backup.errorText)")
    try world.expect(["BackupSuspect", "BackupFailed"])
    try server.psql("DROP TABLE spoilt")
    try server.psql("CHECKPOINT")
    _ = try installation.json(["backup"])
    try world.expectQuiet()
  }
}

/// An installation whose metrics a Prometheus watches, and a region's endpoint whose certificate it watches.
private final class WatchedInstallation {
  static let objectives = "{rto: 5m, rpo: 1h}"
  let installation: Installation
  let prometheus: PrometheusServer
  let endpoint: RenewableTLSServer
  let good: TestCertificate
  let nearlyOver: TestCertificate
  private(set) var seen: Set<String> = []
  private let rules: String

  init(_ policies: String) throws {
    installation = try Installation(.v15, usesS3: false, degradeAfter: "1s")
    rules = "\(policies)/tidemark.yaml"
    let metrics = "\(installation.root)/metrics"
    try DurableFile.createDirectories(metrics, mode: 0o755)
    try PostgresServer.give(metrics)
    let policy = "\(installation.root)/drill.yaml"
    let assertion =
      "{name: campaigns, database: postgres, query: SELECT count(*) FROM campaigns, expectation: {at-least: 1}}"
    try DurableFile.write(Array("assertions:\n  - \(assertion)\n".utf8), to: policy, mode: 0o644)
    good = try TestCertificate(days: 60)
    nearlyOver = try TestCertificate(days: 2)
    endpoint = try RenewableTLSServer(good)
    prometheus = try PrometheusServer(
      metrics: metrics, policies: policies, region: endpoint.port,
      authorities: [good.authorityPath, nearlyOver.authorityPath])
    let yaml = try String(contentsOfFile: installation.configuration, encoding: .utf8)
    let more = "metrics: {textfile-directory: \(metrics)}\ndrill: {memory: 128MiB, policy: \(policy)}\n"
    try write(yaml + more)
    try configure(Self.objectives)
  }

  private func write(_ text: String) throws {
    try DurableFile.write(Array(text.utf8), to: installation.configuration, mode: 0o644)
    try PostgresServer.give(installation.configuration)
  }

  func configure(_ objectives: String) throws {
    let yaml = try String(contentsOfFile: installation.configuration, encoding: .utf8)
    try write(yaml.replacing(/objectives: .*/, with: "objectives: \(objectives)"))
  }

  /// That these alerts come to fire. `meanwhile` is done between two looks.
  func expect(_ names: Set<String>, short: Bool = false, meanwhile: () throws -> Void = {}) throws {
    var firing: Set<String> = []
    let fires = try eventually(.seconds(60)) {
      try meanwhile()
      firing = try prometheus.firing(short: short)
      return firing.isSuperset(of: names)
    }
    #expect(fires, "\(names) of \(firing)")
    seen.formUnion(names.map { String($0.prefix { $0 != " " }) })
  }

  func expectEnd(_ names: Set<String>, short: Bool = false) throws {
    var firing: Set<String> = []
    let ended = try eventually(.seconds(60)) {
      firing = try prometheus.firing(short: short)
      return firing.isDisjoint(with: names)
    }
    #expect(ended, "\(names) of \(firing)")
  }

  /// That no alert fires, but for those whose ages are cut short.
  func expectQuiet() throws {
    var firing: Set<String> = []
    let isQuiet = try eventually(.seconds(60)) {
      firing = try prometheus.firing()
      return firing.isEmpty
    }
    #expect(isQuiet, "\(firing)")
  }

  /// The names of all rules, less "Tidemark".
  func allAlerts() throws -> Set<String> {
    let text = try String(contentsOfFile: rules, encoding: .utf8)
    return Set(text.matches(of: /alert: Tidemark(\w+)/).map { String($0.output.1) })
  }
}
