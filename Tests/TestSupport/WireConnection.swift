// HTTP/1.1 as the tests' own servers speak it: whole messages over a blocking socket, kept byte for byte so that a proxy
// can pass them on, cut them or spoil them.
import Diagnostics
import Glibc
import Synchronization
import SystemSupport

/// A request or an answer: its head and its body as they came.
package struct WireMessage: Sendable {
  /// Up to and including the empty line.
  package var head: [UInt8]
  /// As it was sent, chunked or not.
  package var body: [UInt8]

  private var lines: [Substring] { String(decoding: head, as: UTF8.self).split(whereSeparator: \.isNewline) }
  /// "PUT /bucket/key HTTP/1.1", "HTTP/1.1 200 OK".
  package var startLine: String { lines.first.map(String.init) ?? "" }
  package var method: String { startLine.split(separator: " ").first.map(String.init) ?? "" }
  /// A request's path and query.
  package var target: String { startLine.split(separator: " ").dropFirst().first.map(String.init) ?? "" }
  package var status: Int { Int(target) ?? 0 }
  package var bodyText: String { String(decoding: body, as: UTF8.self) }

  /// The value of the header `name`, whatever its case.
  package subscript(name: String) -> String? {
    for line in lines.dropFirst() {
      guard let colon = line.firstIndex(of: ":"), line[..<colon].lowercased() == name.lowercased() else { continue }
      return String(line[line.index(after: colon)...].drop { $0 == " " })
    }
    return nil
  }
}

/// A connected socket; it is closed when this goes away.
package final class WireConnection: Sendable {
  private let descriptor: Int32
  private let buffer = Mutex<[UInt8]>([])
  private let isOpen = Atomic<Bool>(true)

  init(_ descriptor: Int32) {
    self.descriptor = descriptor
    var on: Int32 = 1
    setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<Int32>.size))
  }

  /// Connects to a port of 127.0.0.1.
  package convenience init(port: UInt16) throws(TidemarkError) {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    guard descriptor >= 0 else { throw systemError("cannot make a socket", "127.0.0.1") }
    var address = LoopbackPort.address(port)
    let status = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    guard status == 0 else {
      let error = systemError("cannot connect", "127.0.0.1:\(port)")
      Glibc.close(descriptor)
      throw error
    }
    self.init(descriptor)
  }

  deinit { Glibc.close(descriptor) }

  /// The next message; `nil` when the peer closed before one was complete.
  /// - Parameter isBodiless: for the answer to a HEAD, whose Content-Length has no body behind it.
  package func readMessage(isBodiless: Bool = false) -> WireMessage? {
    let end = Array("\r\n\r\n".utf8)
    guard let head = take(through: end) else { return nil }
    var message = WireMessage(head: head, body: [])
    let isAnswer = message.startLine.hasPrefix("HTTP/")
    if isBodiless || isAnswer && [204, 304].contains(message.status) { return message }
    if message["transfer-encoding"]?.lowercased() == "chunked" {
      while true {
        guard let line = take(through: [13, 10]) else { return nil }
        let digits = String(decoding: line, as: UTF8.self).prefix { $0.isHexDigit }
        guard let count = Int(digits, radix: 16), let chunk = take(count: count + 2) else { return nil }
        message.body += line + chunk
        if count == 0 { return message }
      }
    }
    if let count = message["content-length"].flatMap({ Int($0) }) {
      guard let body = take(count: count) else { return nil }
      message.body = body
    } else if isAnswer {
      while fill() {}
      message.body = buffer.withLock { buffered in
        defer { buffered = [] }
        return buffered
      }
    }
    return message
  }

  /// Sends all of `bytes`. Returns whether that went well.
  @discardableResult
  package func send(_ bytes: some Sequence<UInt8>) -> Bool {
    let bytes = Array(bytes)
    var done = 0
    while done < bytes.count {
      let count = bytes.withUnsafeBytes {
        // Not empty here, so it has a base address.
        Glibc.send(descriptor, $0.baseAddress! + done, $0.count - done, Int32(MSG_NOSIGNAL))
      }
      if count <= 0 {
        if count < 0, errno == EINTR { continue }
        return false
      }
      done += count
    }
    return true
  }

  /// Waits until the peer closes, whatever it sends.
  package func drain() { while fill(keeps: false) {} }

  /// Ends the connection in an orderly way; whoever waits on it wakes up.
  package func close() {
    if isOpen.exchange(false, ordering: .relaxed) { shutdown(descriptor, Int32(SHUT_RDWR)) }
  }

  /// Ends the connection with a reset: what was sent and not yet read is lost.
  package func reset() {
    var linger = linger(l_onoff: 1, l_linger: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &linger, socklen_t(MemoryLayout<Glibc.linger>.size))
    // An AF_UNSPEC connect(2) aborts a connection at once, without freeing the descriptor under another thread.
    var nowhere = sockaddr(sa_family: sa_family_t(AF_UNSPEC), sa_data: (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))
    if connect(descriptor, &nowhere, socklen_t(MemoryLayout<sockaddr>.size)) != 0 { close() }
  }

  // MARK: Reading

  private func take(through end: [UInt8]) -> [UInt8]? {
    var searched = 0
    while true {
      let found: [UInt8]? = buffer.withLock { buffered in
        guard buffered.count >= end.count else { return nil }
        for start in searched...(buffered.count - end.count) where buffered[start..<(start + end.count)] == end[...] {
          let taken = Array(buffered[..<(start + end.count)])
          buffered.removeFirst(taken.count)
          return taken
        }
        searched = buffered.count - end.count + 1
        return nil
      }
      if let found { return found }
      guard fill() else { return nil }
    }
  }

  private func take(count: Int) -> [UInt8]? {
    while buffer.withLock({ $0.count }) < count { guard fill() else { return nil } }
    return buffer.withLock { buffered in
      let taken = Array(buffered[..<count])
      buffered.removeFirst(count)
      return taken
    }
  }

  /// Reads once. `false` at the end, and on a broken connection.
  private func fill(keeps: Bool = true) -> Bool {
    var chunk = [UInt8](repeating: 0, count: 256 << 10)
    while true {
      let count = recv(descriptor, &chunk, chunk.count, 0)
      if count < 0, errno == EINTR { continue }
      guard count > 0 else { return false }
      if keeps { buffer.withLock { $0.append(contentsOf: chunk[..<count]) } }
      return true
    }
  }
}
