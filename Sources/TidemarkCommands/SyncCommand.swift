// `sync`: repays debts and makes the regions equal.
import ArgumentParser
import BackupRepository
import Diagnostics

struct SyncCommand: TidemarkCommand {
  static let configuration = CommandConfiguration(
    commandName: "sync", abstract: "Repay debts, compare the regions, and copy what one lacks.")
  @OptionGroup var global: GlobalOptions
  @Flag(help: "Repay the debts that this host recorded, and don't compare listings.") var journalOnly = false

  struct Report: Codable {
    var repaid: Int
    var obsolete: Int
    var copied: Int
    var copiedBytes: Int64
    var findings: [String]
    var events: [RegionEvent]
    var regions: [String: RegionReport]
  }

  func execute() throws(TidemarkError) -> Int32 {
    let context = try CommandContext(global)
    let repository = try context.repository()
    let synchronizer = RegionSynchronizer(repository, uploadRateMax: context.configuration.limits.uploadRate)
    var result = SynchronizationReport()
    try synchronizer.repayDebts(&result)
    if !journalOnly { try synchronizer.compare(&result) }
    let report = Report(
      repaid: result.repaid, obsolete: result.obsolete, copied: result.copied, copiedBytes: result.copiedByteCount,
      findings: result.findings,
      events: repository.regions.log.events, regions: RegionReport.all(repository))
    try context.print(report) {
      "debts repaid: \(report.repaid); objects copied: \(report.copied), \(Size(report.copiedBytes))\n"
        + report.findings.map { "finding: \($0)\n" }.joined()
    }
    CommandRecord.current.note(findings: result.findings)
    return result.findings.isEmpty ? 0 : ExitStatus.findings.rawValue
  }
}
