// `verify`: reads back what the regions hold, compares them, and mends. Findings end with status 1.
import ArgumentParser
import BackupRepository
import Configuration
import Diagnostics
import PostgresFormats
import Retention
import SystemSupport
import Verification

struct VerifyCommand: TidemarkCommand {
  static let configuration = CommandConfiguration(
    commandName: "verify", abstract: "Read back what the regions hold, compare them, and mend one from the other.",
    discussion: "Existence of everything, then signatures and digests, then every frame with an identity. A run that "
      + "was ended goes on where it was. Findings end with status 1, mended ones too.")
  @OptionGroup var global: GlobalOptions
  @Option(help: "Read only so many percent of the objects, chosen by the seed.") var sample: Double = 100
  @Option(help: "The seed of the sample; a random one otherwise. It is printed.") var seed: UInt64?
  @Option(help: "Read at most so many bytes per second, such as 10MiB.") var rateLimit: String?
  @Flag(help: "Report what is missing or damaged, and leave it so.") var noMend = false
  @Flag(help: "Begin anew although an earlier run could go on.") var restart = false

  struct Report: Codable {
    var ok: Bool
    var samplePercent: Double
    var seed: UInt64
    var resumed: Bool
    var counts: VerificationCounts
    var findingCount: Int
    var findings: [VerificationFinding]
    var events: [RegionEvent]
    var regions: [String: RegionReport]
  }

  func execute() throws(TidemarkError) -> Int32 {
    guard sample > 0, sample <= 100 else {
      throw TidemarkError(.usage, "not a share", object: "\(sample)", next: "give a number above 0 and up to 100")
    }
    let context = try CommandContext(global)
    let repository = try context.repository()
    let policy = try context.retentionPolicy()
    var options = VerificationOptions()
    options.percent = sample
    options.seed = seed
    options.mends = !noMend
    options.restarts = restart
    options.rateLimit = try rateLimit.map { (text) throws(TidemarkError) in try ByteCount(text: text).value }
    options.continuous = { ExpireRun.continuousLabels(policy, $0) }
    let meter = ProgressMeter(context.logger)
    let result: VerificationReport
    do throws(TidemarkError) {
      result = try VerificationRun(repository, options) { counts in
        meter.show("read \(counts.objects) objects, \(Size(counts.bytes))")
      }.run()
    } catch {
      throw error.code == .interrupted
        ? error.with(kept: "what was verified so far", next: "'tidemark verify' with the same options goes on") : error
    }
    meter.end()
    let state = result.state
    let report = Report(
      ok: state.findingCount == 0, samplePercent: state.percent, seed: state.seed, resumed: result.isResumed,
      counts: state.counts, findingCount: state.findingCount, findings: state.findings,
      events: repository.regions.log.events, regions: RegionReport.all(repository))
    try context.print(report) { text(report) }
    CommandRecord.current.note(
      findings: state.findings.map { finding in
        "\(finding.kind.rawValue) \(finding.object)\(finding.region.map { " in \($0)" } ?? ""): \(finding.detail)"
      })
    return report.ok ? 0 : ExitStatus.findings.rawValue
  }

  private func text(_ report: Report) -> String {
    let counts = report.counts
    var lines = [
      report.samplePercent >= 100 ? "all objects" : "a sample of \(report.samplePercent) %, seed \(report.seed)"
    ]
    if report.resumed { lines[0] += ", continued from an earlier run" }
    lines.append(
      "\(counts.listed) objects exist; \(counts.objects) were read in \(counts.copies) copies, \(Size(counts.bytes)), "
        + "\(counts.frames) frames opened")
    if counts.notOpened > 0 {
      lines.append("\(counts.notOpened) copies could not be opened here for lack of an identity: signed and whole")
    }
    for finding in report.findings {
      lines.append(
        "finding: \(finding.kind.rawValue) \(finding.object)\(finding.region.map { " in \($0)" } ?? ""): "
          + "\(finding.detail)\(finding.isMended ? " (mended)" : "")")
    }
    if report.findingCount > report.findings.count { lines.append("… \(report.findingCount) findings in all") }
    lines.append(report.ok ? "all is well" : "there are findings")
    return lines.joined(separator: "\n") + "\n"
  }
}
