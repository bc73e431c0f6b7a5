// What a cluster left in its directory, before a delta restore writes over it: first everything is marked, then what the
// backup has loses its mark, then what is still marked is removed. The mark is the sticky bit, which files of a cluster
// never have, so that the memory doesn't grow with the number of files, and a killed restore leaves nothing to clean up.
//
// No symbolic link is ever followed, and nothing outside the directory is touched: links are removed, never what they
// lead to, and a file with a second name elsewhere is unlinked and made anew instead of written into.
import Diagnostics
import Glibc
import SystemSupport

struct LeftoverTree {
  private static let mark = mode_t(S_ISVTX)
  /// Deeper than any cluster's; a bound for the descriptors that are open at once.
  private static let depthMax = 64

  /// The directory itself; it isn't marked.
  let path: String
  /// Names at its top that stay as they are.
  let isKept: (String) -> Bool

  init(_ path: String, keeping isKept: @escaping (String) -> Bool = { $0 == "lost+found" }) {
    self.path = path
    self.isKept = isKept
  }

  /// Marks every file and directory, and removes what is neither.
  func markAll() throws(TidemarkError) {
    try walkTop { (parent, name, status, path) throws(TidemarkError) in
      let isDirectory = status.st_mode & S_IFMT == S_IFDIR
      guard isDirectory || (status.st_mode & S_IFMT == S_IFREG && status.st_nlink == 1) else {
        return try Self.unlink(parent, name, path)
      }
      let mode = (isDirectory ? 0o700 : status.st_mode & 0o777) | Self.mark
      if fchmodat(parent, name, mode, 0) != 0 {
        // Somebody else's file may be removed where it may not be changed.
        guard errno == EPERM, !isDirectory else { throw systemError("cannot change the mode", path) }
        return try Self.unlink(parent, name, path)
      }
      var marked = stat()
      guard fstatat(parent, name, &marked, AT_SYMLINK_NOFOLLOW) == 0, marked.st_mode & Self.mark != 0 else {
        throw TidemarkError(
          .localIO, "the file system keeps no modes, so a delta restore can't tell what is left over", object: path,
          next: "restore into an empty directory")
      }
    } leaving: { (_, _, _, _) throws(TidemarkError) in
    }
  }

  /// Takes the mark from `path`, if it is there and is a directory or a file, as wanted.
  static func keep(_ path: String, isDirectory: Bool, mode: mode_t) throws(TidemarkError) {
    var status = stat()
    guard lstat(path, &status) == 0, status.st_mode & S_IFMT == (isDirectory ? S_IFDIR : S_IFREG) else { return }
    if chmod(path, mode) != 0 { throw systemError("cannot change the mode", path) }
  }

  /// Removes what is still marked. Returns the number of files.
  func removeMarked() throws(TidemarkError) -> Int {
    var count = 0
    try walkTop { (parent, name, status, path) throws(TidemarkError) in
      guard status.st_mode & S_IFMT != S_IFDIR, status.st_mode & Self.mark != 0 else { return }
      try Self.unlink(parent, name, path)
      count += 1
    } leaving: { (parent, name, status, path) throws(TidemarkError) in
      guard status.st_mode & Self.mark != 0 else { return }
      if unlinkat(parent, name, AT_REMOVEDIR) == 0 { return }
      guard errno == ENOTEMPTY || errno == EEXIST else { throw systemError("cannot remove the directory", path) }
      // The backup has something in it, though not itself.
      if fchmodat(parent, name, 0o700, 0) != 0 { throw systemError("cannot change the mode", path) }
    }
    return count
  }

  /// Bytes on disk that writing in place, or removing, makes available. Nothing is changed.
  func allocatedByteCount() throws(TidemarkError) -> Int64 {
    var total: Int64 = 0
    try walkTop { (_, _, status, _) throws(TidemarkError) in
      if status.st_mode & S_IFMT == S_IFREG, status.st_nlink == 1 { total += Int64(status.st_blocks) * 512 }
    } leaving: { (_, _, _, _) throws(TidemarkError) in
    }
    return total
  }

