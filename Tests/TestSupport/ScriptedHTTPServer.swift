// An HTTP server that answers as a test says, for what no real server can be made to do: metadata services, error
// documents, headers that are wrong. It keeps the requests that it saw.
import Diagnostics
import Glibc
import Synchronization
import SystemSupport

package final class ScriptedHTTPServer: Sendable {
  package enum Answer: Sendable {
    case status(Int, headers: [(name: String, value: String)] = [], body: [UInt8] = [])
    /// Bytes as they are, and then the end of the connection.
    case bytes([UInt8])
    /// Bytes as they are, a piece every half second.
    case trickle([UInt8], pieceCount: Int)
    /// Nothing, until the client closes.
    case stall
    case reset

    package static func text(_ text: String) -> Answer { .text(200, text) }
    package static func text(_ status: Int, _ text: String) -> Answer {
      .status(status, body: Array(text.utf8))
    }
  }

  private let log: RequestLog
  private let listener: LoopbackListener

  /// `answer` sees each request and its number from 0 on.
  package init(_ answer: @escaping @Sendable (WireMessage, Int) -> Answer) throws(TidemarkError) {
    let log = RequestLog()
    self.log = log
    listener = try LoopbackListener { connection in
      while let request = connection.readMessage() {
        switch answer(request, log.append(request)) {
        case .status(let status, let headers, let body):
          var lines = ["HTTP/1.1 \(status) Test"] + headers.map { "\($0.name): \($0.value)" }
          if !headers.contains(where: { $0.name.lowercased() == "content-length" }) {
            lines.append("Content-Length: \(body.count)")
          }
          let head = lines.joined(separator: "\r\n") + "\r\n\r\n"
          guard connection.send(Array(head.utf8) + (request.method == "HEAD" ? [] : body)) else { return }
        case .bytes(let bytes):
          connection.send(bytes)
          return
        case .trickle(let bytes, let pieceCount):
          for index in 0..<pieceCount {
            let piece = bytes[(bytes.count * index / pieceCount)..<(bytes.count * (index + 1) / pieceCount)]
            guard connection.send(piece) else { return }
            usleep(500_000)
          }
          return
        case .stall: return connection.drain()
        case .reset: return connection.reset()
        }
      }
    }
  }

  package var port: UInt16 { listener.port }
  package var endpoint: String { "http://127.0.0.1:\(listener.port)" }
  package var connectionCount: Int { listener.acceptedCount }
  package var requests: [WireMessage] { log.all }
  package func stop() { listener.stop() }
}

/// The requests that a server saw, in the order in which they came.
final class RequestLog: Sendable {
  private let requests = Mutex<[WireMessage]>([])
  var all: [WireMessage] { requests.withLock { $0 } }

  /// Returns the number of the request, from 0.
  func append(_ request: WireMessage) -> Int {
    requests.withLock { requests in
      requests.append(request)
      return requests.count - 1
    }
  }
}
