// The directories that a restore writes into. They are refused unless they are empty, or for a delta restore those of the
// same cluster: neither a running cluster nor anybody else's tablespace is ever written over.
import BackupRepository
import Diagnostics
import Glibc
import PostgresFormats
import SystemSupport

/// Where the files go.
package struct RestoreTarget: Sendable {
  package let directory: String
  /// Tablespace oid → location on this host.
  package let tablespaces: [UInt32: String]
  /// Where `pg_wal` leads, when it is a link.
  let walDirectory: String?
  /// What a delta restore writes over.
  let deadCluster: DeadCluster?
  /// Beside the data directory, on the same file system: the plan, the WAL spool, the server's log.
  package var sideDirectory: String { "\(directory).tidemark" }
  var spoolDirectory: String { "\(sideDirectory)/spool" }

  /// Checks everything and writes nothing.
  /// - Parameter configured: the data directory of the configuration.
  /// - Throws: `target-in-use`, `target-not-empty`, `usage`, `space-insufficient`, `system-identifier-foreign`.
  package init(_ request: RestoreRequest, _ plan: RestorePlan, configured: String?) throws(TidemarkError) {
    guard request.targetDirectory.hasPrefix("/") else {
      throw TidemarkError(.usage, "the target directory must be an absolute path", object: request.targetDirectory)
    }
    var path = request.targetDirectory
    while path.count > 1 && path.hasSuffix("/") { path.removeLast() }
    directory = path
    try Self.requireUnused(path)
    deadCluster = request.isDelta ? try Self.deadCluster(path, plan.backup.manifest) : nil
    if deadCluster == nil {
      let isUnfinished = fileExists(path) ? try UnfinishedRestore(in: "\(path).tidemark") != nil : false
      try Self.requireEmpty(
        path, what: "the target directory",
        next: RestoreState.next(path)
          ?? (isUnfinished
            ? "a restore into it didn't come to its end: repeat it with --delta to continue, or empty the directory"
            : "choose an empty directory, or move its contents away; for the same cluster's own: --delta"))
    }
    let known = Set(plan.backup.manifest.tablespaces.map(\.location))
    if let unknown = request.tablespaceMap.keys.first(where: { !known.contains($0) }) {
      throw TidemarkError(
        .usage, "the backup has no tablespace at this location", object: unknown,
        next: known.isEmpty ? "it has none at all" : "its tablespaces: \(known.sorted().joined(separator: ", "))")
    }
    var tablespaces: [UInt32: String] = [:]
    for tablespace in plan.backup.manifest.tablespaces {
      let own = deadCluster?.tablespaces[tablespace.oid]
      let elsewhere = request.tablespaceDirectory.map { "\($0)/\(tablespace.oid)" }
      let wanted = request.tablespaceMap[tablespace.location] ?? own ?? elsewhere ?? tablespace.location
      guard wanted.hasPrefix("/") else {
        throw TidemarkError(.usage, "a tablespace's new location must be an absolute path", object: wanted)
      }
      let location = try SafePath.absolute(wanted.utf8)
      if location != own || !DeadCluster.isReal(location, S_IFDIR) {
        try Self.requireEmpty(
          location, what: "the tablespace's location",
          next: "put it elsewhere: --tablespace-map \(tablespace.location)=/NEW/LOCATION")
      }
      tablespaces[tablespace.oid] = location
    }
    self.tablespaces = tablespaces
    walDirectory = try request.walDirectory.map { (wanted) throws(TidemarkError) in
      guard wanted.hasPrefix("/") else {
        throw TidemarkError(.usage, "the directory for WAL must be an absolute path", object: wanted)
      }
      let location = try SafePath.absolute(wanted.utf8)
      // What a restore that was killed before any WAL came has left there.
      let status = "\(location)/archive_status"
      let marks = isDirectory(status) ? try directoryEntries(status) : nil
      try Self.requireEmpty(
        location, what: "the directory for WAL", besides: marks?.isEmpty == true ? ["archive_status"] : [],
        next: "name an empty or a new one")
      return location
    }
    try requireApart()
    try deadCluster?.requireUnused(configured: configured, using: tablespaces.values + laterTablespaces)
    try requireSpace(plan, limit: request.byteCountMax)
  }

  /// The directory of a restore that is gone on with. What is in it is looked at elsewhere.
  init(continuing path: String) throws(TidemarkError) {
    guard path.hasPrefix("/") else {
      throw TidemarkError(.usage, "the target directory must be an absolute path", object: path)
    }
    var path = path
    while path.count > 1 && path.hasSuffix("/") { path.removeLast() }
    directory = path
    tablespaces = [:]
    walDirectory = nil
    deadCluster = nil
  }

  /// - Throws: `target-in-use` when the process that the server's own file names may be a server there.
  static func requireUnused(_ path: String) throws(TidemarkError) {
    let file = "\(path)/postmaster.pid"
    guard fileExists(file) else { return }
    let bytes: [UInt8]
    // A file that can't be read may be a running server's.
    do throws(TidemarkError) { bytes = try readFile(file, limit: 4096) } catch {
      if !fileExists(file) { return }
      throw error
    }
    guard
      let pid = String(decoding: bytes, as: UTF8.self).split(separator: "\n").first.flatMap({ pid_t($0) }),
      kill(pid, 0) == 0 || errno == EPERM, !Postmaster.isElsewhere(pid, path)
    else { return }
    throw TidemarkError(
      .targetInUse, "a PostgreSQL server runs in the target directory", object: path, cause: "its process is \(pid)",
      kept: "the running cluster, unchanged",
      next: RestoreState.next(path) ?? "stop it, or choose another directory")
  }

  private static func requireEmpty(
    _ path: String, what: String, besides known: [String] = [], next: String
  ) throws(TidemarkError) {
    var status = stat()
    guard lstat(path, &status) == 0 else { return }
    guard status.st_mode & S_IFMT == S_IFDIR else {
      throw TidemarkError(.targetNotEmpty, "\(what) is something else than a directory", object: path)
    }
    // An empty file system has this.
    let entries = try directoryEntries(path).filter { $0 != "lost+found" && !known.contains($0) }
    guard entries.isEmpty else {
      throw TidemarkError(
        .targetNotEmpty, "\(what) isn't empty", object: path, cause: "it holds \(entries.count) entries",
        kept: "everything there, unchanged", next: next)
    }
  }

  /// No directory of the restore may lie in another: PostgreSQL would take the one for a part of the other.
  private func requireApart() throws(TidemarkError) {
    let places =
      [directory, sideDirectory, walDirectory].compactMap(\.self) + tablespaces.sorted { $0.key < $1.key }.map(\.value)
    for (index, place) in places.enumerated() {
      for (other, otherPlace) in places.enumerated() where index != other {
        guard place == otherPlace || place.hasPrefix(otherPlace + "/") else { continue }
        throw TidemarkError(
          .usage, "two directories of the restore lie in one another", object: place, cause: "with \(otherPlace)",
          next: "give the data directory and each tablespace a place of its own")
      }
    }
  }

  /// What is free where `place` will be.
  private static func freeSpace(
    _ place: String
  ) throws(TidemarkError) -> (parent: String, device: dev_t, byteCount: Int64) {
    var parent = place
    while !isDirectory(parent) { parent = directoryName(parent) }
    var status = stat()
    var space = statvfs()
    guard stat(parent, &status) == 0, statvfs(parent, &space) == 0 else {
      throw systemError("cannot examine the file system", parent)
    }
    return (parent, status.st_dev, Int64(space.f_bavail) * Int64(space.f_frsize))
  }

  private func requireSpace(_ plan: RestorePlan, limit: Int64?) throws(TidemarkError) {
    // How the bytes divide among tablespaces isn't known before the file table is read: together they must fit.
    var existing: [String] = []
    var free: Int64 = 0
    var devices: Set<dev_t> = []
    for place in [directory] + tablespaces.values {
      let found = try Self.freeSpace(place)
      guard devices.insert(found.device).inserted else { continue }
      free += found.byteCount
      existing.append(found.parent)
    }
    // What is written over or removed makes room.
    free += try reusableByteCount(plan.backup.manifest)
    let spool = min(plan.walByteCount, Int64(WALSpool.segmentCountMax) * Int64(plan.segmentSize.byteCount))
    // As much as lies ready lies in pg_wal, too. A file system that begins at either holds that alone.
    let (replayed, side) = (try Self.freeSpace(walDirectory ?? directory), try Self.freeSpace(sideDirectory))
    let isApart = replayed.device != side.device
    let wal = isApart ? spool : spool * 2
    let needed = plan.byteCount + plan.byteCount / 50 + wal
    if let limit, needed > limit {
      throw TidemarkError(
        .spaceInsufficient, "the restore needs more space than it may take", object: directory,
        cause: "\(needed >> 20) MiB are needed, \(limit >> 20) MiB are allowed",
        kept: "everything: nothing was written",
        next: "raise the limit")
    }
    // The WAL goes into and beside the data directory, whatever the tablespaces take.
    for place in isApart ? [replayed, side] : [replayed] where place.byteCount < wal {
      throw TidemarkError(
        .spaceInsufficient, "there is too little space for the restore", object: place.parent,
        cause: "\(wal >> 20) MiB are needed for the WAL alone, \(place.byteCount >> 20) MiB are free",
        kept: "everything: nothing was written", next: "choose a larger file system")
    }
    guard free >= needed else {
      throw TidemarkError(
        .spaceInsufficient, "there is too little space for the restore", object: existing.joined(separator: ", "),
        cause: "\(needed >> 20) MiB are needed, \(free >> 20) MiB are free", kept: "everything: nothing was written",
        next: "choose a larger file system")
    }
  }
}
