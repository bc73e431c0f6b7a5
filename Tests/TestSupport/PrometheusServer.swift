// A real Prometheus with the project's own example configuration, alert rules and blackbox module, which reads the metric
// files of a directory each second.
//
// The rules are those of the file, shortened in one way: they are evaluated each second and wait for nothing (`for:` is
// dropped). They are loaded twice. The second time every age (`> 300`, `> 26 * 3600` …) is cut to ``shortAge``, and their
// alerts have the label `ages="short"`: so what takes a day in earnest takes seconds, and the same metric must still
// come from a real command.
import Diagnostics
import Foundation
import SystemSupport

package final class PrometheusServer {
  package static let shortAge = 8

  private let directory: TemporaryDirectory
  private let files: ServerProcess
  private let prober: ServerProcess
  private let server: ServerProcess

  /// - Parameters:
  ///   - metrics: the directory of node_exporter's textfile collector.
  ///   - policies: `policies/alerts`.
  ///   - region: the port of a region's endpoint on 127.0.0.1, whose certificate is watched.
  ///   - authorities: the certificates that its certificate may be signed with.
  package init(metrics: String, policies: String, region: UInt16, authorities: [String]) throws {
    let directory = try TemporaryDirectory()
    let root = directory.path
    files = try ServerProcess("/usr/bin/python3", logDirectory: root) { ["-c", Self.collector, "\($0)", metrics] }
    func text(_ name: String) throws -> String {
      try String(contentsOfFile: "\(policies)/\(name)", encoding: .utf8)
    }
    func write(_ text: String, _ name: String) throws { try DurableFile.write(Array(text.utf8), to: "\(root)/\(name)") }

    try write(authorities.map { try String(contentsOfFile: $0, encoding: .utf8) }.joined(), "authorities.crt")
    let module = try text("blackbox.yaml")
    try write(module + "      tls_config: {ca_file: \(root)/authorities.crt}\n", "blackbox.yaml")
    prober = try ServerProcess("/usr/bin/prometheus-blackbox-exporter", logDirectory: root) {
      ["--config.file=\(root)/blackbox.yaml", "--web.listen-address=127.0.0.1:\($0)"]
    }
    let rules = try text("tidemark.yaml").split(separator: "\n", omittingEmptySubsequences: false)
      .filter { !$0.trimmingCharacters(in: .whitespaces).hasPrefix("for:") }.joined(separator: "\n")
      .replacing("interval: 1m", with: "interval: 1s")
    try write(rules, "tidemark.yaml")
    try write(
      rules.replacing(/> (\d+ \* )?\d{3,}/, with: "> \(Self.shortAge)").replacing(
        "labels: {", with: "labels: {ages: short, "), "short.yaml")
    let configuration = try text("prometheus.yaml")
      .replacing("[tidemark.yaml]", with: "[tidemark.yaml, short.yaml]")
      .replacing("\"crm-1.example:9100\"", with: "\"127.0.0.1:\(files.port)\"")
      .replacing(/"s3\..*:443"/, with: "\"127.0.0.1:\(region)\"")
      .replacing("127.0.0.1:9115", with: "127.0.0.1:\(prober.port)")
    try write("global: {scrape_interval: 1s, evaluation_interval: 1s}\n" + configuration, "prometheus.yaml")
    server = try ServerProcess("/usr/bin/prometheus", logDirectory: root) {
      [
        "--config.file=\(root)/prometheus.yaml", "--storage.tsdb.path=\(root)/data",
        "--web.listen-address=127.0.0.1:\($0)",
      ]
    }
    self.directory = directory
  }

  /// What node_exporter's textfile collector makes of the directory's files.
  private static let collector = """
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

  private func ask(_ path: String) throws -> [String: Any] {
    let outcome = try ChildProcess.run(
      "curl", ["--silent", "http://127.0.0.1:\(server.port)/api/v1/\(path)"], deadline: .after(.seconds(20)))
    let document = (try? JSONSerialization.jsonObject(with: Data(outcome.output))) as? [String: Any]
    return document?["data"] as? [String: Any] ?? [:]
  }

  package func has(_ metric: String) throws -> Bool {
    !((try ask("query?query=\(metric)")["result"] as? [Any])?.isEmpty ?? true)
  }

  /// The alerts that fire, by name, less "Tidemark"; those about a command with it, such as "Findings of verify".
  package func firing(short: Bool = false) throws -> Set<String> {
    let alerts = try ask("alerts")["alerts"] as? [[String: Any]] ?? []
    return Set(
      alerts.compactMap { alert in
        guard alert["state"] as? String == "firing", let labels = alert["labels"] as? [String: String],
          (labels["ages"] == "short") == short, let name = labels["alertname"], name.hasPrefix("Tidemark")
        else { return nil }
        return name.dropFirst("Tidemark".count) + (name == "TidemarkFindings" ? " of \(labels["command"] ?? "")" : "")
      })
  }
}

/// A TLS server that takes its certificate from its file for each connection, as one does whose certificate is renewed
/// while it runs.
package final class RenewableTLSServer {
  private let directory: TemporaryDirectory
  private let process: ServerProcess
  package var port: UInt16 { process.port }

  package init(_ certificate: TestCertificate) throws {
    let directory = try TemporaryDirectory()
    try Self.put(certificate, directory.path)
    let program = """
      from sys import argv
      from socket import create_server
      from ssl import PROTOCOL_TLS_SERVER, SSLContext
      listener = create_server(("127.0.0.1", int(argv[1])))
      while True:
          connection, _ = listener.accept()
          context = SSLContext(PROTOCOL_TLS_SERVER)
          try:
              context.load_cert_chain(argv[2] + "/pair")
              connection.settimeout(5)
              context.wrap_socket(connection, server_side=True).close()
          except OSError:
              connection.close()
      """
    process = try ServerProcess("/usr/bin/python3", logDirectory: directory.path) {
      ["-c", program, "\($0)", directory.path]
    }
    self.directory = directory
  }

  package func renew(_ certificate: TestCertificate) throws { try Self.put(certificate, directory.path) }

  private static func put(_ certificate: TestCertificate, _ directory: String) throws {
    let pair = try readFile(certificate.keyPath) + readFile(certificate.certificatePath)
    try DurableFile.write(pair, to: "\(directory)/pair")
  }
}
