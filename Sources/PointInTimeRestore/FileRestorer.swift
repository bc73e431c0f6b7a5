// Writes the files of a backup: one pass over the file table, packs fetched in parallel from the regions, each block to
// its place. Until the last step the directory has no pg_control, so a half-written one can't be started. In a delta
// restore the blocks that a file has already are found by their digests and not fetched.
import BackupRepository
import Diagnostics
import Envelope
import Glibc
import Synchronization
import SystemSupport

/// What was written.
package struct FileRestoreResult: Sendable {
  package var fileCount = 0
  package var byteCount: Int64 = 0
  package var packCount = 0
  /// Bytes that were in place already.
  package var keptByteCount: Int64 = 0
}

struct FileRestorer: Sendable {
  static let controlFile = "global/pg_control"
  /// Runs of blocks that are held in memory at once: about 48 bytes each.
  static let windowRunCountMax = 500_000
  /// As many runs as a path takes memory.
  private static let runCountPerPath = 3

  let repository: Repository
  let backup: CatalogedBackup
  let target: RestoreTarget
  let tree: OwnedTree
  let threadCount: Int
  /// Called with the bytes written so far.
  let progress: @Sendable (Int64) -> Void
  /// Its input is the regions, its output the target's file system, its work opening and decompressing.
  let meter = StageMeter("files")
  let turns = WriteTurns()

  struct PackID: Hashable, Sendable {
    var label: Int
    var number: Int
  }
  /// Bytes of a frame's plaintext that go to a place in a file.
  struct Placement: Sendable {
    var frame: Int32
    var offset: Int32
    var byteCount: Int32
    var file: Int32
    var fileOffset: Int64
  }
  /// A file that is to be made.
  struct Creation: Sendable {
    var mode: mode_t
    var byteCount: Int64
  }
  struct Window {
    var paths: [String] = []
    /// One for each path, where nothing is there yet. In a delta restore the files are made as their entries come, since
    /// their blocks are compared first.
    var creations: [Creation] = []
    var placements: [PackID: [Placement]] = [:]
    /// Files that have content to compare with.
    var comparisons: [BlockComparison] = []
    var runCount = 0
  }

  private var isDelta: Bool { target.deadCluster != nil }

  /// Writes everything but `pg_control` under its own name. Nothing is durable before
  /// ``WrittenFileSystems/synchronize()``.
  func run() throws(TidemarkError) -> FileRestoreResult {
    try tree.makeDirectories(target.directory)
    for (_, location) in target.tablespaces { try tree.makeDirectories(location) }
    // The directory may have existed with other modes.
    if chmod(target.directory, 0o700) != 0 { throw systemError("cannot change the mode", target.directory) }
    try tree.give(target.directory)
    if let walDirectory = target.walDirectory {
      try tree.makeDirectories(walDirectory)
      let link = "\(target.directory)/pg_wal"
      if symlink(walDirectory, link) != 0 { throw systemError("cannot create the link", link) }
      try tree.give(link)
    }
    var result = FileRestoreResult()
    var window = Window()
    let written = Counter()
    try forEachEntry { (entry) throws(TidemarkError) in
      try add(entry, &window, &result)
      if window.runCount >= Self.windowRunCountMax { try write(&window, &result, written) }
    }
    try write(&window, &result, written)
    guard result.fileCount == backup.manifest.fileCount, result.byteCount == backup.manifest.databaseBytes else {
      throw TidemarkError(
        .objectDamaged, "the file table isn't the manifest's", object: backup.label.text,
        cause:
          "\(result.fileCount) files of \(result.byteCount) bytes, expected \(backup.manifest.fileCount) of \(backup.manifest.databaseBytes)"
      )
    }
    try linkTablespaces()
    return result
  }

  /// Reads the file table, a part at a time.
  func forEachEntry(_ body: (FileTableEntry) throws(TidemarkError) -> Void) throws(TidemarkError) {
    for part in 1...backup.manifest.fileTableParts {
      try Termination.check()
      let name = backup.layout.fileTablePart(backup.label, part)
      let (plaintext, _) = try repository.readSealed(.fileTable, name, limit: FileTable.partByteCountMax)
      var decoder = try FileTablePartDecoder(plaintext)
      guard decoder.blockSize == backup.manifest.blockSize else {
        throw TidemarkError(
          .objectDamaged, "the file table has another block size than the manifest", object: name.text)
      }
      while let entry = try decoder.next() { try body(entry) }
    }
  }

  /// PostgreSQL starts with these modes alone.
  static func directoryMode(_ entry: FileTableEntry) -> mode_t { entry.mode & 0o050 == 0o050 ? 0o750 : 0o700 }
  static func fileMode(_ entry: FileTableEntry) -> mode_t { entry.mode & 0o040 == 0o040 ? 0o640 : 0o600 }

