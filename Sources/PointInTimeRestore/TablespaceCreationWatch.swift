// Looks for the creation of tablespaces in WAL before it is replayed. The record names a directory of the original's
// host; a copy on the same host that replays it writes into the live tablespace (tblspc_redo takes a directory that is
// there, tablespace.c), and no setting turns it elsewhere. A scratch copy replays no such record at all, another copy
// none whose directory is in use. Only the recovery of the cluster itself, in its own place, needs no watch.
import Diagnostics
import PostgresFormats
import Synchronization
import SystemSupport

/// Looks at segments in any order; a record that spans two of them is found when both were looked at.
final class TablespaceCreationWatch: Sendable {
  private let joint = Mutex(WALRecordJoint())
  private let isIsolated: Bool

  init(isIsolated: Bool) { self.isIsolated = isIsolated }

  /// - Throws: `path-unsafe` when the segment, or a record that it completes, creates a tablespace where it must not.
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
    let harmful = found.first { $0.hasPrefix("/") && (isIsolated || Self.isInUse($0)) }
    guard let location = harmful else { return }
    throw TidemarkError(
      .pathUnsafe, "the WAL creates a tablespace after the backup, and a copy can't be kept out of its directory",
      object: location, cause: "in segment \(name)", kept: "the tablespace: the segment wasn't replayed",
      next: "take a backup, which knows the tablespace, and repeat this, or choose a moment before it was made")
  }

  /// Whether some cluster's tablespace lies there: a directory such as `PG_15_202209061` with something in it.
  private static func isInUse(_ location: String) -> Bool {
    let names = (try? directoryEntries(location)) ?? []
    return names.contains { name in
      name.wholeMatch(of: /PG_\d+_\d+/) != nil && (try? directoryEntries("\(location)/\(name)"))?.isEmpty != true
    }
  }
}
