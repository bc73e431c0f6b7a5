// A proxy between Tidemark and a real S3 server that does what networks and ill servers do: scripted, request by request,
// or at random from a seed that a failed run prints. It forwards whole messages, so that it knows where a request is:
// before its body, after it, after the server carried it out.
import Diagnostics
import Glibc
import Synchronization
import SystemSupport

package enum Fault: Sendable, Equatable {
  /// The request goes on after a while.
  case latency(Duration)
  /// The server doesn't see the request; the client is told this.
  case refusal(status: Int, code: String, retryAfter: Int? = nil)
  /// The server doesn't see the request; the client's connection is reset.
  case reset
  /// The server gets a part of the body, and then a reset.
  case truncatedRequest
  /// The client gets a part of the answer, and then the end of the connection.
  case truncatedAnswer
  /// The server carries the request out; the client's connection is reset.
  case lostAnswer
  /// The server carries the request out; the client is told 503.
  case refusalAfterwards
  /// One bit of the request's body arrives wrong.
  case spoiltRequest
  /// One bit of the answer's body arrives wrong, where it is an object's and not a document.
  case spoiltAnswer
  /// Nothing, until the client gives up. The server doesn't see the request.
  case stall
  /// The server carries the request out, and the client hears nothing.
  case stallAfterwards

  /// What a store that retries must get over by itself.
  package static let passing: [Fault] = [
    .latency(.milliseconds(30)), .refusal(status: 503, code: "SlowDown", retryAfter: 0),
    .refusal(status: 500, code: "InternalError"), .reset, .truncatedRequest, .truncatedAnswer, .lostAnswer,
    .refusalAfterwards, .spoiltRequest, .stall, .stallAfterwards,
  ]

  fileprivate var name: String { String("\(self)".prefix { $0 != "(" }) }
}

