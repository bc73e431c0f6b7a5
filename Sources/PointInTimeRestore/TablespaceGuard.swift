// Tablespaces that were created after the backup. Their replay needs their directory, and would write into whatever is
// there: into the live cluster's own tablespace, where the restore runs beside it. So before PostgreSQL gets a segment,
// the directories that it will create tablespaces in are made, and one that holds anything already is refused; or, in the
// cluster's own place, what it holds is set aside: the replay would take its pages for newer than its own.
import BackupRepository
import Diagnostics
import Glibc
import PostgresFormats
import Synchronization
import SystemSupport

package final class TablespaceGuard: Sendable {
  /// Bytes of a record's rest: `xl_tblspc_create_rec` with the longest path fits.
  private static let continuationByteCount = 2048

  private struct Seen: Sendable {
    var unfinished: UnfinishedWALRecord?
    var continuation: [UInt8]
    var version: PostgresVersion
  }

  private let tree: OwnedTree
  /// A scratch copy touches nothing outside its directory, so no such tablespace is made for it.
  private let isIsolated: Bool
  /// In the cluster's own place its tablespaces are its own.
  private let isTheCluster: Bool
  private let sideDirectory: String
  private let end: LSN?
  /// Names the locations that this restore made, since a replay may come by them again.
  private let record: String
  private let seen = Mutex<[WALSegmentName: Seen]>([:])
  /// One at a time, so that two segments can't both find a location unused.
  private let checking = Mutex(())
  private let setAside = Mutex<[String]>([])

  /// - Parameter end: records behind it are not replayed; `nil` when that isn't known.
  package init(sideDirectory: String, tree: OwnedTree, isIsolated: Bool, isTheCluster: Bool, end: LSN?) {
    self.isTheCluster = isTheCluster
    self.sideDirectory = sideDirectory
    self.end = end
    self.isIsolated = isIsolated
    record = "\(sideDirectory)/tablespaces"
    self.tree = tree
  }

  /// Lets the replay create tablespaces in `locations`, which are the restored cluster's own.
  func own(_ locations: [String]) throws(TidemarkError) {
    if locations.isEmpty { return }
    try tree.write(locations.map { "\($0)\n" }.joined(), to: record)
  }

  /// What the operator should know of what was set aside.
  var remarks: [String] { setAside.withLock { $0.map(DeltaPreparation.tablespaceRemark) } }

  /// Examines the segment that lies at `path` before it is handed out. Segments come in any order, but each before
  /// PostgreSQL gets it.
  /// - Throws: `path-unsafe` for a tablespace whose location is in use.
  package func inspect(_ name: WALSegmentName, at path: String, _ size: WALSegmentSize) throws(TidemarkError) {
    try MappedFile(path, limit: size.byteCount).withBytes { bytes throws(TidemarkError) in
      try inspect(name, bytes, size)
    }
  }

  package func inspect(
    _ name: WALSegmentName, _ buffer: UnsafeRawBufferPointer, _ size: WALSegmentSize
  ) throws(TidemarkError) {
    var events: [WALRecordEvent] = []
    let summary = try WALSegmentScanner.scan(buffer, name: name) { event in
      if case .createTablespace = event { events.append(event) }
    }
    let here = Seen(
      unfinished: summary.unfinished,
      continuation: try WALSegmentScanner.continuation(buffer, name: name, limit: Self.continuationByteCount),
      version: try WALSegmentScanner.version(buffer))
    let next = try name.next(size)
    // What the neighbours lack: whichever of two comes second puts the record between them together.
    let (before, after) = seen.withLock { seen in
      seen[name] = here
      // Behind the last name of a timeline there is none.
      return (seen.first { (try? $0.key.next(size)) == name }?.value, seen[next])
    }
    for (left, right) in [(before, here as Seen?), (here, after)] {
      guard let left, let right, let record = left.unfinished, !record.bytes.isEmpty else { continue }
      if let event = WALSegmentScanner.event(record, continuation: right.continuation, version: right.version) {
        events.append(event)
      }
    }
    // One without a directory of its own lies in the data directory, and does no harm.
    for case .createTablespace(_, let location, let lsn) in events
    where location.hasPrefix("/") && end.map({ lsn <= $0 }) ?? true {
      try prepare(location, name, here.version)
    }
    seen.withLock { seen in
      // Long done with: neither is a neighbour of one that is still to come.
      for key in seen.keys where (key.log, key.segment) < (name.log, name.segment) && seen.count > 256 {
        seen[key] = nil
      }
    }
  }

  /// Whether a record that matters may go on behind `name`, which was inspected.
  package func mayContinue(_ name: WALSegmentName) -> Bool {
    seen.withLock { $0[name]?.unfinished?.bytes.isEmpty == false }
  }

  private func prepare(
    _ location: String, _ name: WALSegmentName, _ version: PostgresVersion
  ) throws(TidemarkError) {
    if isIsolated {
      throw TidemarkError(
        .pathUnsafe, "the WAL creates a tablespace after the backup, and a copy can't be kept out of its directory",
        object: location, cause: "in segment \(name)", kept: "the tablespace: the segment wasn't replayed",
        next: "take a backup and repeat the drill, or drill to a moment before the tablespace was made")
    }
    let result = checking.withLock { _ in
      Result { () throws(TidemarkError) in
        let own = fileExists(record) ? String(decoding: try readFile(record), as: UTF8.self) : ""
        if own.split(separator: "\n").contains(Substring(location)) { return }
        let path = try SafePath.absolute(location.utf8)
        if isDirectory(path) {
          let entries = try directoryEntries(path).filter { $0 != "lost+found" }
          guard entries.isEmpty || isTheCluster else {
            throw TidemarkError(
              .pathUnsafe,
              "a tablespace that was created after the backup would be replayed into a directory in use",
              object: path, cause: "segment \(name) creates it; the directory holds \(entries.count) entries",
              kept: "everything there, unchanged",
              next:
                "restore on a host without it, to a moment before it, or from a backup taken after it with --tablespace-map"
            )
          }
          if !entries.isEmpty { try setAside(path, version) }
          try tree.give(path)
        } else {
          try tree.makeDirectories(path)
        }
        try tree.write(own + location + "\n", to: record)
      }
    }
    try result.get()
  }

  /// Keeps what PostgreSQL had in the tablespace, under another name. Nothing else there is the cluster's.
  private func setAside(_ path: String, _ version: PostgresVersion) throws(TidemarkError) {
    var others = Set(try Postmaster.processes().map(\.directory))
    // The server that is recovering is one of them.
    let target = String(sideDirectory.dropLast(".tidemark".count))
    others.remove(resolvedPath(target) ?? target)
    try DeadCluster.requireNotLive([path], of: others)
    for name in try RestoreTarget.versionDirectories(path, major: version.rawValue) {
      let aside = DeltaPreparation.asideName("\(path)/\(name)")
      if rename("\(path)/\(name)", aside) != 0 { throw systemError("cannot set the tablespace aside", path) }
      try DurableFile.synchronizeDirectory(of: aside)
      CrashPoint.reach("tablespace.after-aside")
    }
    // Those of a restore before, which was killed and may not have told, are told as well.
    let kept = try directoryEntries(path).filter { $0.contains(DeltaPreparation.asideMark) }.sorted()
    setAside.withLock { $0 += kept.map { "\(path)/\($0)" } }
  }
}
