// A file's content as the page cache has it. A process that lives for a tenth of a second would spend a tenth of that on
// memory for a copy, which the kernel clears before the file is copied into it.
import Diagnostics
import Glibc

/// The whole content of a file that nobody writes any more. Where somebody cuts it all the same, reading what is gone ends
/// the process by SIGBUS: whoever acknowledges something does so after the reading.
///
/// Invariant: `bytes` are never written here, and stay until the last reference goes: they are lent out in a scope that
/// holds one. That is why it is `@unchecked Sendable`.
package final class MappedFile: @unchecked Sendable {
  private let bytes: UnsafeRawBufferPointer
  private let file: OpenFile
  /// Whether `bytes` belong to the page cache and not to this process.
  private let isMapped: Bool
  private let seen: stat
  /// MADV_POPULATE_READ, Linux 5.14: maps every page now, and says so where one can't be read. Without it a bad sector
  /// would end the process by SIGBUS when its page is touched.
  private static let populateForReading: Int32 = 22

  /// - Throws: `local-io` when the file can't be read or is larger than `limit` bytes.
  package init(_ path: String, limit: Int) throws(TidemarkError) {
    let file = try OpenFile(path, O_RDONLY)
    let seen = try file.status()
    guard seen.st_size <= limit else {
      throw TidemarkError(
        .localIO, "the file is larger than expected", object: path, cause: "\(seen.st_size) bytes, limit \(limit)")
    }
    if let mapped = Self.map(file.descriptor, byteCount: Int(seen.st_size)) {
      bytes = mapped
      isMapped = true
    } else {
      bytes = try Self.read(file, byteCount: Int(seen.st_size))
      isMapped = false
    }
    self.seen = seen
    self.file = file
  }

  deinit {
    if isMapped {
      munmap(UnsafeMutableRawPointer(mutating: bytes.baseAddress), bytes.count)
    } else {
      bytes.deallocate()
    }
  }

  package var byteCount: Int { bytes.count }

  /// The content, for as long as `body` runs.
  package func withBytes<Result>(
    _ body: (UnsafeRawBufferPointer) throws(TidemarkError) -> Result
  ) throws(TidemarkError) -> Result {
    defer { withExtendedLifetime(self) {} }
    return try body(bytes)
  }

  /// `nil` where the file can't be mapped, or not be read as a whole: reading it says why.
  private static func map(_ descriptor: Int32, byteCount: Int) -> UnsafeRawBufferPointer? {
    guard byteCount > 0, let start = mmap(nil, byteCount, PROT_READ, MAP_PRIVATE, descriptor, 0), start != MAP_FAILED
    else { return nil }
    guard madvise(start, byteCount, populateForReading) == 0 else {
      munmap(start, byteCount)
      return nil
    }
    return UnsafeRawBufferPointer(start: start, count: byteCount)
  }

  private static func read(
    _ file: borrowing OpenFile, byteCount: Int
  ) throws(TidemarkError) -> UnsafeRawBufferPointer {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: byteCount, alignment: 64)
    do throws(TidemarkError) {
      let count = try file.read(into: buffer, at: 0)
      guard count == byteCount else { throw Self.changed(file.path) }
      return UnsafeRawBufferPointer(buffer)
    } catch {
      buffer.deallocate()
      throw error
    }
  }

  /// To be asked when everything was made of the bytes that they are for: what was made of a file that was written meanwhile
  /// may fit neither its old content nor its new one.
  /// - Throws: `local-io` when the file's length or time of change is another than at first.
  package func requireUnchanged() throws(TidemarkError) {
    let now = try file.status()
    guard now.st_size == seen.st_size, now.st_mtim.tv_sec == seen.st_mtim.tv_sec,
      now.st_mtim.tv_nsec == seen.st_mtim.tv_nsec
    else { throw Self.changed(file.path) }
  }

  private static func changed(_ path: String) -> TidemarkError {
    TidemarkError(
      .localIO, "the file was written while it was read", object: path, next: "find out what writes it, and try again")
  }
}
