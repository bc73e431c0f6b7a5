// Files and directories made on behalf of another user: as root, what PostgreSQL must own is given to its user.
import CLinux
import Diagnostics
import Glibc

/// Creates files and directories with an owner.
package struct OwnedTree: Sendable {
  private let owner: (user: uid_t, group: gid_t)?

  /// As root everything is given to `userName`; as anybody else it stays ours.
  /// - Throws: `configuration-invalid` when we are root and there is no such user, or it is root itself.
  package init(userName: String) throws(TidemarkError) {
    guard geteuid() == 0 else {
      owner = nil
      return
    }
    guard let entry = getpwnam(userName), entry.pointee.pw_uid != 0 else {
      throw TidemarkError(
        .configurationInvalid, "PostgreSQL can't run as this user", object: userName,
        next: "set postgres.os-user to the user that PostgreSQL runs as")
    }
    owner = (entry.pointee.pw_uid, entry.pointee.pw_gid)
  }

  /// Whether files are given to another user.
  package var changesOwner: Bool { owner != nil }

  package func give(_ path: String) throws(TidemarkError) {
    guard let owner else { return }
    if lchown(path, owner.user, owner.group) != 0 { throw systemError("cannot change the owner", path) }
  }

  package func give(_ file: borrowing OpenFile) throws(TidemarkError) {
    guard let owner else { return }
    if fchown(file.descriptor, owner.user, owner.group) != 0 { throw systemError("cannot change the owner", file.path) }
  }

  /// Creates the directory unless it exists; its parent must.
  package func makeDirectory(_ path: String, mode: mode_t = 0o700) throws(TidemarkError) {
    if mkdir(path, mode) != 0 {
      var status = stat()
      guard errno == EEXIST, lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFDIR else {
        throw systemError("cannot create the directory", path)
      }
      return
    }
    try give(path)
  }

  /// Creates the directory and the parents that are missing.
  package func makeDirectories(_ path: String, mode: mode_t = 0o700) throws(TidemarkError) {
    if isDirectory(path) { return }
    let parent = directoryName(path)
    if parent != path && parent != "." { try makeDirectories(parent, mode: mode) }
    try makeDirectory(path, mode: mode)
  }

  /// Replaces or creates a small file durably.
  package func write(_ text: String, to path: String, mode: mode_t = 0o600) throws(TidemarkError) {
    try DurableFile.write(Array(text.utf8), to: path, mode: mode)
    try give(path)
  }
}
