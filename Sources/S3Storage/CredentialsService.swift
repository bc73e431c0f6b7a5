// One exchange with a service that hands out credentials: short limits, a few repetitions, small answers. What they say
// is secret, so no answer's body is ever quoted, and an error document only where the service said that it is one.
import Diagnostics
import Foundation
import ObjectStorage
import SystemSupport

struct CredentialsService: Sendable {
  /// For messages: "instance metadata", "STS".
  let name: String
  let endpoint: String
  private let transport: HTTPTransport
  private let attemptLimit: Duration
  private static let answerByteCountMax = 64 << 10
  private static let pause = Duration.milliseconds(100)

  /// - Parameter attemptLimit: for one attempt, from its first packet to its last.
  init(_ name: String, endpoint: String, attemptLimit: Duration, certificateAuthorityFile: String? = nil) {
    self.name = name
    self.endpoint = endpoint
    self.attemptLimit = attemptLimit
    var limits = S3Limits()
    limits.connect = attemptLimit
    limits.silence = attemptLimit
    transport = HTTPTransport(limits: limits, certificateAuthorityFile: certificateAuthorityFile)
  }

  /// Asks until there is an answer that a repetition can't better, or the deadline has passed. The first attempt is made
  /// in any case.
  /// - Parameters:
  ///   - repeatsFailures: whether an attempt that brought no answer is worth a repetition.
  ///   - isRetryable: whether an answer of the service is.
  func ask(
    _ request: HTTPRequest, deadline: Deadline, repeatsFailures: Bool = true,
    isRetryable: (HTTPExchange) -> Bool = Self.isPassing
  ) throws(TidemarkError) -> HTTPExchange {
    var request = request
    request.bodyByteCountMax = Self.answerByteCountMax
    var repetition = 0
    while true {
      try Termination.check()
      let (exchange, _) = transport.perform(request, timeout: attemptLimit)
      let isLast: Bool
      if let failure = exchange.failure {
        if failure.kind == .interrupted { throw TidemarkError(.interrupted, "cannot get credentials from \(name)") }
        isLast = !repeatsFailures || !failure.isRetryable
      } else {
        isLast = !isRetryable(exchange)
      }
      repetition += 1
      let pause = Self.pause * (1 << min(repetition - 1, 5))
      if isLast { return exchange }
      if let remaining = deadline.remaining, remaining <= pause + .milliseconds(1) { return exchange }
      try RetryPause.wait(pause)
    }
  }

  static func isPassing(_ exchange: HTTPExchange) -> Bool { [408, 429, 500, 502, 503, 504].contains(exchange.status) }

  /// What an exchange without credentials means.
  func error(_ exchange: HTTPExchange, _ said: String? = nil, next: String? = nil) -> TidemarkError {
    let code: ErrorCode =
      if exchange.failure != nil || Self.isPassing(exchange) {
        .regionUnreachable
      } else if (400..<500).contains(exchange.status) {
        .accessDenied
      } else {
        .storeAnswerInvalid
      }
    return TidemarkError(
      code, "cannot get credentials from \(name)", object: endpoint,
      cause: exchange.failure?.text ?? said ?? "HTTP \(exchange.status)", next: next)
  }

  func invalid(_ cause: String) -> TidemarkError {
    TidemarkError(.storeAnswerInvalid, "cannot get credentials from \(name)", object: endpoint, cause: cause)
  }

  /// The document with which containers and instances answer.
  /// Source: Amazon EC2 User Guide, "Retrieve security credentials from instance metadata".
  struct Document: Decodable {
    var Code: String?
    var Message: String?
    var AccessKeyId: String?
    var SecretAccessKey: String?
    var Token: String?
    var Expiration: String?
  }

  func credentials(_ exchange: HTTPExchange, origin: String) throws(TidemarkError) -> Credentials {
    // The decoder's own words could repeat a secret.
    guard let document = try? JSONDecoder().decode(Document.self, from: Data(exchange.body)) else {
      throw invalid("the answer isn't the JSON document that it should be")
    }
    if let code = document.Code, code != "Success" {
      throw TidemarkError(
        .accessDenied, "cannot get credentials from \(name)", object: endpoint,
        cause: code + (document.Message.map { ": \($0.prefix(300))" } ?? ""))
    }
    guard let key = document.AccessKeyId, let secret = document.SecretAccessKey, let token = document.Token else {
      throw invalid("the answer lacks AccessKeyId, SecretAccessKey or Token")
    }
    return try temporary(key, secret, token, document.Expiration, origin: origin)
  }

  /// - Throws: `store-answer-invalid` when the moment of expiry is no moment.
  func temporary(
    _ key: String, _ secret: String, _ token: String, _ expiration: String?, origin: String
  ) throws(TidemarkError) -> Credentials {
    guard let expires = expiration.flatMap(Timestamp.iso8601) else {
      throw invalid("the answer's Expiration isn't a moment: \((expiration ?? "none").prefix(40))")
    }
    guard Self.isHeaderValue(key), Self.isHeaderValue(token) else {
      throw invalid("the answer has characters that no credentials have")
    }
    return Credentials(accessKey: key, secretKey: secret, sessionToken: token, expires: expires, origin: origin)
  }

  /// Whether `text` can be a header's value: visible ASCII, no line ends.
  static func isHeaderValue(_ text: String) -> Bool { text.utf8.allSatisfy { (0x21...0x7E).contains($0) } }
}