  // MARK: Walking

  private typealias Visit = (
    _ parent: Int32, _ name: UnsafePointer<CChar>, _ status: stat, _ path: String
  ) throws(TidemarkError) -> Void

  private func openTop() throws(TidemarkError) -> Int32 {
    try retryingInterrupts("cannot open the directory", path) { () -> Int32 in
      open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
    }
  }

  private func walkTop(_ entering: Visit, leaving: Visit) throws(TidemarkError) {
    let top = try openTop()
    var status = stat()
    guard fstat(top, &status) == 0 else {
      let error = systemError("cannot examine the directory", path)
      close(top)
      throw error
    }
    try walk(top, path, status.st_dev, depth: 0, entering: entering, leaving: leaving)
  }

  /// What is mounted can neither be set aside nor removed, and may be somebody else's.
  private static func mounted(_ path: String) -> TidemarkError {
    TidemarkError(
      .targetNotEmpty, "another file system begins within the target directory", object: path,
      kept: "everything there, unchanged",
      next: "unmount it, or restore into an empty directory; for WAL on a disk of its own: --wal-directory")
  }

  /// - Throws: `target-not-empty` when something is mounted at `path`, which lies in the directory.
  func requireUnmounted(_ name: String) throws(TidemarkError) {
    var (top, status) = (stat(), stat())
    let below = "\(path)/\(name)"
    guard lstat(below, &status) == 0, status.st_mode & S_IFMT == S_IFDIR else { return }
    guard stat(path, &top) == 0 else { throw systemError("cannot examine the directory", path) }
    if status.st_dev != top.st_dev { throw Self.mounted(below) }
  }

  /// Calls `entering` for each entry before, and `leaving` for each directory after what is in it. Takes over
  /// `descriptor`. Names go to the system as it gave them, whatever bytes they are made of.
  private func walk(
    _ descriptor: Int32, _ path: String, _ device: dev_t, depth: Int, entering: Visit, leaving: Visit
  ) throws(TidemarkError) {
    guard let directory = fdopendir(descriptor) else {
      let error = systemError("cannot read the directory", path)
      close(descriptor)
      throw error
    }
    defer { closedir(directory) }
    guard depth < Self.depthMax else {
      throw TidemarkError(
        .pathUnsafe, "directories lie deeper in one another than in any cluster", object: path,
        next: "restore into an empty directory")
    }
    while true {
      errno = 0
      guard let entry = readdir(directory) else {
        if errno != 0 { throw systemError("cannot read the directory", path) }
        return
      }
      // The entry is readdir's until the next call, which a directory's own walk doesn't make on this stream.
      let name = UnsafeRawPointer(entry).advanced(by: MemoryLayout<dirent>.offset(of: \.d_name)!)
        .assumingMemoryBound(to: CChar.self)
      let text = String(cString: name)
      if text == "." || text == ".." || depth == 0 && isKept(text) { continue }
      let below = "\(path)/\(text)"
      var status = stat()
      guard fstatat(descriptor, name, &status, AT_SYMLINK_NOFOLLOW) == 0 else {
        throw systemError("cannot examine the file", below)
      }
      let isDirectory = status.st_mode & S_IFMT == S_IFDIR
      if isDirectory, status.st_dev != device { throw Self.mounted(below) }
      try entering(descriptor, name, status, below)
      guard isDirectory else { continue }
      let opened = try retryingInterrupts("cannot open the directory", below) { () -> Int32 in
        openat(descriptor, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
      }
      try walk(opened, below, device, depth: depth + 1, entering: entering, leaving: leaving)
      try leaving(descriptor, name, status, below)
    }
  }

  private static func unlink(
    _ parent: Int32, _ name: UnsafePointer<CChar>, _ path: String
  ) throws(TidemarkError) {
    if unlinkat(parent, name, 0) != 0 { throw systemError("cannot remove the file", path) }
  }
}
