// Servers that PostgreSQL can't play: one that accepts and never answers, and one of a version that isn't installed.
import Diagnostics
import Glibc
import SystemSupport

/// A listening socket whose connections nobody takes: the kernel accepts them, and nothing ever comes.
package final class MuteServer {
  package let port: UInt16
  let descriptor: Int32

  package init() throws {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    self.descriptor = descriptor
    var address = LoopbackPort.address(0)
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let status = withUnsafeMutablePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(descriptor, $0, length) == 0 && listen(descriptor, 8) == 0
          ? getsockname(descriptor, $0, &length) : -1
      }
    }
    guard status == 0 else { throw systemError("cannot listen", "127.0.0.1") }
    port = UInt16(bigEndian: address.sin_port)
  }

  deinit { close(descriptor) }

  /// Waits for somebody who connects.
  package func waitForClient(limit: Duration = .seconds(60)) -> Bool {
    var waiting = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    return poll(&waiting, 1, Int32(limit.milliseconds)) == 1
  }
}

/// Speaks just enough of the protocol to say its version: AuthenticationOk, ParameterStatus, BackendKeyData,
/// ReadyForQuery (manual, "Message Formats").
package final class OldServer {
  private let socket: MuteServer
  private let thread: WorkerThread<Void>
  package var port: UInt16 { socket.port }

  package init(version: String) throws {
    let socket = try MuteServer()
    let listening = socket.descriptor
    self.socket = socket
    func message(_ kind: String, _ body: [UInt8]) -> [UInt8] {
      let length = UInt32(body.count + 4)
      return Array(kind.utf8) + withUnsafeBytes(of: length.bigEndian, Array.init) + body
    }
    let answer =
      message("R", [0, 0, 0, 0]) + message("S", Array("server_version\0\(version)\0".utf8))
      + message("K", [0, 0, 0, 1, 0, 0, 0, 2]) + message("Z", Array("I".utf8))
    thread = WorkerThread("old-server") {
      let connection = accept(listening, nil, nil)
      guard connection >= 0 else { return }
      var buffer = [UInt8](repeating: 0, count: 4096)
      _ = recv(connection, &buffer, buffer.count, 0)
      _ = send(connection, answer, answer.count, 0)
      while recv(connection, &buffer, buffer.count, 0) > 0 {}
      close(connection)
    }
  }

  deinit {
    shutdown(socket.descriptor, Int32(SHUT_RDWR))
    try? thread.join()
  }
}
