// Writes the files of a backup: one pass over the file table, packs fetched in parallel from the regions, each block to
// its place. Until the last step the directory has no pg_control, so a half-written one can't be started.
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

  private struct PackID: Hashable, Sendable {
    var label: Int
    var number: Int
  }
  /// Bytes of a frame's plaintext that go to a place in a file.
  private struct Placement: Sendable {
    var frame: Int32
    var offset: Int32
    var byteCount: Int32
    var file: Int32
    var fileOffset: Int64
  }
  private struct Window {
    var paths: [String] = []
    var placements: [PackID: [Placement]] = [:]
    var runCount = 0
  }

  /// Writes everything but `pg_control` under its own name. Nothing is durable before ``synchronize()``.
  func run() throws(TidemarkError) -> FileRestoreResult {
    try tree.makeDirectories(target.directory)
    for (_, location) in target.tablespaces { try tree.makeDirectories(location) }
    // The directory may have existed with other modes.
    if chmod(target.directory, 0o700) != 0 { throw systemError("cannot change the mode", target.directory) }
    try tree.give(target.directory)
    var result = FileRestoreResult()
    var window = Window()
    let written = Counter()
    for part in 1...backup.manifest.fileTableParts {
      try Termination.check()
      let name = backup.layout.fileTablePart(backup.label, part)
      let (plaintext, _) = try repository.readSealed(.fileTable, name, limit: FileTable.partByteCountMax)
      var decoder = try FileTablePartDecoder(plaintext)
      guard decoder.blockSize == backup.manifest.blockSize else {
        throw TidemarkError(
          .objectDamaged, "the file table has another block size than the manifest", object: name.text)
      }
      while let entry = try decoder.next() {
        try add(entry, &window, &result)
        if window.runCount >= Self.windowRunCountMax { try write(&window, &result, written) }
      }
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

  /// Where `path` of the file table lies on this host.
  private func place(_ path: String) -> String {
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
    case .directory:
      // PostgreSQL starts with these modes alone.
      try tree.makeDirectories(path, mode: entry.mode & 0o050 == 0o050 ? 0o750 : 0o700)
    case .symbolicLink:
      // Tablespaces' links are made from the manifest; `pg_wal` elsewhere becomes a directory here.
      if entry.path == "pg_wal" || entry.path == "pg_log" { try tree.makeDirectories(path) }
    case .file(let byteCount, _, _, let runs):
      try create(path, entry, byteCount)
      result.fileCount += 1
      result.byteCount += byteCount
      let file = Int32(window.paths.count)
      window.paths.append(entry.path == Self.controlFile ? incompleteControlPath : path)
      // A file without blocks takes memory all the same.
      window.runCount += Self.runCountPerPath
      var position: Int64 = 0
      for run in runs {
        let count = Int(min(Int64(run.count * backup.manifest.blockSize), byteCount - position))
        // What a frame can't hold is refused before it becomes a smaller number.
        guard count <= SealedObject.framePlaintextByteCountMax, run.offset <= SealedObject.framePlaintextByteCountMax
        else {
          throw TidemarkError(.objectDamaged, "the file table names more than a frame holds", object: entry.path)
        }
        window.placements[PackID(label: run.label, number: run.pack), default: []].append(
          Placement(
            frame: Int32(run.frame), offset: Int32(run.offset), byteCount: Int32(count), file: file,
            fileOffset: position))
        window.runCount += 1
        position += Int64(count)
      }
      guard position == byteCount else {
        throw TidemarkError(.objectDamaged, "the blocks of a file don't make up its size", object: entry.path)
      }
    }
  }

  private var incompleteControlPath: String { "\(target.directory)/\(Self.controlFile).tidemark-incomplete" }

  private func create(_ path: String, _ entry: FileTableEntry, _ byteCount: Int64) throws(TidemarkError) {
    let actual = entry.path == Self.controlFile ? incompleteControlPath : path
    let parent = directoryName(actual)
    if !isDirectory(parent) { try tree.makeDirectories(parent) }
    let file = try OpenFile(
      actual, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode: entry.mode & 0o040 == 0o040 ? 0o640 : 0o600)
    try tree.give(file)
    if ftruncate(file.descriptor, Int(byteCount)) != 0 { throw systemError("cannot set the file's size", actual) }
    try file.close()
  }

  /// Fetches the packs of the window in parallel and writes their blocks.
  private func write(
    _ window: inout Window, _ result: inout FileRestoreResult, _ written: Counter
  ) throws(TidemarkError) {
    let packs = window.placements.keys.sorted { ($0.label, $0.number) < ($1.label, $1.number) }
    result.packCount += packs.count
    let next = Counter()
    let hasFailed = Cancellation()
    let (paths, placements) = (window.paths, window.placements)
    window = Window()
    try withThreads("restore", count: threadCount, onFailure: { _ in hasFailed.cancel() }) { _ in
      let buffer = UnsafeMutableRawBufferPointer.allocate(
        byteCount: SealedObject.framePlaintextByteCountMax, alignment: 4096)
      defer { buffer.deallocate() }
      try meter.thread {
        while !hasFailed.isCancelled {
          try Termination.check()
          let index = next.add(1) - 1
          guard index < packs.count else { return }
          try self.write(packs[index], placements[packs[index]] ?? [], paths, buffer)
          self.progress(
            Int64(written.add((placements[packs[index]] ?? []).reduce(0) { $0 + Int($1.byteCount) })))
        }
      }
    }
  }

  private func write(
    _ pack: PackID, _ placements: [Placement], _ paths: [String], _ scratch: UnsafeMutableRawBufferPointer
  ) throws(TidemarkError) {
    guard pack.label < backup.manifest.labels.count else {
      throw TidemarkError(
        .objectDamaged, "the file table names a backup that the manifest doesn't", object: backup.label.text)
    }
    let label = try BackupLabelName(backup.manifest.labels[pack.label])
    let name = backup.layout.pack(label, pack.number)
    let ordered = placements.sorted { ($0.frame, $0.offset) < ($1.frame, $1.offset) }
    // The frames are opened within the check, so that a damaged one sends the read to the next region. Blocks that were
    // written from a bad copy before are written again from the good one.
    try repository.regions.read(name, limits: packLimits, meter: meter) { bytes, _ in
      let object = try SealedObject.open(
        bytes, expectedName: name.text, expectedKind: .pack, trustedWriters: repository.keys.trustedWriters,
        identities: repository.keys.identities)
      var reader = try OpenedObject.FrameReader(object)
      var current: Int32 = -1
      var openPath: Int32 = -1
      var descriptor: Int32 = -1
      defer { if descriptor >= 0 { close(descriptor) } }
      for placement in ordered {
        guard placement.frame < object.footer.frames.count else {
          throw TidemarkError(
            .objectDamaged, "the file table names a frame that the pack doesn't have", object: name.text)
        }
        let size = object.footer.frames[Int(placement.frame)].plaintextByteCount
        guard Int(placement.offset) + Int(placement.byteCount) <= size else {
          throw TidemarkError(
            .objectDamaged, "the file table names bytes that the frame doesn't have", object: name.text)
        }
        let frame = UnsafeMutableRawBufferPointer(rebasing: scratch[..<size])
        if placement.frame != current {
          try reader.read(Int(placement.frame), into: frame)
          current = placement.frame
        }
        if placement.file != openPath {
          if descriptor >= 0 { close(descriptor) }
          let path = paths[Int(placement.file)]
          descriptor = try retryingInterrupts("cannot open the file", path) { () -> Int32 in
            open(path, O_WRONLY | O_NOFOLLOW | O_CLOEXEC)
          }
          openPath = placement.file
        }
        try meter.waitingForOutput {
          try Self.write(
            frame[Int(placement.offset)..<Int(placement.offset) + Int(placement.byteCount)], to: descriptor,
            at: placement.fileOffset, paths[Int(placement.file)])
        }
      }
    }
  }

  private var packLimits: ReadLimits {
    var limits = ReadLimits()
    limits.total = .seconds(300)
    return limits
  }

  private static func write(
    _ bytes: Slice<UnsafeMutableRawBufferPointer>, to descriptor: Int32, at offset: Int64, _ path: String
  ) throws(TidemarkError) {
    var rest = UnsafeRawBufferPointer(rebasing: bytes)
    var position = Int(offset)
    while !rest.isEmpty {
      let count = try retryingInterrupts("cannot write the file", path) { () -> Int in
        pwrite(descriptor, rest.baseAddress!, rest.count, position)  // not empty, so it has a base address
      }
      rest = UnsafeRawBufferPointer(rebasing: rest[count...])
      position += count
    }
  }

  private func linkTablespaces() throws(TidemarkError) {
    for (oid, location) in target.tablespaces {
      let link = "\(target.directory)/pg_tblspc/\(oid)"
      if symlink(location, link) != 0 { throw systemError("cannot create the link", link) }
      try tree.give(link)
    }
  }

  /// Makes everything durable that was written.
  func synchronize() throws(TidemarkError) {
    try OpenFile(target.directory, O_RDONLY | O_DIRECTORY).synchronizeFileSystem()
    for (_, location) in target.tablespaces {
      try OpenFile(location, O_RDONLY | O_DIRECTORY).synchronizeFileSystem()
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
