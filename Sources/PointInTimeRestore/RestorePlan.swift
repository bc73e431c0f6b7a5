// What a restore will do, decided before a byte is written.
import BackupRepository
import Diagnostics
import Foundation
import PostgresFormats
import SystemSupport

/// One timeline on the way to the target.
package struct TimelineLeg: Sendable, Codable, Equatable {
  package var timeline: UInt32
  /// The first and last segments that are needed of it; empty when none is.
  package var firstSegment: String?
  package var lastSegment: String?
}

package struct RestorePlan: Sendable {
  package var backup: CatalogedBackup
  package var target: RecoveryTarget
  package var targetTimeline: TimelineID
  package var legs: [TimelineLeg]
  /// All segments that may be needed, in the order of replay.
  package var segments: [WALSegmentName]
  /// The timelines whose history the regions hold: all of them, since a promotion must find a free number.
  package var histories: [TimelineID]
  package var segmentSize: WALSegmentSize
  /// What the operator should know of the choice.
  package var remarks: [String] = []
  /// Where the replay ends, as far as that is known: no record that begins behind it is replayed.
  package var end: LSN?
  /// Regions that couldn't be asked: the end of WAL is what the others hold.
  package var regionsNotAsked: [String]
  /// Bytes that the files need on disk.
  package var byteCount: Int64 { backup.manifest.databaseBytes }
  package var walByteCount: Int64 { Int64(segments.count) * Int64(segmentSize.byteCount) }
}

/// The part of a plan that `wal-fetch` needs: kept as a file beside the target directory while recovery runs.
package struct RecoveryPlanFile: Sendable, Codable, Equatable {
  package var format = 1
  package var systemIdentifier: String
  /// Segments by name; nothing else exists as far as this recovery goes.
  package var legs: [TimelineLeg]
  package var histories: [UInt32]
  package var spool: String
  /// Locked by `restore` for as long as it lives and fills the spool.
  package var lock: String
  package var region: String?
  /// Nothing is fetched but what `restore` itself checked and put into the spool.
  package var isIsolated: Bool?
  /// The plan's end.
  package var end: String?

  package func encoded() throws(TidemarkError) -> [UInt8] {
    do { return [UInt8](try JSONEncoder().encode(self)) } catch {
      throw TidemarkError(.internalFault, "cannot encode the plan", cause: "\(error)")
    }
  }

  /// Where `restore_command` looks for it.
  func write(_ sideDirectory: String, _ tree: OwnedTree) throws(TidemarkError) {
    try tree.write(String(decoding: try encoded(), as: UTF8.self), to: "\(sideDirectory)/plan.json")
  }

  package init(decoding bytes: [UInt8], path: String) throws(TidemarkError) {
    do { self = try JSONDecoder().decode(RecoveryPlanFile.self, from: Data(bytes)) } catch {
      throw TidemarkError(.configurationUnreadable, "the recovery plan can't be read", object: path, cause: "\(error)")
    }
  }

  package init(
    systemIdentifier: String, legs: [TimelineLeg], histories: [UInt32], spool: String, lock: String, region: String?,
    isIsolated: Bool? = nil, end: String? = nil
  ) {
    self.end = end
    self.systemIdentifier = systemIdentifier
    self.legs = legs
    self.histories = histories
    self.spool = spool
    self.lock = lock
    self.region = region
    self.isIsolated = isIsolated
  }

  /// Whether the plan has `file`. What it doesn't have is beyond the end that the plan fixed, and so is absent.
  package func has(_ file: WALFileName) -> Bool {
    switch file {
    case .history(let timeline): return histories.contains(timeline.rawValue)
    case .segment(let name):
      guard let leg = legs.first(where: { $0.timeline == name.timeline.rawValue }),
        let first = leg.firstSegment, let last = leg.lastSegment
      else { return false }
      let text = name.description
      return first <= text && text <= last
    case .partial, .backupHistory: return false
    }
  }
}
