// Makes a dead cluster's directory ready for a delta restore. The first step takes its control file away, so that from
// then on nothing can be started there; then WAL and tablespaces that the backup doesn't know are set aside, since they
// may be the only copy of what they hold; then everything that the backup doesn't have is removed. Each step may be
// repeated, by the same restore or by the next one.
import BackupRepository
import Diagnostics
import Foundation
import Glibc
import PostgresFormats
import SystemSupport

struct DeltaPreparation {
  /// What is left over where a file system of its own begins at the target, and nothing can be moved out of it.
  private static let keptPrefix = "pg_wal.tidemark-kept-"

  let cluster: DeadCluster
  let target: RestoreTarget
  let tree: OwnedTree
  let restorer: FileRestorer

  private var directory: String { target.directory }

  struct Outcome {
    var removedFileCount = 0
    /// Where WAL and tablespaces of the cluster that was here are kept, by this restore and those that it continues.
    var setAside: [String] = []
    var remarks: [String] = []
  }

  /// - Parameter mark: names what is set aside before it is moved; it is durable already.
  func run(_ mark: inout UnfinishedRestore) throws(TidemarkError) -> Outcome {
    var outcome = Outcome()
    try setControlFileAside()
    CrashPoint.reach("delta.after-control-file-aside")
    try setWALAside(&mark)
    CrashPoint.reach("delta.after-wal-aside")
    try setLaterTablespacesAside(&mark)
    outcome.removedFileCount = try removeLeftovers()
    CrashPoint.reach("delta.after-removal")
    outcome.setAside = mark.setAside.filter(fileExists)
    outcome.remarks = outcome.setAside.map(remark)
    return outcome
  }

  private func setControlFileAside() throws(TidemarkError) {
    let path = "\(directory)/\(DeadCluster.controlFile)"
    let aside = "\(path).tidemark-old"
    if cluster.isUnfinished { return }
    CrashPoint.reach("delta.before-control-file-aside")
    if rename(path, aside) != 0 { throw systemError("cannot rename the file", path) }
    try DurableFile.synchronizeDirectory(of: path)
    // A server that started in between has read its control file, and has made itself known before that.
    do throws(TidemarkError) {
      try RestoreTarget.requireUnused(directory)
      try cluster.requireUnused(configured: nil, using: [])
    } catch {
      if rename(aside, path) != 0 { throw systemError("cannot rename the file", aside) }
      throw error
    }
  }

  // MARK: Setting aside

  private func setWALAside(_ mark: inout UnfinishedRestore) throws(TidemarkError) {
    let path = "\(directory)/pg_wal"
    guard fileExists(path), try holdsWAL(path) || target.walDirectory != nil else { return }
    let name = "pg_wal-\(Self.stamp())"
    let beside = "\(target.sideDirectory)/\(name)"
    mark.setAside.append(beside)
    try mark.write(in: target.sideDirectory, tree)
    if rename(path, beside) != 0 {
      guard errno == EXDEV else { throw systemError("cannot set the WAL aside", path) }
      let inside = "\(directory)/\(Self.keptPrefix)\(name.dropFirst(7))"
      mark.setAside[mark.setAside.count - 1] = inside
      try mark.write(in: target.sideDirectory, tree)
      if rename(path, inside) != 0 { throw systemError("cannot set the WAL aside", path) }
    }
    try DurableFile.synchronizeDirectory(of: path)
    try DurableFile.synchronizeDirectory(of: beside)
  }

  /// Whether there is anything in `pg_wal` (a directory, or a link to one) that could be missed.
  private func holdsWAL(_ path: String) throws(TidemarkError) -> Bool {
    guard isDirectory(path) else { return false }
    // A name that isn't WAL's is no WAL.
    return try directoryEntries(path).contains { (try? WALFileName(text: $0)) != nil }
  }

  /// PostgreSQL's own directory in each, since a replay would take stale pages there for newer than its own.
  private func setLaterTablespacesAside(_ mark: inout UnfinishedRestore) throws(TidemarkError) {
    for location in target.laterTablespaces {
      for name in try versionDirectories(location) {
        let aside = Self.asideName("\(location)/\(name)")
        mark.setAside.append(aside)
        try mark.write(in: target.sideDirectory, tree)
        if rename("\(location)/\(name)", aside) != 0 {
          throw systemError("cannot set the tablespace aside", "\(location)/\(name)")
        }
        try DurableFile.synchronizeDirectory(of: aside)
      }
    }
  }

  static let asideMark = ".tidemark-kept-"

  /// Where what is at `path` is kept when it is set aside.
  static func asideName(_ path: String) -> String { "\(path)\(asideMark)\(stamp())" }

  /// Unlike any that was used before.
  private static func stamp() -> String {
    let time = RecoveryTime(microseconds: Int64(Date().timeIntervalSince1970 * 1_000_000)).description
    return time.filter { $0.isNumber || $0 == "." }.prefix(21) + "-\(getpid())"
  }

  static func tablespaceRemark(_ aside: String) -> String {
    "the directory of a tablespace that the backup doesn't have is kept: \(aside)"
  }

  private func remark(_ path: String) -> String {
    guard path.contains("pg_wal") else { return Self.tablespaceRemark(path) }
    var kept = "the WAL of the cluster that was here is kept: \(path)"
    if let place = linkTarget(path) {
      kept += ", a link to \(place) (pg_wal leads where --wal-directory says, if anywhere)"
    }
    let advice = "'tidemark wal-push' them if they may be needed"
    do throws(TidemarkError) {
      let ready = try directoryEntries("\(path)/archive_status").count { $0.hasSuffix(".ready") }
      return ready == 0 ? kept : "\(kept); \(ready) of its files were never archived: \(advice)"
    } catch { return "\(kept); which of its files were never archived isn't known (\(error.description)): \(advice)" }
  }

  // MARK: Removing

  private func versionDirectories(_ location: String) throws(TidemarkError) -> [String] {
    try RestoreTarget.versionDirectories(location, major: restorer.backup.manifest.serverVersion / 10_000)
  }

  private func removeLeftovers() throws(TidemarkError) -> Int {
    if chmod(directory, 0o700) != 0 { throw systemError("cannot change the mode", directory) }
    var trees = [LeftoverTree(directory) { $0 == "lost+found" || $0.hasPrefix(Self.keptPrefix) }]
    // In a tablespace nothing but PostgreSQL's own directory for this version is the cluster's.
    for (_, location) in target.tablespaces.sorted(by: { $0.key < $1.key }) where DeadCluster.isReal(location, S_IFDIR)
    {
      let own = try versionDirectories(location)
      trees.append(LeftoverTree(location) { !own.contains($0) })
    }
    for tree in trees { try tree.markAll() }
    CrashPoint.reach("delta.after-marking")
    try restorer.forEachEntry { (entry) throws(TidemarkError) in
      let path = restorer.place(entry.path)
      switch entry.content {
      case .directory:
        try LeftoverTree.keep(path, isDirectory: true, mode: FileRestorer.directoryMode(entry))
      case .file:
        try LeftoverTree.keep(path, isDirectory: false, mode: FileRestorer.fileMode(entry))
      case .symbolicLink: break
      }
    }
    var count = 0
    for tree in trees { count += try tree.removeMarked() }
    return count
  }
}
