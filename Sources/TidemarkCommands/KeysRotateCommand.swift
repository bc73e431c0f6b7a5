// `keys rotate`: what is stored becomes readable with the configured recipients' identities, without being stored anew.
import ArgumentParser
import BackupRepository
import Diagnostics
import SystemSupport

struct KeysRotate: TidemarkCommand {
  static let configuration = CommandConfiguration(
    commandName: "rotate", abstract: "Wrap the keys of what is stored anew for the configured recipients.",
    discussion:
      "What is written from now on is sealed to encryption.recipients anyway: change them on every host first. "
      + "This needs an identity that opens what is stored, and a trusted writer key. It reads heads alone, writes new "
      + "objects and changes none; run it again until nothing is left. It takes nothing from who holds an old identity."
  )
  @OptionGroup var global: GlobalOptions
  @Flag(help: "Say what would be wrapped anew, and write nothing.") var dryRun = false
  var recordedName: String? { dryRun ? nil : "keys-rotate" }

  struct Report: Codable {
    var dryRun: Bool
    var recipients: [String]
    var lineages: [LineageRewrap]
    var regionsNotAsked: [String: String]
    var findings: [String]
    var events: [RegionEvent]
    var regions: [String: RegionReport]
  }

  func execute() throws(TidemarkError) -> Int32 {
    let context = try CommandContext(global)
    let repository = try context.repository()
    let meter = ProgressMeter(context.logger)
    let result: RewrapReport
    do throws(TidemarkError) {
      result = try KeyRewrap(repository, isDryRun: dryRun) { lineage in
        meter.show("\(lineage.objects) objects, \(lineage.rewrapped) wrapped anew")
      }.run()
    } catch {
      throw error.code == .interrupted
        ? error.with(kept: "what was wrapped anew so far", next: "'tidemark keys rotate' goes on") : error
    }
    meter.end()
    let report = Report(
      dryRun: dryRun, recipients: repository.keys.recipients.map(\.id.description), lineages: result.lineages,
      regionsNotAsked: result.regionsNotAsked, findings: findings(result), events: repository.regions.log.events,
      regions: RegionReport.all(repository))
    try context.print(report) { text(report) }
    CommandRecord.current.note(findings: report.findings)
    return report.findings.isEmpty ? 0 : ExitStatus.findings.rawValue
  }

  private func findings(_ result: RewrapReport) -> [String] {
    var findings = result.regionsNotAsked.sorted { $0.key < $1.key }.map { name, reason in
      "\(name) couldn't be asked, so what it alone holds wasn't wrapped anew: \(reason)"
    }
    for lineage in result.lineages {
      findings += lineage.failures.map { "\($0.object) in \($0.region) wasn't wrapped anew: \($0.reason)" }
      if lineage.notOpened > lineage.failures.count {
        findings.append(
          "\(lineage.notOpened) objects of lineage \(lineage.systemIdentifier) weren't wrapped anew in all")
      }
    }
    return findings
  }

  private func text(_ report: Report) -> String {
    var lines = ["recipients \(report.recipients.joined(separator: ", "))"]
    for lineage in report.lineages {
      lines.append(
        "lineage \(lineage.systemIdentifier): \(lineage.objects) objects; \(lineage.current) are sealed to all of them, "
          + "\(lineage.covered) were wrapped anew before, \(lineage.rewrapped) "
          + (report.dryRun ? "would be now, by" : "are now, by")
          + " \(lineage.rewraps) new objects\(report.dryRun ? "" : " (\(Size(Int64(lineage.rewrapBytes))))")")
    }
    lines += report.findings.map { "finding: \($0)" }
    if report.dryRun { lines.append("a dry run: nothing was written") }
    return lines.joined(separator: "\n") + "\n"
  }
}
