// What a delta restore finds in its target, and what of it is its own.
import BackupRepository
import Diagnostics
import Glibc
import PostgresFormats
import SystemSupport

extension RestoreTarget {
  /// The cluster in `path`, which must be the backup's; `nil` when the directory is empty.
  static func deadCluster(_ path: String, _ manifest: BackupManifest) throws(TidemarkError) -> DeadCluster? {
    guard let cluster = try DeadCluster(path, try UnfinishedRestore(in: "\(path).tidemark")) else { return nil }
    guard cluster.systemIdentifier.description == manifest.systemIdentifier else {
      throw TidemarkError(
        .systemIdentifierForeign, "another cluster stands in the target directory", object: path,
        cause: "its system identifier is \(cluster.systemIdentifier), the backup's is \(manifest.systemIdentifier)",
        kept: "everything there, unchanged",
        next: "choose another directory, or the lineage: --system-identifier \(cluster.systemIdentifier)")
    }
    return cluster
  }

  /// Locations of tablespaces that were created after the backup. They are this cluster's own, so a replay that creates
  /// them again may write there.
  var laterTablespaces: [String] {
    (deadCluster?.tablespaces ?? [:]).filter { tablespaces[$0.key] == nil }.map(\.value)
      .filter { DeadCluster.isReal($0, S_IFDIR) }.sorted()
  }

  /// `PG_15_202209061`: what PostgreSQL calls its directory in a tablespace. Nothing else there is the cluster's.
  static func versionDirectories(_ location: String, major: Int) throws(TidemarkError) -> [String] {
    let prefix = "PG_\(major)_"
    return try directoryEntries(location).filter {
      $0.hasPrefix(prefix) && $0.dropFirst(prefix.count).allSatisfy(\.isNumber)
    }
  }

  /// Bytes on disk that a delta restore writes over or removes.
  /// - Throws: `target-not-empty` when something is mounted below the directory.
  func reusableByteCount(_ manifest: BackupManifest) throws(TidemarkError) -> Int64 {
    guard let deadCluster else { return 0 }
    let tree = LeftoverTree(directory) { $0 == "lost+found" || $0.hasPrefix("pg_wal") }
    try tree.requireUnmounted("pg_wal")
    var total = try tree.allocatedByteCount()
    for (oid, location) in tablespaces
    where deadCluster.tablespaces[oid] == location && DeadCluster.isReal(location, S_IFDIR) {
      let own = try Self.versionDirectories(location, major: manifest.serverVersion / 10_000)
      total += try LeftoverTree(location) { !own.contains($0) }.allocatedByteCount()
    }
    return total
  }
}
