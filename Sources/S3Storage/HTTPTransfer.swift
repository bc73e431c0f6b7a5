// The state of one running transfer, behind libcurl's callbacks. They run on the thread that called
// curl_easy_perform(3) and nowhere else, so nothing here is locked.
import CLibcurl
import Glibc
import ObjectStorage
import SystemSupport

final class HTTPTransfer {
  /// How much of an unwanted rest is read to keep the connection; more is cut off, which costs a new connection.
  private static let drainByteCountMax: Int64 = 256 << 10
  /// Error documents are small; what goes beyond isn't kept.
  private static let errorBodyByteCountMax = 256 << 10

  private let request: HTTPRequest
  private let buffer: ReceiveBuffer?
  private let silenceLimit: Duration
  /// By when the answer's body must have begun, where that has a limit of its own.
  private let answerDeadline: Deadline
  /// The piece of the request's body that is sent next, and how much of it went out.
  private var outgoing = (piece: 0, offset: 0)
  private(set) var exchange = HTTPExchange()
  private(set) var bytesReceived: Int64 = 0
  private(set) var endedEarly = false
  private var bodyHasBegun = false
  private var skipCount: Int64 = 0
  private var takeCount = Int64.max
  private var announced: Int64?
  private var wantsSuffixAtEnd = false
  private var lastProgress = ContinuousClock.now
  private var lastCounts: (Int64, Int64) = (0, 0)

  /// The body of a 2xx answer may take the memory of `buffer`.
  init(
    _ request: HTTPRequest, silenceLimit: Duration, answerLimit: Duration?, buffer: ReceiveBuffer?
  ) {
    self.buffer = buffer
    answerDeadline = answerLimit.map { .after($0) } ?? .never
    self.request = request
    self.silenceLimit = silenceLimit
  }

  // MARK: Sending

  /// The next bytes to send.
  func supply(_ buffer: UnsafeMutableRawBufferPointer) -> Int {
    var filled = 0
    while filled < buffer.count, outgoing.piece < request.body.count {
      let count = request.body[outgoing.piece].withUnsafeBytes { piece in
        let part = piece[outgoing.offset...].prefix(buffer.count - filled)
        UnsafeMutableRawBufferPointer(rebasing: buffer[filled...]).copyMemory(
          from: UnsafeRawBufferPointer(rebasing: part))
        return part.count
      }
      filled += count
      outgoing.offset += count
      if outgoing.offset == request.body[outgoing.piece].count { outgoing = (outgoing.piece + 1, 0) }
    }
    return filled
  }

  /// libcurl repeats a request on a new connection when a kept one turns out to be dead.
  func seek(to offset: Int64) -> Bool {
    guard (0...Int64(request.body.byteCount)).contains(offset) else { return false }
    outgoing = (0, Int(offset))
    while outgoing.piece < request.body.count, outgoing.offset >= request.body[outgoing.piece].count {
      outgoing = (outgoing.piece + 1, outgoing.offset - request.body[outgoing.piece].count)
    }
    return true
  }

  // MARK: Receiving

  func receiveHeader(_ line: UnsafeRawBufferPointer) {
    let text = String(decoding: line, as: UTF8.self)
    let trimmed = text.prefix { $0 != "\r" && $0 != "\n" && $0 != "\r\n" }
    if trimmed.hasPrefix("HTTP/") {
      // A further status line (after 100 Continue, or a repetition) begins the answer anew.
      exchange = HTTPExchange()
      bodyHasBegun = false
      exchange.status = trimmed.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
    } else {
      exchange.headers.append(line: trimmed)
    }
  }

  /// Takes body bytes. `false` ends the transfer: see `endedEarly` and `exchange.failure`.
  func receiveBody(_ chunk: UnsafeRawBufferPointer) -> Bool {
    bytesReceived += Int64(chunk.count)
    if !bodyHasBegun { beginBody() }
    if exchange.failure != nil { return false }
    var rest = chunk
    let skipped = Int(min(skipCount, Int64(rest.count)))
    skipCount -= Int64(skipped)
    rest = UnsafeRawBufferPointer(rebasing: rest[skipped...])
    let taken = Int(min(takeCount, Int64(rest.count)))
    takeCount -= Int64(taken)
    if exchange.status >= 300 {
      exchange.body.append(contentsOf: rest.prefix(max(0, Self.errorBodyByteCountMax - exchange.body.count)))
      return true
    }
    if exchange.body.count + taken > request.bodyByteCountMax { return refuseLength() }
    exchange.body.append(contentsOf: rest.prefix(taken))
    if takeCount == 0, (announced ?? .max) - bytesReceived > Self.drainByteCountMax {
      endedEarly = true
      return false
    }
    return true
  }