package final class FaultProxy: Sendable {
  /// What the proxy does with requests that no fault was chosen for.
  package enum Mode: Sendable, Equatable {
    case pass
    /// Every request meets this fault.
    case always(Fault)
    /// Each request meets one of these faults with this probability.
    case random(probability: Double, among: [Fault])
    /// Connections are accepted, and that is all.
    case frozen
    /// Everything passes until the first request whose target holds this: that is answered to its middle, and from then
    /// on as ``frozen``.
    case frozenFrom(String)
    /// The server's clock differs by so many seconds, and it refuses requests for that, as S3 does.
    case skewedClock(seconds: Int)
  }

  private struct State {
    var mode = Mode.pass
    var script: [Fault?] = []
    var generator: SeededGenerator
    var injected: [String: Int] = [:]
    var requestCount = 0
  }

  private let forwarder: Forwarder
  private let listener: LoopbackListener
  package let seed: UInt64

  /// Forwards to `upstream` on 127.0.0.1.
  package init(upstream: UInt16, seed: UInt64 = .random(in: 1...999_999)) throws(TidemarkError) {
    self.seed = seed
    let forwarder = Forwarder(upstream: upstream, seed: seed)
    self.forwarder = forwarder
    listener = try LoopbackListener { forwarder.serve($0) }
  }

  package var port: UInt16 { listener.port }
  package var endpoint: String { "http://127.0.0.1:\(listener.port)" }
  package var connectionCount: Int { listener.acceptedCount }
  /// How often each fault was injected.
  package var injected: [String: Int] { forwarder.state.withLock { $0.injected } }
  package var requestCount: Int { forwarder.state.withLock { $0.requestCount } }
  /// For the message of a failed expectation.
  package var description: String {
    "seed \(seed), \(requestCount) requests, injected: "
      + injected.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }.joined(separator: ", ")
  }

  /// Whether it has come to the request that froze it.
  package var isFrozen: Bool { forwarder.state.withLock { $0.mode == .frozen } }

  package func set(_ mode: Mode) { forwarder.state.withLock { $0.mode = mode } }

  /// The next requests meet these, one each; `nil` passes.
  package func script(_ faults: [Fault?]) { forwarder.state.withLock { $0.script = faults } }

  /// Refuses connections, and resets those that stand.
  package func goDown() { listener.stop() }
  package func comeBack() throws(TidemarkError) { try listener.start() }

  // MARK: Forwarding

  private final class Forwarder: Sendable {
    let state: Mutex<State>
    private let upstream: UInt16

    init(upstream: UInt16, seed: UInt64) {
      self.upstream = upstream
      state = Mutex(State(generator: SeededGenerator(seed: seed)))
    }

    func serve(_ client: WireConnection) {
      var server: WireConnection?
      while true {
        if state.withLock({ $0.mode == .frozen }) { return client.drain() }
        guard let request = client.readMessage() else { return }
        switch freezes(at: request) {
        case .no: break
        case .already: return client.drain()
        case .now:
          if let answer = exchange(&server, request, request.body) {
            client.send(answer.head + answer.body.prefix(answer.body.count / 2))
          }
          return client.drain()
        }
        let (fault, skew) = choose()
        if let skew { return refuseSkewed(client, request, by: skew) }
        switch fault {
        case .latency(let duration): usleep(UInt32(duration.milliseconds * 1000))
        case .refusal(let status, let code, let retryAfter):
          guard answer(client, request, status, code, retryAfter) else { return }
          continue
        case .reset: return client.reset()
        case .stall: return client.drain()
        case .truncatedRequest:
          // A server gets a connection of its own for this, which dies in the middle.
          if let dying = try? WireConnection(port: upstream) {
            dying.send(request.head + request.body.prefix(request.body.count / 2))
            dying.reset()
          }
          return client.reset()
        default: break
        }
        var body = request.body
        if fault == .spoiltRequest, !body.isEmpty { body[body.count / 2] ^= 4 }
        guard let answer = exchange(&server, request, body) else { return client.reset() }
        switch fault {
        case .lostAnswer: return client.reset()
        case .stallAfterwards: return client.drain()
        case .refusalAfterwards:
          guard self.answer(client, request, 503, "ServiceUnavailable", nil) else { return }
        case .truncatedAnswer:
          client.send(answer.head + answer.body.prefix(answer.body.count / 2))
          return
        case .spoiltAnswer where request.method == "GET" && !answer.body.isEmpty && !request.target.contains("?"):
          var body = answer.body
          body[body.count / 2] ^= 4
          guard client.send(answer.head + body) else { return }
        default:
          guard client.send(answer.head + answer.body) else { return }
        }
        let isLast =
          answer["connection"]?.lowercased() == "close"
          || answer["content-length"] == nil && answer["transfer-encoding"] == nil && answer.status != 204
        if isLast { return }
      }
    }

    private enum Freezing { case no, now, already }

    private func freezes(at request: WireMessage) -> Freezing {
      state.withLock { state in
        if case .frozenFrom(let part) = state.mode, request.target.contains(part) {
          state.mode = .frozen
          return .now
        }
        return state.mode == .frozen ? .already : .no
      }
    }

    private func choose() -> (Fault?, skew: Int?) {
      state.withLock { state in
        state.requestCount += 1
        var fault: Fault?
        if !state.script.isEmpty {
          fault = state.script.removeFirst()
        } else {
          switch state.mode {
          case .pass, .frozen, .frozenFrom: break
          case .always(let always): fault = always
          case .random(let probability, let among):
            if Double.random(in: 0..<1, using: &state.generator) < probability {
              fault = among.randomElement(using: &state.generator)
            }
          case .skewedClock(let seconds): return (nil, seconds)
          }
        }
        if let fault { state.injected[fault.name, default: 0] += 1 }
        return (fault, nil)
      }
    }

    /// Sends the request on and reads the answer, on a new connection when the kept one has died.
    private func exchange(_ server: inout WireConnection?, _ request: WireMessage, _ body: [UInt8]) -> WireMessage? {
      for isKept in [server != nil, false] {
        if !isKept { server = try? WireConnection(port: upstream) }
        guard let connection = server else { return nil }
        if connection.send(request.head + body),
          let answer = connection.readMessage(isBodiless: request.method == "HEAD")
        {
          if answer["connection"]?.lowercased() == "close" { server = nil }
          return answer
        }
        server = nil
        if !isKept { return nil }
      }
      return nil
    }

    private func answer(
      _ client: WireConnection, _ request: WireMessage, _ status: Int, _ code: String, _ retryAfter: Int?
    ) -> Bool {
      let body = "<Error><Code>\(code)</Code><Message>injected</Message></Error>"
      let wait = retryAfter.map { "Retry-After: \($0)\r\n" } ?? ""
      let head = "HTTP/1.1 \(status) Injected\r\n\(wait)Content-Length: \(body.utf8.count)\r\n\r\n"
      return client.send(Array((request.method == "HEAD" ? head : head + body).utf8))
    }

    private func refuseSkewed(_ client: WireConnection, _ request: WireMessage, by seconds: Int) {
      var moment = time(nil) + seconds
      var parts = tm()
      gmtime_r(&moment, &parts)
      var text = [CChar](repeating: 0, count: 64)
      strftime(&text, text.count, "%a, %d %b %Y %H:%M:%S GMT", &parts)
      let body = "<Error><Code>RequestTimeTooSkewed</Code><Message>injected</Message></Error>"
      let date = text.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }  // 64 characters, so not empty
      let head =
        "HTTP/1.1 403 Injected\r\nDate: \(date)\r\nConnection: close\r\nContent-Length: \(body.utf8.count)\r\n\r\n"
      client.send(Array((request.method == "HEAD" ? head : head + body).utf8))
    }
  }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): the same seed gives the same run.
package struct SeededGenerator: RandomNumberGenerator, Sendable {
  private var state: UInt64
  package init(seed: UInt64) { state = seed }

  package mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}
