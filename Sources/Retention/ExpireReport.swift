// What `expire` decided, did, and had to leave.
import BackupRepository
import PostgresFormats

/// Objects of one kind.
package struct ExpiredObjects: Sendable, Equatable, Codable {
  /// That stay because something needs them.
  package var kept = 0
  /// That nothing needs, and that stay until the grace is over or something that stands in the way is gone.
  package var waiting = 0
  package var deleted = 0
  /// Of the deleted ones, in one region.
  package var deletedBytes: Int64 = 0
  package init() {}
}

/// A deletion that a store refused, for now or for good.
package struct RefusedDeletion: Sendable, Equatable, Codable {
  package var region: String
  package var object: String
  package var reason: String
}

package struct LineageExpiry: Sendable {
  package var systemIdentifier: SystemIdentifier
  package var decisions: [BackupDecision] = []
  /// Labels whose manifest is gone, or would go in a dry run.
  package var expired: [String] = []
  /// Labels of backups without a manifest, with what is known of them.
  package var unfinished: [String: String] = [:]
  package var packs = ExpiredObjects()
  package var fileTables = ExpiredObjects()
  package var wal = ExpiredObjects()
  /// Data keys that were wrapped anew; they go when nothing is left of what they belong to.
  package var rewraps = ExpiredObjects()
  /// From where on all WAL is kept, on each timeline.
  package var continuousFrom: [WALSegmentName] = []
}

package struct ExpireReport: Sendable {
  package var isDryRun: Bool
  package var lineages: [LineageExpiry] = []
  /// Under Object Lock or the like: deleted by a later run, when the lock is over.
  package var locked: [RefusedDeletion] = []
  /// What needs a person.
  package var findings: [String] = []
  package var remarks: [String] = []
  /// Regions that couldn't be asked.
  package var regionsNotAsked: Set<String> = []

  package init(isDryRun: Bool) { self.isDryRun = isDryRun }
}
