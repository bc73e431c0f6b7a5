// A drill's report as one HTML page that an auditor can keep: nothing is loaded from anywhere, nothing runs, it reads in
// light, in dark and on paper, and no meaning is in a colour alone. Everything from outside is escaped.
import Envelope
import Foundation
import PostgresReplication

package struct DrillPage {
  let drills: [StoredDrill]
  /// Every known drill of the lineage, oldest first.
  let history: [DrillReport]

  package init(drills: [StoredDrill], history: [DrillReport]) {
    self.drills = drills
    self.history = history.sorted { $0.name < $1.name }
  }

  package var html: String {
    let passed = drills.allSatisfy(\.report.ok)
    let cluster = drills.first?.report.cluster ?? ""
    return """
      <!DOCTYPE html>
      <html lang="en">
      <head>
      <meta charset="utf-8">
      <meta name="viewport" content="width=device-width, initial-scale=1">
      <meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
      <meta name="color-scheme" content="light dark">
      <title>Recovery drill of \(Self.escaped(cluster)): \(passed ? "passed" : "failed")</title>
      <style>
      \(Self.style)
      </style>
      </head>
      <body>
      <header>
      <p class="kind">Recovery drill</p>
      <h1>\(Self.escaped(cluster)) \(badge(passed))</h1>
      <p class="lead">\(lead)</p>
      </header>
      \(drills.map(section).joined(separator: "\n"))
      \(historySection)
      \(evidenceSection)
      </body>
      </html>

      """
  }

  private var lead: String {
    guard let report = drills.first?.report else { return "" }
    let count = drills.count == 1 ? "One restore" : "\(drills.count) restores, one from each region,"
    return
      "\(count) on host \(Self.escaped(report.host)), beginning \(Self.moment(report.began)), by Tidemark "
      + "\(Self.escaped(report.toolVersion)). System identifier <code>\(Self.escaped(report.systemIdentifier))</code>."
  }

  // MARK: One drill

  private func section(_ drill: StoredDrill) -> String {
    let report = drill.report
    let origin = report.region.map { "From region \($0)" } ?? "From whichever region answers"
    let title =
      Self.escaped("\(origin), to \(report.moment == "random" ? "a random moment: " : "")")
      + "<span class=\"name\">\(Self.escaped(report.target))</span>"
    return """
      <main>
      <h2>\(title) \(drills.count > 1 ? badge(report.ok) : "")</h2>
      \(tiles(report))
      \(findings(report))
      <section><h3>What was restored</h3>\(facts(report))</section>
      <section><h3>How long each phase took</h3>\(phases(report))</section>
      <section><h3>What came from which region</h3>\(traffic(report))</section>
      <section><h3>What was proven</h3>\(checks(report))</section>
      <section><h3>What the owners assert</h3>\(assertions(report))</section>
      \(meaning(report))
      </main>
      """
  }

  private func tiles(_ report: DrillReport) -> String {
    func tile(_ name: String, _ value: String, _ note: String, _ met: Bool?) -> String {
      let sign = met.map { $0 ? " good" : " bad" } ?? ""
      return "<div class=\"tile\(sign)\"><p>\(name)</p><p class=\"value\">\(value)</p><p>\(note)</p></div>"
    }
    func objective(_ seconds: Double?, _ objective: Double?, _ met: Bool?, _ missing: String) -> (String, String) {
      let value = seconds.map(DrillComparison.seconds) ?? "–"
      guard seconds != nil else { return (value, missing) }
      guard let objective else { return (value, "no objective is set") }
      return (value, "objective \(DrillComparison.seconds(objective)): \(met == true ? "✓\u{A0}met" : "✗\u{A0}missed")")
    }
    let rto = objective(report.rtoSeconds, report.rtoObjectiveSeconds, report.rtoMet, "nothing came up")
    let rpo = objective(
      report.rpoSeconds, report.rpoObjectiveSeconds, report.rpoMet,
      report.moment == "latest" ? "nothing came up" : "only measured at the latest moment")
    let checked = report.checks.filter { $0.outcome != .skipped }
    let good = checked.count { $0.outcome == .passed }
    let held = report.assertions.count { $0.outcome == .passed }
    // What is no more than a remark makes no drill fail, and no tile red.
    let isChecked = !checked.contains { $0.outcome == .failed && $0.severity != "remark" }
    let isHeld = !report.assertions.contains { $0.outcome != .passed && $0.severity != "remark" }
    return "<div class=\"tiles\">"
      + tile("Recovery time (RTO)", rto.0, rto.1, report.rtoMet)
      + tile("Data loss (RPO)", rpo.0, rpo.1, report.rpoMet)
      + tile(
        "Checks", "\(good) of \(checked.count)", "passed", checked.isEmpty ? nil : isChecked)
      + tile(
        "Assertions", "\(held) of \(report.assertions.count)", report.assertions.isEmpty ? "none are set" : "hold",
        report.assertions.isEmpty ? nil : isHeld)
      + "</div>"
  }

  private func findings(_ report: DrillReport) -> String {
    var text = ""
    if !report.findings.isEmpty {
      text += "<section class=\"findings\"><h3>Findings</h3>\(Self.list(report.findings))</section>"
    }
    if !report.remarks.isEmpty {
      text += "<section><h3>Remarks</h3>\(Self.list(report.remarks))</section>"
    }
    return text
  }

  private func facts(_ report: DrillReport) -> String {
    var rows: [(String, String)] = []
    if let backup = report.backup {
      let version = ServerVersion(number: backup.serverVersion)
      rows += [
        ("Backup", "\(backup.label), complete at \(Self.moment(backup.stopTime))"),
        ("Database", "\(DrillComparison.bytes(Double(backup.databaseBytes))), PostgreSQL \(version)"),
        ("WAL in the backup", "\(backup.startLSN) to \(backup.stopLSN), timeline \(backup.timeline)"),
        ("WAL after its start", "\(report.walSegments) segments"),
      ]
    }
    rows.append(("Target", report.target))
    if let seed = report.seed, let window = report.window {
      rows.append(("Chosen by", "seed \(seed), between \(Self.moment(window.from)) and \(Self.moment(window.to))"))
    }
    if let reached = report.reached {
      let time = reached.time.map(Self.moment) ?? "none after the backup"
      rows += [
        ("Reached", reached.lsn ?? "–"), ("Last commit there", time),
        ("Timeline after promotion", reached.timeline.map { "\($0)" } ?? "–"),
      ]
    }
    if let lost = report.transactionsLost {
      rows.append(("The running cluster's transactions", lost == 0 ? "all came back" : "at least \(lost) were lost"))
    }
    if let ahead = report.liveBytesAhead {
      rows.append(
        (
          "The running cluster was ahead by", ahead == 0 ? "nothing" : "\(DrillComparison.bytes(Double(ahead))) of WAL"
        ))
    }
    rows.append(
      (
        "Scratch directory",
        "at most \(DrillComparison.bytes(Double(report.limits.diskBytesSeen))) seen"
          + (report.limits.diskBytes.map { " of \(DrillComparison.bytes(Double($0))) allowed" } ?? "")
      ))
    rows.append(("Ended", Self.moment(report.ended)))
    return "<table class=\"facts\">"
      + rows.map { "<tr><th scope=\"row\">\($0.0)</th><td>\(Self.escaped($0.1))</td></tr>" }.joined() + "</table>"
  }

  private func checks(_ report: DrillReport) -> String {
    if report.checks.isEmpty { return "<p>Nothing could be checked: no server came up.</p>" }
    let rows = report.checks.map { check in
      "<tr><td>\(outcome(check.outcome, check.severity))</td><td class=\"name\">\(Self.escaped(check.name))</td>"
        + "<td>\(Self.unbrokenOptions(Self.escaped(check.subject)))</td><td>\(Self.lines(check.detail))</td>"
        + "<td class=\"number\">\(DrillComparison.seconds(check.seconds))</td></tr>"
    }
    return
      "<table><thead><tr><th>Outcome</th><th>Check</th><th>Of</th><th>Evidence</th><th class=\"number\">Time</th></tr>"
      + "</thead><tbody>\(rows.joined())</tbody></table>"
  }

  private func assertions(_ report: DrillReport) -> String {
    if report.assertions.isEmpty {
      return "<p>None \(report.checks.isEmpty ? "were asked" : "are set: see <code>drill.policy</code>").</p>"
    }
    let rows = report.assertions.map { assertion in
      "<tr><td>\(outcome(assertion.outcome, assertion.severity))</td>"
        + "<td>\(Self.escaped(assertion.name))<br><code>\(Self.lines(assertion.query))</code>"
        + "<br><span class=\"note\">database \(Self.escaped(assertion.database))</span></td>"
        + "<td>\(Self.escaped(assertion.expectation))</td><td>\(Self.lines(assertion.answer ?? ""))</td>"
        + "<td class=\"number\">\(DrillComparison.seconds(assertion.seconds))</td></tr>"
    }
    return "<table class=\"assertions\"><thead><tr><th>Outcome</th><th>Assertion</th><th>Expected</th><th>Answer</th>"
      + "<th class=\"number\">Time</th></tr></thead><tbody>\(rows.joined())</tbody></table>"
  }

  private func meaning(_ report: DrillReport) -> String {
    let lines = report.comparison + report.advice
    if lines.isEmpty { return "" }
    return "<section><h3>Compared with earlier drills, and what would shorten it</h3>\(Self.list(lines))</section>"
  }

  // MARK: Pieces

  private func badge(_ passed: Bool) -> String {
    passed ? "<span class=\"badge good\">✓ passed</span>" : "<span class=\"badge bad\">✗ failed</span>"
  }

  private func outcome(_ outcome: DrillReport.Outcome, _ severity: String) -> String {
    switch outcome {
    case .passed: "<span class=\"good\">✓ passed</span>"
    case .skipped: "<span class=\"quiet\">– skipped</span>"
    case .failed where severity == "remark": "<span class=\"warn\">! remark</span>"
    case .failed: "<span class=\"bad\">✗ failed</span>"
    }
  }

  static func list(_ lines: [String]) -> String {
    "<ul>" + lines.map { "<li>\(Self.lines($0))</li>" }.joined() + "</ul>"
  }

  /// With program options that no line break divides.
  private static func unbrokenOptions(_ text: String) -> String {
    text.replacing(/--[a-z-]+/) { "<span class=\"name\">\($0.output)</span>" }
  }

  /// Escaped, with its line breaks.
  static func lines(_ text: String) -> String {
    escaped(text.trimmingCharacters(in: .newlines)).replacing("\n", with: "<br>")
  }

  /// "2026-11-24T03:15:00.123456Z" as people read it.
  static func moment(_ text: String) -> String {
    let seconds = text.prefix { $0 != "." && $0 != "Z" }
    return seconds.replacing("T", with: " ") + " UTC"
  }

  static func escaped(_ text: String) -> String {
    var result = ""
    for character in text {
      switch character {
      case "&": result += "&amp;"
      case "<": result += "&lt;"
      case ">": result += "&gt;"
      case "\"": result += "&quot;"
      case "'": result += "&#39;"
      default: result.append(character)
      }
    }
    return result
  }

  // MARK: Evidence

  private var evidenceSection: String {
    let rows = drills.map { drill in
      "<tr><td><code>\(Self.escaped(drill.object.isEmpty ? "not stored" : drill.object))</code></td>"
        + "<td><code>\(Self.escaped(drill.signedBy.isEmpty ? "–" : drill.signedBy))</code></td>"
        + "<td><code>\(SHA256Digest.of(drill.document).hexadecimal)</code></td></tr>"
    }
    let name = Self.escaped(drills.last?.report.name ?? "")
    return """
      <section><h2>Evidence</h2>
      <p>Each restore ran in a scratch directory of the host above, into a PostgreSQL server of its own without a network \
      listener and without archiving, and was removed afterwards. The recovery time runs from the beginning of the restore \
      to the first transaction that the restored server wrote. The data loss is what the cluster had committed when the \
      drill began and the restore didn't bring back; where the cluster couldn't be asked, it is the age of the newest \
      restored commit. Indexes were checked by PostgreSQL's pg_amcheck, pages by its pg_checksums.</p>
      <p>This page shows signed documents that every region holds. \
      <code>tidemark --json drill report \(name)</code> checks a document's signature and prints it.</p>
      <table class="evidence"><thead><tr><th>Object</th><th>Signed by writer</th><th>SHA-256 of the document</th></tr></thead>
      <tbody>\(rows.joined())</tbody></table></section>
      """
  }
}
