// Durable file writes, the only way in which Tidemark leaves a small file behind: temporary file, fsync, rename,
// fsync of the directory. After a crash there is the old content or the new one, never a mixture.
import CLinux
import Diagnostics
import Glibc

package enum DurableFile {
  /// Replaces or creates `path` with `bytes`. Returns after everything, the directory included, is durable.
  package static func write(_ bytes: [UInt8], to path: String, mode: mode_t = 0o600) throws(TidemarkError) {
    let temporary = try writeTemporary(bytes, beside: path, mode: mode)
    try move(temporary, to: path)
  }

  /// Creates `path` with `bytes` unless it exists: link(2) is atomic and exclusive. Returns `false`, having changed
  /// nothing, when it exists; after `true` the content and the directory are durable.
  package static func create(_ bytes: [UInt8], at path: String, mode: mode_t = 0o600) throws(TidemarkError) -> Bool {
    let temporary = try writeTemporary(bytes, beside: path, mode: mode)
    defer { unlink(temporary) }
    CrashPoint.reach("durable-file.before-link")
    if link(temporary, path) != 0 {
      if errno == EEXIST { return false }
      throw systemError("cannot create the file", path)
    }
    try synchronizeDirectory(of: path)
    return true
  }

  /// rename(2) of a file whose content is already durable, then fsync of the directory.
  package static func move(_ source: String, to path: String) throws(TidemarkError) {
    CrashPoint.reach("durable-file.before-rename")
    if rename(source, path) != 0 {
      let error = systemError("cannot rename the file", path)
      unlink(source)
      throw error
    }
    CrashPoint.reach("durable-file.after-rename")
    try synchronizeDirectory(of: path)
  }

  /// Removes `path` durably. A file that doesn't exist is no error.
  package static func remove(_ path: String) throws(TidemarkError) {
    if unlink(path) != 0 {
      if errno == ENOENT { return }
      throw systemError("cannot remove the file", path)
    }
    try synchronizeDirectory(of: path)
  }

  /// fsync(2) of the directory that holds `path`.
  package static func synchronizeDirectory(of path: String) throws(TidemarkError) {
    try OpenFile(directoryName(path), O_RDONLY | O_DIRECTORY).synchronize()
  }

  /// Creates `path` and its missing parents, each with `mode`, and makes each durable in its parent.
  package static func createDirectories(_ path: String, mode: mode_t = 0o700) throws(TidemarkError) {
    if isDirectory(path) { return }
    let parent = directoryName(path)
    if parent != path { try createDirectories(parent, mode: mode) }
    if mkdir(path, mode) != 0 {
      if errno == EEXIST, isDirectory(path) { return }
      throw systemError("cannot create the directory", path)
    }
    try DirectoryOwner.give(path)
    try synchronizeDirectory(of: path)
  }

  private static func writeTemporary(
    _ bytes: [UInt8], beside path: String, mode: mode_t
  ) throws(TidemarkError) -> String {
    let suffix = "\(getpid())-\(UInt64.random(in: 0...UInt64.max))"
    let temporary = "\(directoryName(path))/.\(baseName(path)).\(suffix).tmp"
    let file = try OpenFile(temporary, O_WRONLY | O_CREAT | O_EXCL, mode: mode)
    do {
      try file.write(bytes)
      CrashPoint.reach("durable-file.before-fsync")
      try file.synchronize()
      try file.close()
    } catch {
      unlink(temporary)
      throw error
    }
    return temporary
  }
}

/// Everything before the last component of `path`: "." for a bare name, "/" for the root.
package func directoryName(_ path: String) -> String {
  guard let slash = path.lastIndex(of: "/") else { return "." }
  return slash == path.startIndex ? "/" : String(path[..<slash])
}

/// The last component of `path`.
package func baseName(_ path: String) -> String {
  path.lastIndex(of: "/").map { String(path[path.index(after: $0)...]) } ?? path
}

/// Whether `path` is a directory (symbolic links are followed).
package func isDirectory(_ path: String) -> Bool {
  var status = stat()
  return stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
}

/// Whether anything is at `path` (a symbolic link is not followed).
package func fileExists(_ path: String) -> Bool {
  var status = stat()
  return lstat(path, &status) == 0
}

/// The whole content of the file at `path`, refused when it is larger than `limit` bytes.
package func readFile(_ path: String, limit: Int = 64 << 20) throws(TidemarkError) -> [UInt8] {
  let file = try OpenFile(path, O_RDONLY)
  let size = try file.byteCount()
  guard size <= limit else {
    throw TidemarkError(
      .localIO, "the file is larger than expected", object: path, cause: "\(size) bytes, limit \(limit)")
  }
  // A file that grows while it is read is cut at the size first seen; /proc files say 0 and are read to their end.
  let capacity = size == 0 ? min(limit, 1 << 20) : Int(size)
  var failure: TidemarkError?
  let bytes = [UInt8](unsafeUninitializedCapacity: capacity) { buffer, count in
    do throws(TidemarkError) {
      count = try file.read(into: UnsafeMutableRawBufferPointer(buffer), at: 0)
    } catch { failure = error }
  }
  if let failure { throw failure }
  return bytes
}

/// The names in the directory at `path`, without "." and "..", in no order.
package func directoryEntries(_ path: String) throws(TidemarkError) -> [String] {
  guard let directory = opendir(path) else { throw systemError("cannot read the directory", path) }
  defer { closedir(directory) }
  var names: [String] = []
  while true {
    errno = 0
    guard let entry = Glibc.readdir(directory) else {
      if errno != 0 { throw systemError("cannot read the directory", path) }
      return names
    }
    let name = withUnsafePointer(to: &entry.pointee.d_name) {
      $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
    }
    if name != "." && name != ".." { names.append(name) }
  }
}
