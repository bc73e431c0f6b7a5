// What root creates in another user's directory becomes that user's. An operator's restore as root on the database's host
// shares the state directory with the archive command, which would otherwise meet files that it can't open.
import Diagnostics
import Glibc

enum DirectoryOwner {
  /// Gives root's new file or directory at `path` to the owner of the directory that it is in. Nothing happens where the
  /// process isn't root's, or `path` is somebody else's already. A symbolic link is not followed.
  /// - Throws: `local-permission`, `local-io`.
  static func give(_ path: String) throws(TidemarkError) {
    guard geteuid() == 0 else { return }
    var own = stat()
    var parent = stat()
    guard lstat(path, &own) == 0, stat(directoryName(path), &parent) == 0 else { return }
    guard own.st_uid == 0, parent.st_uid != 0 else { return }
    if lchown(path, parent.st_uid, parent.st_gid) != 0 {
      throw systemError("cannot give the file to its directory's owner", path)
    }
  }
}
