// A request to S3 as the store's methods describe it, and what S3 said when it refused.
import Diagnostics
import ObjectStorage

struct S3Operation {
  /// For messages: "create the object" in "cannot create the object".
  var doing: String
  var method: String
  var key: ObjectKey?
  var query: [(name: String, value: String)] = []
  var headers: [(name: String, value: String)] = []
  /// In pieces that follow one another.
  var body: [[UInt8]] = []
  /// SHA-256 of `body` in hexadecimal digits, or ``unsignedBody``.
  var bodyDigest = S3Operation.emptyDigest
  var range: HTTPRange?
  var bodyByteCountMax = 16 << 20
  /// Whose memory a 2xx answer's body may take.
  var buffer: ReceiveBuffer?
  /// Whether a 2xx answer's body is a document, which may be an error (trap: S3 answers 200 before it is done).
  var answersWithDocument = true

  /// Source: Amazon S3 API Reference, "Signature Calculations for the Authorization Header: Transferring Payload in a Single
  /// Chunk".
  static let unsignedBody = "UNSIGNED-PAYLOAD"
  static let emptyDigest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

  init(_ doing: String, _ method: String, _ key: ObjectKey? = nil) {
    self.doing = doing
    self.method = method
    self.key = key
  }
}

/// An answer other than success that came from the store.
/// Source: Amazon S3 API Reference, "Error responses".
struct S3Refusal {
  var status: Int
  /// `NoSuchKey` and the like; empty when the answer had no error document.
  var code = ""
  var message = ""
  var document: S3Element?
  var headers: HTTPHeaders

  init(_ exchange: HTTPExchange) {
    status = exchange.status
    headers = exchange.headers
    if let root = S3Document.root(of: exchange.body), root.name == "Error" {
      document = root
    } else if let root = S3Document.root(of: exchange.body), root.name == "ErrorResponse" {
      document = root["Error"]
    }
    code = document?.value("Code") ?? ""
    message = document?.value("Message") ?? ""
    // An error document in a 200 stands for the status that it should have had.
    if (200..<300).contains(status) { status = Self.status(of: code) }
  }

  /// "HTTP 403 AccessDenied: Access Denied"
  var text: String {
    "HTTP \(status)" + (code.isEmpty ? "" : " \(code)") + (message.isEmpty ? "" : ": \(message.prefix(300))")
  }

  /// Whether the store says that it doesn't implement what was asked.
  var isNotImplemented: Bool { status == 501 || code == "NotImplemented" }

  /// Trap 40, the two conflicts that S3 asks to retry, and bodies that the line spoilt on their way.
  var isRetryable: Bool {
    switch status {
    case 408, 429, 500, 502, 503, 504: true
    case 409: code == "ConditionalRequestConflict" || code == "OperationAborted" || code.isEmpty
    case 400: ["RequestTimeout", "BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody"].contains(code)
    default: false
    }
  }

  private static func status(of code: String) -> Int {
    switch code {
    case "InternalError": 500
    case "SlowDown", "ServiceUnavailable": 503
    case "AccessDenied", "SignatureDoesNotMatch", "InvalidAccessKeyId", "RequestTimeTooSkewed": 403
    case "NoSuchBucket", "NoSuchKey": 404
    case "PreconditionFailed": 412
    default: 400
    }
  }
}
