// Exclusion between processes by flock(2): the kernel releases it with the process, however that ends,
// so nobody ever removes a lock file by hand.
import CLinux
import Diagnostics
import Glibc

/// A lock on a file, held until the value goes out of scope.
package struct FileLock: ~Copyable {
  private let file: OpenFile

  /// Takes the lock at once, or throws ``ErrorCode/locked``, naming `purpose`.
  package init(_ path: String, purpose: String) throws(TidemarkError) {
    let opened = try OpenFile(path, O_RDWR | O_CREAT, mode: 0o600)
    if flock(opened.descriptor, LOCK_EX | LOCK_NB) != 0 {
      if errno == EWOULDBLOCK {
        throw TidemarkError(
          .locked, "another process holds the lock for \(purpose)", object: path,
          next: "wait for it to end; 'fuser \(path)' names it")
      }
      throw systemError("cannot lock the file", path)
    }
    file = opened
  }

  /// Takes the lock, waiting for whoever holds it.
  package init(waitingFor path: String) throws(TidemarkError) {
    let opened = try OpenFile(path, O_RDWR | O_CREAT, mode: 0o600)
    try retryingInterrupts("cannot lock the file", path) { flock(opened.descriptor, LOCK_EX) }
    file = opened
  }
}
