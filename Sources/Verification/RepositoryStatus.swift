// The state of a repository at a glance, as far as it can be asked, and what of it needs a person. Gathering writes
// nothing into the regions.
import BackupRepository
import PostgresFormats

/// Something that a person should look at.
package struct StatusNeed: Sendable, Codable, Equatable {
  package enum Kind: String, Sendable, Codable {
    case region, backup, suspect, unusable
    case walHole = "wal-hole"
    case walAge = "wal-age"
    case debts, drill, verification, clock, objective
  }
  package var kind: Kind
  package var subject: String
  package var detail: String
  /// One command or one check.
  package var next: String?

  package init(_ kind: Kind, _ subject: String, _ detail: String, next: String? = nil) {
    self.kind = kind
    self.subject = subject
    self.detail = detail
    self.next = next
  }
}

package struct RegionStatus: Sendable, Codable, Equatable {
  package var name: String
  package var location: String
  /// Why it can't be asked; absent when it can.
  package var failure: String?
  /// Since when this host has seen it fail.
  package var failingForSeconds: Double?
  package var debts: Int
  package var clockOffsetSeconds: Double?
}

/// The newest drill's report, as far as this host can read it.
package struct DrillStatus: Sendable, Codable, Equatable {
  package var name: String
  /// Seconds since 1970.
  package var stored: Double
  /// Absent when this host has no key that opens the report.
  package var ok: Bool?
  package var rtoSeconds: Double?
  package var rtoMet: Bool?
  package var rpoMet: Bool?
}

package struct NewestBackup: Sendable, Codable, Equatable {
  package var label: String
  package var stopTime: Double
  package var isSuspect: Bool
}

package struct LineageStatus: Sendable {
  package var systemIdentifier: SystemIdentifier
  package var backupCount = 0
  /// The newest one, and the newest one without damaged pages.
  package var newest: NewestBackup?
  package var newestGood: NewestBackup?
  /// The stretch that leads to the newest timeline's end, or else the one of the newest backup.
  package var window: RecoverableStretch?
  /// Backups outside of it, which may restore to their own end and not beyond.
  package var singleMoments: [String] = []
  package var walHoles: [WALHole] = []
  package var unusable: [String] = []
  package var holds: [BackupHold] = []
  package var drill: DrillStatus?
}

package struct RepositoryStatus: Sendable {
  /// Seconds since 1970.
  package var now: Double
  package var regions: [RegionStatus] = []
  package var lineages: [LineageStatus] = []
  package var verification: FinishedVerification?
  /// What couldn't be found out, and why.
  package var unknown: [String] = []

  /// The lineage that is backed up now: the one with the newest backup. The others are history.
  package var current: LineageStatus? {
    lineages.max { ($0.newest?.stopTime ?? 0) < ($1.newest?.stopTime ?? 0) }
  }
}

/// Above what a person is asked for. `nil`: never.
package struct StatusLimits: Sendable {
  package var backupAge: Duration?
  package var walAge: Duration?
  package var drillAge: Duration?
  package var verifyAge: Duration?
  package var debts = 0
  package init() {}
}

extension RepositoryStatus {
  private static let clockOffsetMax = 60.0

  /// What needs a person: pure.
  package func needs(_ limits: StatusLimits) -> [StatusNeed] {
    var needs: [StatusNeed] = []
    for region in regions {
      if let failure = region.failure {
        needs.append(StatusNeed(.region, region.name, "can't be asked: \(failure)", next: "tidemark check"))
      }
      if region.debts > limits.debts {
        needs.append(
          StatusNeed(.debts, region.name, "\(region.debts) objects are owed to it", next: "tidemark sync"))
      }
      if let offset = region.clockOffsetSeconds, abs(offset) > Self.clockOffsetMax {
        needs.append(
          StatusNeed(
            .clock, region.name, "its clock differs by \(Int(offset)) s from this host's", next: "timedatectl"))
      }
    }
    for lineage in lineages {
      for object in lineage.unusable {
        needs.append(StatusNeed(.unusable, object, "a manifest that can't be used", next: "tidemark verify"))
      }
      for hole in lineage.walHoles {
        needs.append(
          StatusNeed(
            .walHole, hole.first.description, "missing up to \(hole.last): \(hole.reason)",
            next: "'tidemark wal-push' it if pg_wal still has it; else take a backup"))
      }
    }
    needs += currentNeeds(limits)
    if let limit = limits.verifyAge {
      if let verification {
        let age = now - Double(verification.finished)
        if age > limit.seconds {
          needs.append(StatusNeed(.verification, "last", "finished \(Self.text(age)) ago", next: "tidemark verify"))
        }
      } else {
        needs.append(StatusNeed(.verification, "last", "never on this host", next: "tidemark verify"))
      }
    }
    if let verification, verification.findingCount > 0 {
      needs.append(
        StatusNeed(.verification, "last", "had \(verification.findingCount) findings", next: "tidemark verify"))
    }
    return needs
  }

  private func currentNeeds(_ limits: StatusLimits) -> [StatusNeed] {
    guard let current, let newest = current.newest else {
      return [StatusNeed(.backup, "newest", "there is no backup", next: "tidemark backup")]
    }
    var needs: [StatusNeed] = []
    if newest.isSuspect {
      needs.append(
        StatusNeed(
          .suspect, newest.label, "the server found damaged pages", next: "find the damaged relations in its log"))
    }
    if let good = current.newestGood {
      let age = now - good.stopTime
      if let limit = limits.backupAge, age > limit.seconds {
        needs.append(
          StatusNeed(
            .backup, good.label, "the newest good backup is \(Self.text(age)) old (limit \(Self.text(limit.seconds)))",
            next: "tidemark backup"))
      }
    } else {
      needs.append(StatusNeed(.backup, newest.label, "no backup is without damaged pages", next: "tidemark backup"))
    }
    if let limit = limits.walAge {
      let age = (current.window?.lastSegmentSealed).map { now - Double($0) / 1e6 }
      if let age, age <= limit.seconds {
      } else {
        needs.append(
          StatusNeed(
            .walAge, "archive",
            age.map { "the newest WAL is \(Self.text($0)) old (limit \(Self.text(limit.seconds)))" }
              ?? "no WAL is there",
            next: "look for errors of archive_command in the server's log"))
      }
    }
    if let drill = current.drill {
      if drill.ok == false {
        needs.append(StatusNeed(.drill, drill.name, "the last drill failed", next: "tidemark drill"))
      }
      if drill.rtoMet == false || drill.rpoMet == false {
        needs.append(StatusNeed(.objective, drill.name, "the last drill missed an objective", next: "tidemark drill"))
      }
      if let limit = limits.drillAge, now - drill.stored > limit.seconds {
        needs.append(
          StatusNeed(
            .drill, drill.name, "the last drill was \(Self.text(now - drill.stored)) ago", next: "tidemark drill"))
      }
    } else if limits.drillAge != nil {
      needs.append(StatusNeed(.drill, "last", "there was none", next: "tidemark drill"))
    }
    return needs
  }

  /// Seconds for people: "3 h", "2 d".
  package static func text(_ seconds: Double) -> String {
    switch abs(seconds) {
    case ..<120: "\(Int(seconds)) s"
    case ..<7200: "\(Int(seconds / 60)) min"
    case ..<172_800: "\(Int(seconds / 3600)) h"
    default: "\(Int(min(abs(seconds) / 86400, 1e9))) d"
    }
  }
}
