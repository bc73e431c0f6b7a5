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

  @Test("real failures make the alerts fire, and end: a region away, a failed backup, failed archiving")
  func realFailures() throws {
    let installation = try Installation(.v15, usesS3: false, degradeAfter: "1s")
    let root = installation.root
    let metrics = "\(root)/metrics"
    try DurableFile.createDirectories(metrics, mode: 0o755)
    try PostgresServer.give(metrics)
    let yaml = try String(contentsOfFile: installation.configuration, encoding: .utf8)
    try (yaml + "metrics: {textfile-directory: \(metrics)}\n").write(
      toFile: installation.configuration, atomically: false, encoding: .utf8)
    _ = try installation.json(["backup"])
    try installation.archiveWAL()
    let prometheus = try Prometheus(metrics: metrics, rules: "\(Self.directory)/tidemark.yaml")
    let became1 = try eventually(.seconds(60)) { try prometheus.has("tidemark_backup_last_success_timestamp_seconds") }
    #expect(became1)
    let quiet = try prometheus.firing()
    #expect(quiet == [])

    // One region goes away: archiving goes on, with debts.
    try FileManager.default.moveItem(atPath: "\(root)/east", toPath: "\(root)/away")
    try installation.archiveWAL()
    let became2 = try eventually(.seconds(60)) { try prometheus.firing().contains("TidemarkRegionBehind") }
    #expect(became2)
    // Both: nothing is archived, and no backup is taken.
    try FileManager.default.moveItem(atPath: "\(root)/west", toPath: "\(root)/away-west")
    let backup = try installation.run(["backup"])
    #expect(!backup.succeeded)
    let segment = try installation.server.psql("SELECT pg_walfile_name(pg_current_wal_lsn())")
    _ = try installation.run(["wal-push", "\(installation.server.dataDirectory)/pg_wal/\(segment)"])
    let failing: Set = ["TidemarkBackupFailed", "TidemarkArchivingFails"]
    let became3 = try eventually(.seconds(60)) { try prometheus.firing().isSuperset(of: failing) }
    #expect(became3)
    try FileManager.default.moveItem(atPath: "\(root)/away-west", toPath: "\(root)/west")
    try FileManager.default.moveItem(atPath: "\(root)/away", toPath: "\(root)/east")
    _ = try installation.json(["sync"])
    _ = try installation.json(["backup"])
    try installation.archiveWAL()
    let became4 = try eventually(.seconds(60)) { try prometheus.firing().isEmpty }
    #expect(became4)
  }
}

/// A real Prometheus that reads the metric files every second and waits for nothing before it fires.
private final class Prometheus {
  private let directory: TemporaryDirectory
  private let files: ServerProcess
  private let server: ServerProcess

  init(metrics: String, rules: String) throws {
    let directory = try TemporaryDirectory()
    let program = """
      from glob import glob
      from http.server import BaseHTTPRequestHandler, HTTPServer
      from sys import argv
      class Handler(BaseHTTPRequestHandler):
          def do_GET(self):
              text = "".join(open(name).read() for name in sorted(glob(argv[2] + "/*.prom")))
              seen, lines = set(), []
              for line in text.splitlines():
                  if line.startswith("#") and line in seen:
                      continue
                  seen.add(line)
                  lines.append(line)
              self.send_response(200)
              self.send_header("Content-Type", "text/plain; version=0.0.4")
              self.end_headers()
              self.wfile.write(("\\n".join(lines) + "\\n").encode())
          def log_message(self, *_):
              pass
      HTTPServer(("127.0.0.1", int(argv[1])), Handler).serve_forever()
      """
    let files = try ServerProcess("/usr/bin/python3", logDirectory: directory.path) {
      ["-c", program, "\($0)", metrics]
    }
    let text = try String(contentsOfFile: rules, encoding: .utf8)
    let hasty = text.split(separator: "\n", omittingEmptySubsequences: false)
      .filter { !$0.trimmingCharacters(in: .whitespaces).hasPrefix("for:") }.joined(separator: "\n")
    try hasty.replacing("interval: 1m", with: "interval: 1s").write(
      toFile: "\(directory.path)/rules.yaml", atomically: false, encoding: .utf8)
    try """
    global: {scrape_interval: 1s, evaluation_interval: 1s}
    rule_files: [rules.yaml]
    scrape_configs: [{job_name: node, static_configs: [{targets: ["127.0.0.1:\(files.port)"]}]}]

    """.write(toFile: "\(directory.path)/prometheus.yaml", atomically: false, encoding: .utf8)
    server = try ServerProcess("/usr/bin/prometheus", logDirectory: directory.path) {
      [
        "--config.file=\(directory.path)/prometheus.yaml", "--storage.tsdb.path=\(directory.path)/data",
        "--web.listen-address=127.0.0.1:\($0)",
      ]
    }
    self.files = files
    self.directory = directory
  }

  private func ask(_ path: String) throws -> [String: Any] {
    let outcome = try ChildProcess.run(
      "curl", ["--silent", "http://127.0.0.1:\(server.port)/api/v1/\(path)"], deadline: .after(.seconds(20)))
    let document = (try? JSONSerialization.jsonObject(with: Data(outcome.output))) as? [String: Any]
    return document?["data"] as? [String: Any] ?? [:]
  }

  func has(_ metric: String) throws -> Bool {
    !((try ask("query?query=\(metric)")["result"] as? [Any])?.isEmpty ?? true)
  }

  /// The names of the alerts that fire.
  func firing() throws -> Set<String> {
    let alerts = try ask("alerts")["alerts"] as? [[String: Any]] ?? []
    return Set(
      alerts.filter { $0["state"] as? String == "firing" }.compactMap {
        ($0["labels"] as? [String: Any])?["alertname"] as? String
      })
  }
}
