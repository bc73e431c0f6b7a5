// One HTTP exchange as values: what goes out, and what came back, complete or not.
import Diagnostics

/// A request with its whole body in memory.
struct HTTPRequest {
  var method: String
  var url: String
  /// As they go onto the wire. `Host` and `Content-Length` are libcurl's affair unless given.
  var headers: [(name: String, value: String)] = []
  /// In pieces that follow one another.
  var body: [[UInt8]] = []
  /// The part of the representation that a `Range` header asks for; it cuts answers that ignore the header.
  var range: HTTPRange?
  /// When given, the attempt's limit holds until the answer's body begins, and then no longer: what moves is let go on
  /// to this limit. So a large object on a slow line arrives, and a server that doesn't answer is left early.
  var movingTimeout: Duration?
  /// The longest body of a 2xx answer that is accepted.
  var bodyByteCountMax = 1 << 20
  /// Requests to the host's own metadata service never go through a proxy.
  var bypassesProxies = false
}

/// RFC 9110 §14.1.2.
enum HTTPRange: Equatable {
  case bytes(start: Int64, count: Int64)
  case suffix(count: Int64)

  /// Beyond this a range is written without an end: servers have been seen to spin on ends near 2⁶³.
  private static let endMax: Int64 = 1 << 50

  var headerValue: String {
    switch self {
    case .bytes(let start, let count):
      let (end, overflow) = start.addingReportingOverflow(count - 1)
      return "bytes=\(start)-" + (overflow || end > Self.endMax ? "" : "\(end)")
    case .suffix(let count): return "bytes=-\(count)"
    }
  }
}

/// What came back.
struct HTTPExchange {
  /// 0 when no status line arrived.
  var status = 0
  var headers = HTTPHeaders()
  /// The bytes of the wanted range, as far as they arrived.
  var body: [UInt8] = []
  /// Where `body` begins within the representation.
  var bodyStart: Int64 = 0
  /// The representation's whole length, where the answer told.
  var totalByteCount: Int64?
  /// Whether the answer's end could be known: by its length, by chunks, or by having no body.
  var isDelimited = true
  /// Why the exchange isn't complete.
  var failure: TransportFailure?
}

struct HTTPHeaders {
  private var fields: [(name: String, value: String)] = []
  private static let countMax = 200

  subscript(name: String) -> String? { fields.last { $0.name == name }?.value }

  mutating func removeAll() { fields.removeAll(keepingCapacity: true) }

  /// Takes a header line without its line end; lines beyond 200 are dropped.
  mutating func append(line: Substring) {
    guard fields.count < Self.countMax, let colon = line.firstIndex(of: ":") else { return }
    let value = line[line.index(after: colon)...].drop { $0 == " " || $0 == "\t" }
    fields.append((line[..<colon].lowercased(), String(value.trimmingSuffix { $0 == " " || $0 == "\t" })))
  }
}

extension Substring {
  fileprivate func trimmingSuffix(_ isRemoved: (Character) -> Bool) -> Substring {
    var rest = self
    while let last = rest.last, isRemoved(last) { rest.removeLast() }
    return rest
  }
}

/// Why an exchange ended before it was complete, in libcurl's words.
struct TransportFailure {
  enum Kind: Equatable {
    /// Name, connection, TLS handshake or transfer: a repetition may succeed.
    case connection
    /// Nothing moved either way for the limit on silence, or the attempt's time was up.
    case timeout
    /// The peer's certificate isn't trusted, or the CA file can't be read: a repetition can't help.
    case trust
    /// The body is longer than accepted.
    case tooLong
    /// A signal asked us to end.
    case interrupted
    /// The request can't be made: a malformed URL, or no memory.
    case local
  }
  var kind: Kind
  var text: String

  var isRetryable: Bool { kind == .connection || kind == .timeout }
}
