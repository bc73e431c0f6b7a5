// A drill's report for people at a terminal.
import BackupRepository
import Foundation
import RestoreDrill

struct DrillText {
  let report: DrillReport

  init(_ report: DrillReport) { self.report = report }

  var text: String {
    var lines = [
      "drill \(report.name): \(report.ok ? "passed" : "FAILED")",
      "restored \(report.backup?.label ?? "nothing") from \(report.region ?? "any region") to \(report.target)",
    ]
    if let seed = report.seed, let window = report.window {
      lines.append("chosen by seed \(seed) between \(window.from) and \(window.to)")
    }
    for phase in report.phases {
      let rate =
        phase.bytes > 0
        ? ", \(Size(phase.bytes)), \(Size(Int64(Double(phase.bytes) / max(phase.seconds, 0.001))))/s" : ""
      lines.append(
        "  \(phase.name.padding(toLength: 10, withPad: " ", startingAt: 0)) \(Seconds(phase.seconds))\(rate)")
    }
    if let rto = report.rtoSeconds { lines.append(objective("RTO", rto, report.rtoObjectiveSeconds, report.rtoMet)) }
    if let rpo = report.rpoSeconds { lines.append(objective("RPO", rpo, report.rpoObjectiveSeconds, report.rpoMet)) }
    if let lost = report.transactionsLost {
      lines.append(
        "of the running cluster's transactions " + (lost == 0 ? "none is lost" : "at least \(lost) are lost"))
    }
    for (name, region) in report.regions.sorted(by: { $0.key < $1.key }) {
      lines.append("region \(name): \(Size(region.bytes)), \(region.requests) requests, \(region.failures) failures")
    }
    for check in report.checks {
      lines.append("  \(check.outcome.rawValue)  \(check.name), \(check.subject): \(Self.indented(check.detail))")
    }
    for assertion in report.assertions {
      lines.append(
        "  \(assertion.outcome.rawValue)  '\(assertion.name)': expected: \(assertion.expectation); "
          + "got \(assertion.answer ?? "nothing")")
    }
    lines += report.findings.map { "finding: \(Self.indented($0))" }
    lines += report.remarks.map { "remark: \(Self.indented($0))" }
    lines += report.comparison + report.advice
    return lines.joined(separator: "\n") + "\n"
  }

  private func objective(_ name: String, _ seconds: Double, _ objective: Double?, _ met: Bool?) -> String {
    "\(name) \(Seconds(seconds))"
      + (objective.map { " (objective \(Seconds($0)): \(met == true ? "met" : "MISSED"))" } ?? "")
  }

  private static func indented(_ text: String) -> String { text.replacing("\n", with: "\n      ") }
}
