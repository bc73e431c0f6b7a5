// A server that can't outlive the tests: it holds the reading end of a pipe through a small watcher in its process
// group, which kills the group when the pipe closes, however the test process ends.
import Diagnostics
import Glibc
import Synchronization
import SystemSupport

package final class ServerProcess: Sendable {
  private let child: ChildProcess
  // Closed when this goes away, or when the process ends: only held, never used.
  private nonisolated(unsafe) let lifeline: Pipe
  private let logPath: String
  /// Where the server listens, on 127.0.0.1.
  package let port: UInt16

  /// Starts `program` with the arguments that `arguments` makes for a free port, and waits until it accepts.
  package init(
    _ program: String, logDirectory: String, environment: [String: String]? = nil, limit: Duration = .seconds(60),
    arguments: (UInt16) -> [String]
  ) throws(TidemarkError) {
    logPath = "\(logDirectory)/\(baseName(program)).log"
    let deadline = Deadline.after(limit)
    while true {
      let port = try LoopbackPort.free()
      let lifeline = try Pipe()
      // The pid stays the server's own: the shell becomes the server.
      let script = "exec 3<&0; ( read -r line <&3; kill -KILL 0 ) & exec \"$@\" </dev/null 3<&-"
      let child = try ChildProcess(
        "/bin/sh", ["-c", script, "sh", program] + arguments(port), environment: environment,
        input: .descriptor(lifeline.reading), output: .file(logPath), error: .file(logPath), ownGroup: true)
      // A server whose port was taken in the meantime ends by itself: another port, then.
      while child.isRunning, !deadline.hasPassed {
        if LoopbackPort.accepts(port) {
          self.port = port
          self.child = child
          self.lifeline = lifeline
          return
        }
        _ = try child.wait(until: .after(.milliseconds(20)))
      }
      if deadline.hasPassed {
        throw TidemarkError(.localIO, "a test server doesn't start", object: program, cause: Self.tail(of: logPath))
      }
    }
  }

  deinit { try? stop() }

  package var pid: pid_t { child.pid }
  package var log: String { Self.tail(of: logPath) }

  /// Kills the server and waits for its end.
  package func stop() throws(TidemarkError) {
    guard child.isRunning else { return }
    try child.kill()
    // The watcher, which is all that is left of the group.
    child.signalGroup(SIGKILL)
  }

  /// SIGSTOP: the server still has its sockets and answers nothing.
  package func freeze() { child.signal(SIGSTOP) }
  package func thaw() { child.signal(SIGCONT) }

  private static func tail(of path: String) -> String {
    String(((try? readFile(path)).map { String(decoding: $0, as: UTF8.self) } ?? "").suffix(2000))
  }
}

/// Ports of 127.0.0.1.
package enum LoopbackPort {
  // Below the ports that Linux gives to outgoing connections (net.ipv4.ip_local_port_range, from 32768): one of those
  // could take a port between the moment it was found free and the server's start.
  private static let range = UInt32(15_000)..<32_000
  private static let next = Atomic<UInt32>(UInt32.random(in: 0..<UInt32(range.count)))
  /// No neighbours: a restore takes the ports behind its original's. It has no factor in common with the range.
  private static let step: UInt32 = 61

  /// A port that nobody listens on at the moment, another one each time.
  package static func free() throws(TidemarkError) -> UInt16 {
    for _ in range {
      let turn = next.wrappingAdd(step, ordering: .relaxed).oldValue
      let port = UInt16(range.lowerBound + turn % UInt32(range.count))
      if try isFree(port) { return port }
    }
    throw TidemarkError(.localIO, "no port is free", object: "127.0.0.1:\(range.lowerBound)-\(range.upperBound - 1)")
  }

  private static func isFree(_ port: UInt16) throws(TidemarkError) -> Bool {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    guard descriptor >= 0 else { throw systemError("cannot make a socket", "127.0.0.1") }
    defer { close(descriptor) }
    var address = address(port)
    let status = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    if status == 0 { return true }
    guard errno == EADDRINUSE else { throw systemError("cannot bind a socket", "127.0.0.1:\(port)") }
    return false
  }

  /// Whether somebody accepts connections there.
  package static func accepts(_ port: UInt16) -> Bool {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    guard descriptor >= 0 else { return false }
    defer { close(descriptor) }
    var address = address(port)
    return withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
      }
    }
  }

  package static func address(_ port: UInt16) -> sockaddr_in {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    return address
  }
}
