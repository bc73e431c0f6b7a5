// System calls whose failure becomes a `TidemarkError` with errno's text and the file's name.
import CLinux
import Diagnostics
import Glibc

/// The error for a failed system call on `path`, from the current `errno` unless one is given.
package func systemError(_ doing: String, _ path: String, errno number: Int32 = errno) -> TidemarkError {
  let cause = String(cString: strerror(number))
  switch number {
  case EACCES, EPERM, EROFS: return TidemarkError(.localPermission, doing, object: path, cause: cause)
  default: return TidemarkError(.localIO, doing, object: path, cause: cause)
  }
}

/// Calls `body` until it isn't interrupted by a signal; a negative result throws.
@discardableResult
package func retryingInterrupts<Result: FixedWidthInteger & SignedInteger>(
  _ doing: String, _ path: String, _ body: () -> Result
) throws(TidemarkError) -> Result {
  while true {
    let result = body()
    if result >= 0 { return result }
    if errno != EINTR { throw systemError(doing, path) }
  }
}

/// Begins to write what a file has in memory of `count` bytes at `offset` to the disk, and doesn't wait. Nothing is durable
/// by it.
package func beginFlush(_ descriptor: Int32, at offset: Int64, count: Int64) {
  clinux_begin_flush(descriptor, off_t(offset), off_t(count))
}

/// fallocate(2): gives `count` bytes at `offset` their space on disk. What was never written there reads as zeros.
/// - Returns: `false` where the file system can't do that; nothing has changed then.
package func allocateSpace(
  _ descriptor: Int32, at offset: Int, count: Int, _ path: String
) throws(TidemarkError) -> Bool {
  while clinux_allocate(descriptor, offset, count) != 0 {
    switch errno {
    case EINTR: continue
    case EOPNOTSUPP, ENOSYS: return false
    default: throw systemError("cannot write the file", path)
    }
  }
  return true
}