  /// To be called after the transfer: an answer without body bytes is placed too, and a suffix is cut.
  func finish() {
    if !bodyHasBegun { beginBody() }
    if wantsSuffixAtEnd, case .suffix(let count) = request.range, exchange.failure == nil {
      exchange.totalByteCount = Int64(exchange.body.count)
      let surplus = max(0, exchange.body.count - Int(min(count, Int64(exchange.body.count))))
      exchange.body.removeFirst(surplus)
      exchange.bodyStart = Int64(surplus)
    }
  }

  func fail(_ failure: TransportFailure) { if exchange.failure == nil { exchange.failure = failure } }

  /// Decides, once all headers are here, which part of the body is wanted.
  private func beginBody() {
    bodyHasBegun = true
    skipCount = 0
    takeCount = .max
    wantsSuffixAtEnd = false
    announced = exchange.headers["content-length"].flatMap { Int64($0) }.flatMap { $0 >= 0 ? $0 : nil }
    exchange.isDelimited =
      announced != nil || request.method == "HEAD" || exchange.status == 204 || exchange.status == 304
      || exchange.headers["transfer-encoding"]?.lowercased().hasSuffix("chunked") == true
    guard (200..<300).contains(exchange.status), request.method != "HEAD" else { return }

    if let partial = exchange.headers["content-range"].flatMap(ContentRange.init) {
      // rclone answers with a part and 200: the header decides, not the status.
      exchange.bodyStart = partial.start
      exchange.totalByteCount = partial.total
    } else if let range = request.range {
      exchange.totalByteCount = announced
      switch range {
      case .bytes(let start, let count):
        skipCount = start
        takeCount = count
        exchange.bodyStart = start
      case .suffix(let count):
        if let announced {
          skipCount = max(0, announced - count)
          exchange.bodyStart = skipCount
        } else {
          wantsSuffixAtEnd = true
        }
      }
    } else {
      exchange.totalByteCount = announced
    }
    if let announced {
      let expected = min(takeCount, max(0, announced - skipCount))
      if expected > Int64(request.bodyByteCountMax) {
        _ = refuseLength()
      } else {
        if let buffer { exchange.body = buffer.take() }
        exchange.body.reservePopulated(Int(expected))
      }
    }
  }

  private func refuseLength() -> Bool {
    fail(TransportFailure(kind: .tooLong, text: "the answer is longer than \(request.bodyByteCountMax) bytes"))
    return false
  }

  // MARK: Watching

  /// Called about once a second, and with each movement. `false` ends the transfer.
  func progress(received: Int64, sent: Int64) -> Bool {
    if let signal = Termination.requested {
      fail(TransportFailure(kind: .interrupted, text: "ended by signal \(signal)"))
      return false
    }
    if !bodyHasBegun, answerDeadline.hasPassed {
      fail(TransportFailure(kind: .timeout, text: "no answer came in time"))
      return false
    }
    let now = ContinuousClock.now
    if lastCounts != (received, sent) {
      lastCounts = (received, sent)
      lastProgress = now
    } else if now - lastProgress > silenceLimit {
      fail(TransportFailure(kind: .timeout, text: "no byte moved for \(Int(silenceLimit.seconds.rounded())) s"))
      return false
    }
    return true
  }
}

/// `Content-Range: bytes FIRST-LAST/TOTAL` (RFC 9110 §14.4).
struct ContentRange {
  var start: Int64
  var end: Int64
  /// `nil` for `*`.
  var total: Int64?

  init?(_ text: String) {
    guard text.hasPrefix("bytes ") else { return nil }
    let parts = text.dropFirst(6).split(separator: "/", omittingEmptySubsequences: false)
    guard parts.count == 2 else { return nil }
    let bounds = parts[0].split(separator: "-", omittingEmptySubsequences: false)
    guard bounds.count == 2, let first = Int64(bounds[0]), let last = Int64(bounds[1]), 0 <= first, first <= last,
      last < .max
    else { return nil }
    start = first
    end = last + 1
    if parts[1] != "*" {
      guard let total = Int64(parts[1]), total > last else { return nil }
      self.total = total
    }
  }
}
