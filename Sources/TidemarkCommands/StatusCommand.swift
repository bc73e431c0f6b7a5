// `status`: the repository at a glance; status 1 when something needs a person.
import ArgumentParser
import BackupRepository
import Configuration
import Diagnostics
import PostgresFormats
import Retention
import SystemSupport
import Verification

struct StatusCommand: TidemarkCommand {
  static let configuration = CommandConfiguration(
    commandName: "status", abstract: "Regions, recoverable window, debts, holds and the last drill at a glance.",
    discussion: "Ends with status 1 when something needs a person; the thresholds are the configuration's 'status'.")
  @OptionGroup var global: GlobalOptions
  var recordedName: String? { nil }

  struct Backup: Codable {
    var label: String
    var stopTime: String
    var ageSeconds: Double
    var suspect: Bool
  }
  struct Drill: Codable {
    var name: String
    var time: String
    var ageSeconds: Double
    var ok: Bool?
    var rtoSeconds: Double?
    var rtoMet: Bool?
    var rpoMet: Bool?
  }
  struct Lineage: Codable {
    var systemIdentifier: String
    var current: Bool
    var backups: Int
    var newest: Backup?
    var newestGood: Backup?
    var recoverable: ListCommand.Window?
    /// Restored to their own end and not beyond.
    var singleMoments: [String]
    var newestWALAgeSeconds: Double?
    var holds: [HoldReport]
    var unusable: [String]
    var lastDrill: Drill?
  }
  struct Verification: Codable {
    var finished: String
    var samplePercent: Double
    var findings: Int
  }
  struct Objectives: Codable {
    var rtoSeconds: Double?
    var rpoSeconds: Double?
  }
  struct Report: Codable {
    var ok: Bool
    var needs: [StatusNeed]
    var regions: [RegionStatus]
    var lineages: [Lineage]
    var lastVerification: Verification?
    var objectives: Objectives
    var unknown: [String]
  }

  func execute() throws(TidemarkError) -> Int32 {
    let context = try CommandContext(global)
    let repository = try context.repository()
    let policy = try context.retentionPolicy()
    let status = try StatusGathering(repository) { ExpireRun.continuousLabels(policy, $0) }.gather()
    let thresholds = context.configuration.status
    var limits = StatusLimits()
    limits.backupAge = thresholds.backupAge
    limits.walAge = thresholds.walAge
    limits.drillAge = thresholds.drillAge
    limits.verifyAge = thresholds.verifyAge
    limits.debts = thresholds.debts
    let needs = status.needs(limits)
    let report = Report(
      ok: needs.isEmpty && status.unknown.isEmpty, needs: needs, regions: status.regions,
      lineages: status.lineages.map { lineage($0, status) },
      lastVerification: status.verification.map {
        Verification(finished: isoTime(Double($0.finished)), samplePercent: $0.percent, findings: $0.findingCount)
      },
      objectives: Objectives(
        rtoSeconds: context.configuration.objectives.rto?.seconds,
        rpoSeconds: context.configuration.objectives.rpo?.seconds), unknown: status.unknown)
    try context.print(report) { text(report) }
    return report.ok ? 0 : ExitStatus.findings.rawValue
  }

  private func lineage(_ lineage: LineageStatus, _ status: RepositoryStatus) -> Lineage {
    func backup(_ newest: NewestBackup) -> Backup {
      Backup(
        label: newest.label, stopTime: isoTime(newest.stopTime), ageSeconds: status.now - newest.stopTime,
        suspect: newest.isSuspect)
    }
    return Lineage(
      systemIdentifier: lineage.systemIdentifier.description,
      current: status.current?.systemIdentifier == lineage.systemIdentifier, backups: lineage.backupCount,
      newest: lineage.newest.map(backup), newestGood: lineage.newestGood.map(backup),
      recoverable: lineage.window.map {
        ListCommand.Window(
          from: RecoveryTime(microseconds: $0.from).description, to: RecoveryTime(microseconds: $0.to).description)
      }, singleMoments: lineage.singleMoments,
      newestWALAgeSeconds: lineage.window.map { status.now - Double($0.lastSegmentSealed) / 1e6 },
      holds: lineage.holds.map { HoldReport($0, lineage.systemIdentifier) }, unusable: lineage.unusable,
      lastDrill: lineage.drill.map {
        Drill(
          name: $0.name, time: isoTime($0.stored), ageSeconds: status.now - $0.stored, ok: $0.ok,
          rtoSeconds: $0.rtoSeconds, rtoMet: $0.rtoMet, rpoMet: $0.rpoMet)
      })
  }

  private func text(_ report: Report) -> String {
    func age(_ seconds: Double) -> String { "\(RepositoryStatus.text(seconds)) ago" }
    var lines: [String] = []
    for region in report.regions {
      lines.append(
        "region \(region.name): \(region.failure.map { "DOWN, \($0)" } ?? "answers"), \(region.debts) debts, \(region.location)"
      )
    }
    if report.lineages.isEmpty { lines.append("there is no backup yet") }
    for lineage in report.lineages {
      lines.append(
        "lineage \(lineage.systemIdentifier)\(lineage.current ? "" : ", left behind"): \(lineage.backups) backups")
      if let newest = lineage.newest {
        lines.append(
          "  newest \(newest.label), \(newest.stopTime), \(age(newest.ageSeconds))\(newest.suspect ? ", SUSPECT" : "")")
      }
      if let window = lineage.recoverable { lines.append("  recoverable from \(window.from) to \(window.to)") }
      if !lineage.singleMoments.isEmpty {
        lines.append("  and to the end of \(lineage.singleMoments.joined(separator: ", "))")
      }
      if let age = lineage.newestWALAgeSeconds { lines.append("  newest WAL \(RepositoryStatus.text(age)) old") }
      for hold in lineage.holds {
        lines.append("  held: \(hold.label)\(hold.reason.isEmpty ? "" : ", \(hold.reason)")")
      }
      if let drill = lineage.lastDrill {
        let outcome = drill.ok.map { $0 ? "passed" : "FAILED" } ?? "its report can't be opened here"
        let rto = drill.rtoSeconds.map { ", RTO \(Seconds($0))" } ?? ""
        lines.append("  last drill \(drill.name), \(age(drill.ageSeconds)): \(outcome)\(rto)")
      } else {
        lines.append("  last drill: never")
      }
    }
    if let verification = report.lastVerification {
      lines.append(
        "last verification on this host \(verification.finished): \(verification.samplePercent) %, \(verification.findings) findings"
      )
    } else {
      lines.append("last verification on this host: never")
    }
    let objectives = [("RTO", report.objectives.rtoSeconds), ("RPO", report.objectives.rpoSeconds)]
      .map { "\($0) \($1.map { "\(Seconds($0))" } ?? "none")" }
    lines.append("objectives: \(objectives.joined(separator: ", "))")
    for need in report.needs {
      lines.append("NEEDS YOU: \(need.kind.rawValue) \(need.subject): \(need.detail)")
      if let next = need.next { lines.append("           next: \(next)") }
    }
    lines += report.unknown.map { "NEEDS YOU: can't be found out: \($0)" }
    lines.append(report.ok ? "all is well" : "something needs a person")
    return lines.joined(separator: "\n") + "\n"
  }
}
