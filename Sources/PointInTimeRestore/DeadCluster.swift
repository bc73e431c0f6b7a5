// The cluster that a delta restore finds in its target: whose it is, where its tablespaces lie, and that no process
// uses them. Whatever can't be told is refused: from here on its blocks are written over.
import Diagnostics
import Glibc
import PostgresFormats
import SystemSupport

struct DeadCluster: Sendable {
  let directory: String
  let systemIdentifier: SystemIdentifier
  /// OID → location, without the links that lead nowhere a tablespace can be.
  let tablespaces: [UInt32: String]
  /// Whether its control file is away: the restore before this one didn't come to its end.
  let isUnfinished: Bool
  /// What the restores before set aside and may not have told.
  let setAside: [String]

  static let controlFile = "global/pg_control"

  /// `nil` for a directory that doesn't exist or is empty: then there is nothing to compare with.
  /// - Throws: `target-not-empty` for a directory that isn't a cluster's, `target-in-use`, `wal-file-invalid` for a
  ///   control file that can't be read.
  init?(_ directory: String, _ unfinished: UnfinishedRestore?) throws(TidemarkError) {
    var status = stat()
    guard lstat(directory, &status) == 0 else { return nil }
    guard status.st_mode & S_IFMT == S_IFDIR else {
      throw Self.refusal("the target directory is something else than a directory", directory, nil)
    }
    guard try directoryEntries(directory).contains(where: { $0 != "lost+found" }) else { return nil }
    let linked = try Self.links(directory)
    let control = "\(directory)/\(Self.controlFile)"
    if Self.isReal("\(directory)/global", S_IFDIR), Self.isReal(control, S_IFREG) {
      do throws(TidemarkError) {
        systemIdentifier = try ControlFile(try readFile(control, limit: 64 << 10)).systemIdentifier
      } catch {
        throw error.with(object: control).with(
          kept: "everything there, unchanged", next: "restore into an empty directory")
      }
      tablespaces = linked
      isUnfinished = false
    } else if let unfinished, let identifier = SystemIdentifier(text: unfinished.systemIdentifier) {
      systemIdentifier = identifier
      tablespaces = unfinished.tablespaces.merging(linked) { $1 }
      isUnfinished = true
    } else {
      throw Self.refusal(
        "the target directory isn't a PostgreSQL cluster's", directory,
        "it has no \(Self.controlFile), which says whose it is")
    }
    self.directory = directory
    setAside = unfinished?.setAside ?? []
  }

  private static func refusal(_ summary: String, _ directory: String, _ cause: String?) -> TidemarkError {
    TidemarkError(
      .targetNotEmpty, summary, object: directory, cause: cause, kept: "everything there, unchanged",
      next: "choose an empty directory, or for --delta the data directory of the same cluster")
  }

  /// Whether a file of this kind is at `path`. A symbolic link is not followed.
  static func isReal(_ path: String, _ kind: mode_t) -> Bool {
    var status = stat()
    return lstat(path, &status) == 0 && status.st_mode & S_IFMT == kind
  }

  /// The links in `pg_tblspc`.
  private static func links(_ directory: String) throws(TidemarkError) -> [UInt32: String] {
    let parent = "\(directory)/pg_tblspc"
    guard isReal(parent, S_IFDIR) else { return [:] }
    var links: [UInt32: String] = [:]
    for name in try directoryEntries(parent) {
      guard let oid = UInt32(name), let target = linkTarget("\(parent)/\(name)") else { continue }
      // PostgreSQL makes absolute links alone (tablespace.c), and follows no other here.
      if let location = try? SafePath.absolute(target.utf8) { links[oid] = location }
    }
    return links
  }

  // MARK: Nobody uses it

  /// - Parameters:
  ///   - configured: the configuration's data directory, whose tablespaces are taken for live even while it doesn't run.
  ///   - locations: the tablespaces that the restore writes into or sets aside.
  /// - Throws: `target-in-use` when a process of PostgreSQL works in the directory, or a tablespace is another cluster's
  ///   as well, as after a copy of a data directory with its links.
  func requireUnused(configured: String?, using locations: [String]) throws(TidemarkError) {
    let own = resolvedPath(directory) ?? directory
    let processes = try Postmaster.processes()
    if let process = processes.first(where: { $0.directory == own }) {
      throw TidemarkError(
        .targetInUse, "processes of PostgreSQL work in the target directory", object: directory,
        cause: "one is \(process.pid)", kept: "the cluster, unchanged", next: "stop it, or choose another directory")
    }
    var others = Set(processes.map(\.directory))
    if let configured, let path = resolvedPath(configured) { others.insert(path) }
    others.remove(own)
    try Self.requireNotLive(locations, of: others)
  }

  /// - Parameter others: the data directories of clusters that run, or may.
  /// - Throws: `target-in-use` when one of `locations` is a tablespace of one of them.
  static func requireNotLive(_ locations: [String], of others: Set<String>) throws(TidemarkError) {
    for other in others.sorted() {
      let places: [String]
      do throws(TidemarkError) { places = try Array(links(other).values) } catch {
        // Another user's: its files can't be written by us either. Or it ended since it was seen.
        if error.code == .localPermission || !isDirectory(other) { continue }
        throw error
      }
      for place in places {
        let live = resolvedPath(place) ?? place
        for location in locations {
          let mine = resolvedPath(location) ?? location
          guard mine == live || mine.hasPrefix(live + "/") || live.hasPrefix(mine + "/") else { continue }
          throw TidemarkError(
            .targetInUse, "a tablespace of the target directory is another cluster's as well", object: location,
            cause: "the cluster in \(other) has it", kept: "both clusters, unchanged",
            next: "stop that cluster, give --tablespace-map, or remove the link to it from pg_tblspc")
        }
      }
    }
  }
}