  /// Where `path` of the file table lies on this host.
  func place(_ path: String) -> String {
    if path.hasPrefix("pg_tblspc/") {
      let parts = path.split(separator: "/", maxSplits: 2)
      if parts.count >= 2, let oid = UInt32(parts[1]), let location = target.tablespaces[oid] {
        return parts.count == 2 ? location : "\(location)/\(parts[2])"
      }
    }
    return path.isEmpty ? target.directory : "\(target.directory)/\(path)"
  }

  private func add(
    _ entry: FileTableEntry, _ window: inout Window, _ result: inout FileRestoreResult
  ) throws(TidemarkError) {
    let path = place(entry.path)
    switch entry.content {
    case .directory: try tree.makeDirectories(path, mode: Self.directoryMode(entry))
    case .symbolicLink:
      // Tablespaces' links are made from the manifest; `pg_wal` elsewhere becomes a directory here.
      if entry.path == "pg_wal" || entry.path == "pg_log" { try tree.makeDirectories(path) }
    case .file(let byteCount, _, let digests, let runs):
      let file = Int32(window.paths.count)
      let path = entry.path == Self.controlFile ? incompleteControlPath : path
      let creation = Creation(mode: Self.fileMode(entry), byteCount: byteCount)
      var oldByteCount: Int64 = 0
      if isDelta { oldByteCount = try reuse(path, creation) } else { window.creations.append(creation) }
      result.fileCount += 1
      result.byteCount += byteCount
      window.paths.append(path)
      // A file without blocks takes memory all the same.
      window.runCount += Self.runCountPerPath
      let comparison = BlockComparison(
        file: file, byteCount: byteCount, oldByteCount: oldByteCount, digests: oldByteCount > 0 ? digests : [],
        runs: oldByteCount > 0 ? runs : [])
      if oldByteCount > 0 {
        window.comparisons.append(comparison)
        window.runCount += digests.count / MemoryLayout<Placement>.size
      }
      var position: Int64 = 0
      for run in runs {
        let count = Int(min(Int64(run.count * backup.manifest.blockSize), byteCount - position))
        // What a frame can't hold is refused before it becomes a smaller number.
        guard count <= SealedObject.framePlaintextByteCountMax, run.offset <= SealedObject.framePlaintextByteCountMax
        else {
          throw TidemarkError(.objectDamaged, "the file table names more than a frame holds", object: entry.path)
        }
        if oldByteCount == 0 {
          window.placements[PackID(run), default: []].append(
            Placement(run, offset: 0, byteCount: count, file: file, fileOffset: position))
        }
        window.runCount += 1
        position += Int64(count)
      }
      guard position == byteCount else {
        throw TidemarkError(.objectDamaged, "the blocks of a file don't make up its size", object: entry.path)
      }
    }
  }

  private var incompleteControlPath: String { "\(target.directory)/\(Self.controlFile).tidemark-incomplete" }

  func create(_ path: String, _ creation: Creation) throws(TidemarkError) {
    let parent = directoryName(path)
    if !isDirectory(parent) { try tree.makeDirectories(parent) }
    let file = try OpenFile(path, O_WRONLY | O_NOFOLLOW | O_CREAT | O_EXCL, mode: creation.mode)
    try tree.give(file)
    try setSize(file, creation)
    try file.close()
  }

  /// Takes the file that is there, or makes it. Returns how many bytes of old content it has.
  private func reuse(_ path: String, _ creation: Creation) throws(TidemarkError) -> Int64 {
    guard fileExists(path) else {
      try create(path, creation)
      return 0
    }
    let file = try OpenFile(path, O_WRONLY | O_NOFOLLOW)
    try tree.give(file)
    let old = try file.byteCount()
    if fchmod(file.descriptor, creation.mode) != 0 { throw systemError("cannot change the mode", path) }
    try setSize(file, creation)
    try file.close()
    return min(old, creation.byteCount)
  }

  private func setSize(_ file: borrowing OpenFile, _ creation: Creation) throws(TidemarkError) {
    if ftruncate(file.descriptor, Int(creation.byteCount)) != 0 {
      throw systemError("cannot set the file's size", file.path)
    }
  }

  private func linkTablespaces() throws(TidemarkError) {
    for (oid, location) in target.tablespaces {
      let link = "\(target.directory)/pg_tblspc/\(oid)"
      if symlink(location, link) != 0 { throw systemError("cannot create the link", link) }
      try tree.give(link)
    }
  }

  /// The last step: from here on PostgreSQL can start here.
  func completeControlFile() throws(TidemarkError) {
    CrashPoint.reach("restore.before-control-file")
    guard fileExists(incompleteControlPath) else {
      throw TidemarkError(.objectDamaged, "the backup has no pg_control", object: backup.label.text)
    }
    try DurableFile.move(incompleteControlPath, to: "\(target.directory)/\(Self.controlFile)")
    CrashPoint.reach("restore.after-control-file")
  }
}
