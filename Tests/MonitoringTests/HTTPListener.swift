// A real HTTP server for one test: it keeps what comes in and answers with the statuses that it was given, the last of
// them for ever.
import Diagnostics
import Glibc
import Synchronization
import SystemSupport
import TestSupport

final class HTTPListener: Sendable {
  struct Request: Sendable {
    var head: String
    var body: [UInt8]

    /// The value of the header `name`.
    func header(_ name: String) -> String? {
      head.split(separator: "\r\n").first { $0.lowercased().hasPrefix(name.lowercased() + ": ") }
        .map { String($0.dropFirst(name.count + 2)) }
    }
  }
  private let descriptor: Int32
  private let statuses: Mutex<[Int]>
  private let received = Mutex<[Request]>([])
  private let thread = Mutex<WorkerThread<Void>?>(nil)
  private let ended = Cancellation()
  let port: UInt16

  var requests: [Request] { received.withLock { $0 } }
  var url: String { "http://127.0.0.1:\(port)/hooks/a-secret-path" }

  /// - Parameter statuses: 0 closes the connection without an answer.
  init(statuses: [Int] = [204]) throws {
    self.statuses = Mutex(statuses)
    port = try LoopbackPort.free()
    descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    var address = LoopbackPort.address(port)
    var one: Int32 = 1
    setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &one, socklen_t(MemoryLayout<Int32>.size))
    let bound = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    guard bound == 0, listen(descriptor, 8) == 0 else { throw systemError("cannot listen", "127.0.0.1") }
    let worker = WorkerThread<Void>("listener") { [self] in
      while !ended.isCancelled {
        var waiting = [pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)]
        guard poll(&waiting, 1, 50) > 0 else { continue }
        let connection = accept(descriptor, nil, nil)
        if connection >= 0 {
          serve(connection)
          close(connection)
        }
      }
    }
    thread.withLock { $0 = worker }
  }

  func stop() {
    ended.cancel()
    if let thread = thread.withLock({ $0.take() }) { _ = try? thread.join() }
    close(descriptor)
  }

  private func serve(_ connection: Int32) {
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 65536)
    while true {
      let count = read(connection, &buffer, buffer.count)
      if count <= 0 { return }
      bytes += buffer[..<count]
      let text = String(decoding: bytes, as: UTF8.self)
      guard let end = text.firstRange(of: "\r\n\r\n") else { continue }
      let head = String(text[..<end.lowerBound])
      let request = Request(head: head, body: Array(bytes.dropFirst(head.utf8.count + 4)))
      guard request.body.count >= request.header("Content-Length").flatMap({ Int($0) }) ?? 0 else { continue }
      received.withLock { $0.append(request) }
      let status = statuses.withLock { $0.count > 1 ? $0.removeFirst() : $0[0] }
      if status > 0 {
        let answer = Array("HTTP/1.1 \(status) Answer\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".utf8)
        _ = write(connection, answer, answer.count)
      }
      return
    }
  }
}
