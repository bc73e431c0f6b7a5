// The record of one drill: what was restored, how long each phase took, what was proven and what was not. It is stored as
// JSON and read for years, so fields are added, never changed. docs/json-output.md describes it.
import BackupRepository
import Diagnostics
import Foundation
import PointInTimeRestore

package struct DrillReport: Sendable, Codable {
  package static let currentFormat = 1
  /// JSON that is accepted from a region.
  package static let byteCountMax = 16 << 20

  package struct Phase: Sendable, Codable, Equatable {
    package var name: String
    package var seconds: Double
    package var bytes: Int64
    /// Whether it is part of the recovery time.
    package var countsForRTO: Bool
  }
  package struct Backup: Sendable, Codable {
    package var label: String
    package var timeline: UInt32
    package var startLSN: String
    package var stopLSN: String
    package var stopTime: String
    package var serverVersion: Int
    package var databaseBytes: Int64
  }
  package struct Reached: Sendable, Codable {
    package var lsn: String?
    package var time: String?
    package var timeline: UInt32?
  }
  package struct Window: Sendable, Codable {
    package var from: String
    package var to: String
  }
  package struct Traffic: Sendable, Codable {
    package var bytes: Int64
    package var requests: Int
    package var failures: Int
  }
  package enum Outcome: String, Sendable, Codable {
    case passed, failed, skipped
  }
  package struct Check: Sendable, Codable {
    package var name: String
    package var subject: String
    package var outcome: Outcome
    /// "finding" fails the drill, "remark" doesn't.
    package var severity: String
    package var detail: String
    package var seconds: Double
  }
  package struct Assertion: Sendable, Codable {
    package var name: String
    package var database: String
    package var query: String
    package var expectation: String
    package var severity: String
    package var outcome: Outcome
    /// The query's answer, or why there is none.
    package var answer: String?
    package var seconds: Double
  }
  package struct Failure: Sendable, Codable {
    package var code: String
    package var summary: String
    package var object: String?
    package var cause: String?
    package var next: String?

    init(_ error: TidemarkError) {
      code = error.code.rawValue
      summary = error.summary
      object = error.object
      cause = error.cause
      next = error.next
    }
  }
  package struct Limits: Sendable, Codable {
    package var memoryBytes: Int
    package var diskBytes: Int64?
    /// The most that the scratch directory was seen to take.
    package var diskBytesSeen: Int64
  }

  package var format = DrillReport.currentFormat
  /// Names the report in the regions.
  package var name: String
  package var cluster: String
  package var systemIdentifier: String
  package var host: String
  package var toolVersion: String
  package var began: String
  package var ended = ""
  /// The region that it restored from; absent: whichever answered.
  package var region: String?
  /// latest, time, lsn, xid, name, backup-end or random
  package var moment: String
  package var target: String
  package var seed: UInt64?
  package var window: Window?
  package var backup: Backup?
  package var walSegments = 0
  package var reached: Reached?
  package var phases: [Phase] = []
  package var rtoSeconds: Double?
  package var rtoObjectiveSeconds: Double?
  package var rtoMet: Bool?
  package var rpoSeconds: Double?
  package var rpoObjectiveSeconds: Double?
  package var rpoMet: Bool?
  /// WAL that the running cluster had written when the drill began and the restore didn't have.
  package var liveBytesAhead: Int64?
  /// Of the running cluster's newest 10,000 transactions those that were committed when the drill began and that the
  /// restore didn't bring back.
  package var transactionsLost: Int?
  package var regions: [String: Traffic] = [:]
  package var events: [RegionEvent] = []
  package var checks: [Check] = []
  package var assertions: [Assertion] = []
  package var limits: Limits
  /// Why the restore itself failed.
  package var failure: Failure?
  package var findings: [String] = []
  package var remarks: [String] = []
  /// How it compares with earlier drills, and what would shorten the recovery.
  package var comparison: [String] = []
  package var advice: [String] = []
  package var ok = false

  /// - Throws: `format-version-unknown`, `object-damaged`.
  package init(decoding bytes: [UInt8], object: String) throws(TidemarkError) {
    struct Format: Codable { var format: Int }
    do {
      let format = try JSONDecoder().decode(Format.self, from: Data(bytes)).format
      guard format == Self.currentFormat else {
        throw TidemarkError(
          .formatVersionUnknown, "the drill's report has a format that this version doesn't know", object: object,
          cause: "format \(format)", next: "read it with the version of Tidemark that wrote it, or a newer one")
      }
      self = try JSONDecoder().decode(DrillReport.self, from: Data(bytes))
    } catch let error as TidemarkError { throw error } catch {
      throw TidemarkError(.objectDamaged, "the drill's report can't be read", object: object, cause: "\(error)")
    }
  }

  package func encoded() throws(TidemarkError) -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
    do { return [UInt8](try encoder.encode(self)) } catch {
      throw TidemarkError(.internalFault, "cannot encode the drill's report", cause: "\(error)")
    }
  }

  init(name: String, cluster: String, systemIdentifier: String, began: String, _ request: DrillRequest) {
    self.name = name
    self.cluster = cluster
    self.systemIdentifier = systemIdentifier
    self.began = began
    host = ProcessInfo.processInfo.hostName
    toolVersion = request.toolVersion
    region = request.region
    moment = "latest"
    target = RecoveryTarget.latest.description
    limits = Limits(memoryBytes: request.memory, diskBytes: request.disk, diskBytesSeen: 0)
    rtoObjectiveSeconds = request.rtoObjective?.seconds
    rpoObjectiveSeconds = request.rpoObjective?.seconds
  }

  /// The recovery's longest phase.
  package var dominantPhase: Phase? { phases.filter(\.countsForRTO).max { $0.seconds < $1.seconds } }
}

extension RecoveryTarget {
  /// The word for the report.
  var kindText: String {
    switch self {
    case .time: "time"
    case .lsn: "lsn"
    case .xid: "xid"
    case .name: "name"
    case .backupEnd: "backup-end"
    case .latest: "latest"
    }
  }
}
