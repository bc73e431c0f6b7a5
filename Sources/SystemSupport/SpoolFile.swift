// Room on disk for what doesn't belong in memory, gone with the process.
import CLinux
import Diagnostics
import Glibc

/// An unlinked temporary file: it goes with the process, however that ends.
package final class SpoolFile: Sendable {
  private let path: String
  private let descriptor: Int32

  package init(directory: String) throws(TidemarkError) {
    try DurableFile.createDirectories(directory)
    path = "\(directory)/.spool.\(getpid()).\(UInt32.random(in: 0...UInt32.max))"
    let path = self.path
    descriptor = try retryingInterrupts("cannot create the temporary file", path) {
      clinux_open(path, O_RDWR | O_CREAT | O_EXCL, 0o600)
    }
    unlink(path)
  }

  deinit { close(descriptor) }

  package func append(_ bytes: [UInt8], at offset: Int64) throws(TidemarkError) {
    var done = 0
    while done < bytes.count {
      done += try retryingInterrupts("cannot write the temporary file", path) { () -> Int in
        // Not empty here, so it has a base address.
        bytes.withUnsafeBytes { pwrite(descriptor, $0.baseAddress! + done, $0.count - done, Int(offset) + done) }
      }
    }
  }

  package func read(_ count: Int, at offset: Int64) throws(TidemarkError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    var done = 0
    while done < count {
      let received = try retryingInterrupts("cannot read the temporary file", path) { () -> Int in
        // Not empty here, so it has a base address.
        bytes.withUnsafeMutableBytes { pread(descriptor, $0.baseAddress! + done, count - done, Int(offset) + done) }
      }
      guard received > 0 else { throw TidemarkError(.localIO, "the temporary file is cut short", object: path) }
      done += received
    }
    return bytes
  }
}
