// Looks for the creation of tablespaces in WAL before it is replayed. The record names a directory of the original's
// host; a copy on the same host that replays it would write into the live tablespace, and no setting turns it elsewhere.
import Diagnostics
import PostgresFormats
import Synchronization

/// Looks at segments in any order; a record that spans two of them is found when both were looked at.
final class TablespaceCreationWatch: Sendable {
  private let joint = Mutex(WALRecordJoint())

  /// - Throws: `path-unsafe` when the segment, or a record that it completes, creates a tablespace somewhere.
  func look(at bytes: [UInt8], _ name: WALSegmentName) throws(TidemarkError) {
    var found: [String] = []
    let result = bytes.withUnsafeBytes { buffer in
      Result { () throws(TidemarkError) in
        let summary = try WALSegmentScanner.scan(buffer, name: name) { event in
          if case .tablespaceCreation(let location, _) = event { found.append(location) }
        }
        let first = try WALPageHeader(parsing: buffer)
        found += joint.withLock { $0.tablespacesCreated(summary.cutRecord, first, buffer) }
      }
    }
    try result.get()
    // Without a directory of its own it lies in the data directory, and does no harm.
    guard let location = found.first(where: { $0.hasPrefix("/") }) else { return }
    throw TidemarkError(
      .pathUnsafe, "the WAL creates a tablespace after the backup, and a copy can't be kept out of its directory",
      object: location, cause: "in segment \(name)", kept: "the tablespace: the segment wasn't replayed",
      next: "take a backup and repeat the drill, or drill to a moment before the tablespace was made")
  }
}
