// Accepts connections on a port of 127.0.0.1 and serves each on a thread of its own. It can go away and come back on the
// same port, as a region does.
import Diagnostics
import Foundation
import Glibc
import Synchronization
import SystemSupport

package final class LoopbackListener: Sendable {
  private struct State {
    var descriptor: Int32?
    var connections: [ObjectIdentifier: WireConnection] = [:]
    var acceptedCount = 0
  }
  private let state = Mutex(State())
  private let serve: @Sendable (WireConnection) -> Void
  package let port: UInt16

  /// `serve` runs once for each connection; the connection ends with it.
  package init(_ serve: @escaping @Sendable (WireConnection) -> Void) throws(TidemarkError) {
    self.serve = serve
    port = try LoopbackPort.free()
    try start()
  }

  deinit { stop() }

  /// How many connections were accepted so far.
  package var acceptedCount: Int { state.withLock { $0.acceptedCount } }

  /// Listens again after ``stop()``.
  package func start() throws(TidemarkError) {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    guard descriptor >= 0 else { throw systemError("cannot make a socket", "127.0.0.1") }
    var on: Int32 = 1
    setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, socklen_t(MemoryLayout<Int32>.size))
    var address = LoopbackPort.address(port)
    let status = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    guard status == 0, listen(descriptor, 128) == 0 else {
      let error = systemError("cannot listen", "127.0.0.1:\(port)")
      close(descriptor)
      throw error
    }
    state.withLock { $0.descriptor = descriptor }
    Thread.detachNewThread { [weak self] in
      while true {
        let accepted = accept(descriptor, nil, nil)
        if accepted < 0 {
          if errno == EINTR || errno == ECONNABORTED { continue }
          break
        }
        guard let self else {
          close(accepted)
          break
        }
        self.begin(WireConnection(accepted))
      }
      close(descriptor)
    }
  }

  /// Refuses connections from now on, and resets those that stand.
  package func stop() {
    let connections = state.withLock { state in
      if let descriptor = state.descriptor { shutdown(descriptor, Int32(SHUT_RDWR)) }
      state.descriptor = nil
      defer { state.connections = [:] }
      return Array(state.connections.values)
    }
    for connection in connections { connection.reset() }
    // The thread that accepts closes the socket; until then the port may still seem to be there.
    while LoopbackPort.accepts(port) { usleep(1000) }
  }

  private func begin(_ connection: WireConnection) {
    state.withLock { state in
      state.acceptedCount += 1
      state.connections[ObjectIdentifier(connection)] = connection
    }
    Thread.detachNewThread { [serve, weak self] in
      serve(connection)
      connection.close()
      self?.state.withLock { _ = $0.connections.removeValue(forKey: ObjectIdentifier(connection)) }
    }
  }
}
