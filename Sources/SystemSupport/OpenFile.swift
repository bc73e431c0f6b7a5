// An owned file descriptor. It is closed exactly once; a write's errors at close are reported by `close()`,
// and a descriptor that is dropped without it (an error path) is closed in silence.
import CLinux
import Diagnostics
import Glibc

/// An open file, closed when it goes out of scope.
package struct OpenFile: ~Copyable {
  package private(set) var descriptor: Int32
  package let path: String

  /// open(2) with `flags` (`O_CLOEXEC` is added) and, for a new file, `mode`.
  package init(_ path: String, _ flags: Int32, mode: mode_t = 0o600) throws(TidemarkError) {
    let opened = try retryingInterrupts("cannot open the file", path) { clinux_open(path, flags, mode) }
    if flags & O_CREAT != 0 {
      do throws(TidemarkError) { try DirectoryOwner.give(path) } catch {
        Glibc.close(opened)
        throw error
      }
    }
    descriptor = opened
    self.path = path
  }

  /// Takes over a descriptor that was opened otherwise (openat(2)); `path` is for messages.
  package init(owning descriptor: Int32, path: String) {
    self.descriptor = descriptor
    self.path = path
  }

  deinit { if descriptor >= 0 { Glibc.close(descriptor) } }

  /// close(2), whose errors can be the last report of a failed write.
  package consuming func close() throws(TidemarkError) {
    let closing = descriptor
    descriptor = -1
    if Glibc.close(closing) != 0, errno != EINTR { throw systemError("cannot close the file", path) }
  }

  /// Writes all of `bytes` at the current position.
  package func write(_ bytes: UnsafeRawBufferPointer) throws(TidemarkError) {
    var rest = bytes
    while !rest.isEmpty {
      let count = try retryingInterrupts("cannot write the file", path) { () -> Int in
        Glibc.write(descriptor, rest.baseAddress!, rest.count)  // not empty, so it has a base address
      }
      rest = UnsafeRawBufferPointer(rebasing: rest[count...])
    }
  }

  /// Writes all of `bytes` at the current position.
  package func write(_ bytes: [UInt8]) throws(TidemarkError) {
    let failure: TidemarkError? = bytes.withUnsafeBytes { buffer in
      do throws(TidemarkError) { try write(buffer) } catch { return error }
      return nil
    }
    if let failure { throw failure }
  }

  /// pwrite(2) of all of `bytes` at `offset`.
  package func write(_ bytes: UnsafeRawBufferPointer, at offset: Int64) throws(TidemarkError) {
    var rest = bytes
    var position = offset
    while !rest.isEmpty {
      let count = try retryingInterrupts("cannot write the file", path) { () -> Int in
        pwrite(descriptor, rest.baseAddress!, rest.count, Int(position))  // not empty, so it has a base address
      }
      rest = UnsafeRawBufferPointer(rebasing: rest[count...])
      position += Int64(count)
    }
  }

  /// pread(2) into `buffer` from `offset` until it is full or the file ends. Returns the bytes read.
  package func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int64) throws(TidemarkError) -> Int {
    var filled = 0
    while filled < buffer.count {
      let count = try retryingInterrupts("cannot read the file", path) { () -> Int in
        // There is room left, so the buffer has a base address.
        pread(descriptor, buffer.baseAddress! + filled, buffer.count - filled, Int(offset) + filled)
      }
      if count == 0 { break }
      filled += count
    }
    return filled
  }

  /// fstat(2).
  package func status() throws(TidemarkError) -> stat {
    var status = stat()
    try retryingInterrupts("cannot examine the file", path) { fstat(descriptor, &status) }
    return status
  }

  /// The size in bytes.
  package func byteCount() throws(TidemarkError) -> Int64 { Int64(try status().st_size) }

  /// fsync(2): returns when the content is durable.
  package func synchronize() throws(TidemarkError) {
    try retryingInterrupts("cannot flush the file", path) { fsync(descriptor) }
  }

  /// syncfs(2): returns when everything written to this file's file system is durable.
  package func synchronizeFileSystem() throws(TidemarkError) {
    try retryingInterrupts("cannot flush the file system", path) { clinux_syncfs(descriptor) }
  }
}
