// A pipe between us and another program: both ends are close-on-exec, each is closed once.
import CLinux
import Diagnostics
import Glibc

/// pipe2(2). Owned by one thread; −1 stands for an end that was closed.
package final class Pipe {
  package private(set) var reading: Int32
  package private(set) var writing: Int32

  package init() throws(TidemarkError) {
    var ends: [Int32] = [-1, -1]
    if clinux_pipe(&ends) != 0 { throw systemError("cannot make a pipe", "pipe") }
    (reading, writing) = (ends[0], ends[1])
  }

  deinit {
    closeReading()
    closeWriting()
  }

  package func closeReading() {
    if reading >= 0 { close(reading) }
    reading = -1
  }

  package func closeWriting() {
    if writing >= 0 { close(writing) }
    writing = -1
  }

  /// Reads what is there without waiting; bytes beyond `limit` are dropped. Closes the end at the stream's end.
  func drain(into bytes: inout [UInt8], keeping limit: Int) throws(TidemarkError) {
    guard reading >= 0 else { return }
    _ = fcntl(reading, F_SETFL, O_NONBLOCK)
    let capacity = 64 << 10
    try withUnsafeTemporaryAllocation(byteCount: capacity, alignment: 16) { (buffer) throws(TidemarkError) in
      // A limit on the rounds: the other pipes have their turn too, though this program never stops writing.
      for _ in 0..<16 {
        let count = read(reading, buffer.baseAddress, capacity)
        if count == 0 { return closeReading() }
        if count < 0 {
          if errno == EINTR { continue }
          if errno == EAGAIN { return }
          throw systemError("cannot read from the program", "pipe")
        }
        bytes.append(contentsOf: buffer.prefix(min(count, max(0, limit - bytes.count))))
      }
    }
  }

  /// Writes what fits, without waiting; closes the end when all is sent or nobody reads.
  func send(_ unsent: inout ArraySlice<UInt8>) throws(TidemarkError) {
    guard writing >= 0 else { return }
    _ = fcntl(writing, F_SETFL, O_NONBLOCK)
    while !unsent.isEmpty {
      let count = unsent.withUnsafeBytes { write(writing, $0.baseAddress, $0.count) }
      if count < 0 {
        if errno == EINTR { continue }
        if errno == EAGAIN { return }
        // A program need not read all of its input; how it ends says whether that was an error.
        if errno == EPIPE { break }
        throw systemError("cannot write to the program", "pipe")
      }
      unsent = unsent.dropFirst(count)
    }
    closeWriting()
  }
}
