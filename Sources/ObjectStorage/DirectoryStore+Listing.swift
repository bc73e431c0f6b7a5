// Listing in the order of the keys' UTF-8 bytes: a directory sorts as its name with a slash, since that is what its keys
// begin with. One directory's names for each level are in memory, never the tree. Links and foreign names are skipped.
import CLinux
import Diagnostics
import Glibc
import SystemSupport

extension DirectoryStore {
  package func list(
    prefix: String, startingAfter: String?, deadline: Deadline, _ body: (ObjectInformation) throws -> Bool
  ) throws(TidemarkError) {
    try counting { () throws(TidemarkError) -> (result: Void, received: Int) in
      let root = try openRoot()
      _ = try visit(root, path: "", Walk(prefix: prefix, startingAfter: startingAfter ?? ""), body)
      return ((), 0)
    }
  }

  private struct Walk {
    let prefix: String
    let startingAfter: String

    /// Whether keys that begin with `start` can be wanted.
    func mayContain(_ start: String) -> Bool {
      (start.hasPrefix(prefix) || prefix.hasPrefix(start))
        && (startingAfter.utf8.lexicographicallyPrecedes(start.utf8) || startingAfter.hasPrefix(start))
    }

    func wants(_ key: String) -> Bool {
      key.hasPrefix(prefix) && startingAfter.utf8.lexicographicallyPrecedes(key.utf8)
    }
  }

  /// Returns `false` when the walk is to end.
  private func visit(
    _ directory: borrowing DirectoryHandle, path: String, _ walk: Walk, _ body: (ObjectInformation) throws -> Bool
  ) throws(TidemarkError) -> Bool {
    try Termination.check()
    for entry in try entries(of: directory, path: path, walk) {
      if entry.hasSuffix("/") {
        let name = String(entry.dropLast())
        let descriptor = clinux_openat(directory.descriptor, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0)
        guard descriptor >= 0 else {
          // It was removed, or replaced by a link, after it was read.
          if errno == ENOENT || errno == ELOOP || errno == ENOTDIR { continue }
          throw fileError("cannot list the objects", "\(location)/\(path)\(entry)")
        }
        if try !visit(DirectoryHandle(descriptor: descriptor), path: path + entry, walk, body) { return false }
      } else {
        var status = stat()
        guard fstatat(directory.descriptor, entry, &status, AT_SYMLINK_NOFOLLOW) == 0 else {
          if errno == ENOENT { continue }
          throw fileError("cannot list the objects", "\(location)/\(path)\(entry)")
        }
        guard status.st_mode & S_IFMT == S_IFREG else { continue }
        let information = ObjectInformation(
          key: ObjectKey(trusted: path + entry), byteCount: Int64(status.st_size),
          modified: Int64(status.st_mtim.tv_sec))
        do {
          if try !body(information) { return false }
        } catch {
          throw TidemarkError.wrapping(error)
        }
      }
    }
    return true
  }

  /// The wanted names in order, those of directories with a slash at their end.
  private func entries(
    of directory: borrowing DirectoryHandle, path: String, _ walk: Walk
  ) throws(TidemarkError) -> [String] {
    let copy = clinux_openat(directory.descriptor, ".", O_RDONLY | O_DIRECTORY, 0)
    guard copy >= 0, let stream = fdopendir(copy) else {
      if copy >= 0 { close(copy) }
      throw fileError("cannot list the objects", "\(location)/\(path)")
    }
    defer { closedir(stream) }
    var names: [String] = []
    while true {
      errno = 0
      guard let entry = readdir(stream) else {
        if errno != 0 { throw fileError("cannot list the objects", "\(location)/\(path)") }
        break
      }
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      // Also "." and "..", and what others put there.
      guard ObjectKey.isValid(path + name), !(path.isEmpty && name == Self.markerName) else { continue }
      var type = Int32(entry.pointee.d_type)
      if type == Int32(DT_UNKNOWN) {
        var status = stat()
        guard fstatat(directory.descriptor, name, &status, AT_SYMLINK_NOFOLLOW) == 0 else { continue }
        type = status.st_mode & S_IFMT == S_IFDIR ? Int32(DT_DIR) : Int32(DT_REG)
      }
      if type == Int32(DT_DIR) {
        if walk.mayContain("\(path)\(name)/") { names.append("\(name)/") }
      } else if type == Int32(DT_REG), walk.wants(path + name) {
        names.append(name)
      }
    }
    return names.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
  }
}
