// The one place where requests are made: signing, retries with back-off, statistics and the store's clock. What can't
// become better by a repetition is thrown or returned at once.
import Diagnostics
import Glibc
import ObjectStorage
import SystemSupport

/// How retries are spaced: the pause doubles from `first` to `longest`, and a random part of up to half is taken off,
/// so that many clients don't come back together.
enum RetryPause {
  static let first = Duration.milliseconds(100)
  static let longest = Duration.seconds(10)
  /// What a `Retry-After` may ask for.
  static let retryAfterMax = Duration.seconds(120)

  /// Before repetition `number` (from 1).
  static func length(_ number: Int, retryAfter: String?) -> Duration {
    let whole = min(longest, first * (1 << min(number - 1, 10)))
    let jittered = whole * Double.random(in: 0.5...1)
    guard let retryAfter else { return jittered }
    // RFC 9110 §10.2.3: seconds or a date.
    let asked =
      Int64(retryAfter).map { Duration.seconds(max(0, min($0, 86_400))) }
      ?? Timestamp.http(retryAfter).map { Duration.seconds(max(0, Double($0) - Timestamp.now())) }
    return max(jittered, min(asked ?? .zero, retryAfterMax))
  }

  /// Waits, unless a signal asks for the end.
  static func wait(_ length: Duration) throws(TidemarkError) {
    let deadline = Deadline.after(length)
    while !deadline.hasPassed {
      try Termination.check()
      poll(nil, 0, min(deadline.pollMilliseconds, 200))
    }
  }
}

extension S3Store {
  enum Outcome {
    case done(HTTPExchange)
    case refused(S3Refusal)
    /// The caller's `beforeRetry` found that nothing is left to do.
    case settled
  }

  /// Sends `operation` until it is answered.
  ///
  /// - Parameter beforeRetry: sees what arrived of an incomplete or failed answer and may change the operation for the
  ///   repetition; returns `true` when no repetition is needed.
  /// - Returns: `.done` for a complete 2xx answer that is no error document; `.refused` for what the caller must judge:
  ///   a missing key, a failed condition, and whatever else the store refuses for good.
  /// - Throws: the codes of `ObjectStore.create`, and `interrupted`.
  func perform(
    _ original: S3Operation, deadline: Deadline,
    beforeRetry: (inout S3Operation, HTTPExchange) throws(TidemarkError) -> Bool = { _, _ in false }
  ) throws(TidemarkError) -> Outcome {
    var operation = original
    var repetition = 0
    var hasRenewedCredentials = false
    while true {
      try Termination.check()
      let credentials = try configuration.credentials.current(deadline: deadline)
      var timeout = min(configuration.limits.attempt, deadline.remaining ?? configuration.limits.attempt)
      if repetition == 0 { timeout = max(timeout, configuration.limits.firstAttempt) }
      let exchange = try send(operation, credentials, timeout: timeout)

      let problem: TidemarkError
      if let failure = exchange.failure {
        problem = transportError(failure, operation)
        if !failure.isRetryable { throw problem }
      } else if (200..<300).contains(exchange.status), !Self.isErrorDocument(exchange, operation) {
        return .done(exchange)
      } else {
        let refusal = S3Refusal(exchange)
        if refusal.isRetryable {
          problem = exhaustedError(refusal, operation, attempts: repetition + 1)
        } else if !hasRenewedCredentials, Self.mayHaveExpired(refusal, credentials) {
          hasRenewedCredentials = true
          configuration.credentials.renew(rejected: credentials)
          continue
        } else {
          // A HEAD's answer has no document that says why: its caller finds that out.
          let isMute = operation.method == "HEAD" && refusal.code.isEmpty
          if !isMute, let error = permanentError(refusal, operation, credentials) { throw error }
          return .refused(refusal)
        }
      }

      repetition += 1
      let pause = RetryPause.length(repetition, retryAfter: exchange.headers["retry-after"])
      if let remaining = deadline.remaining, remaining <= pause { throw problem }
      if try beforeRetry(&operation, exchange) { return .settled }
      try RetryPause.wait(pause)
    }
  }

  /// One attempt.
  private func send(
    _ operation: S3Operation, _ credentials: Credentials, timeout: Duration
  ) throws(TidemarkError) -> HTTPExchange {
    let path = address.path(operation.key)
    let signature = SignatureV4(
      accessKey: credentials.accessKey, secretKey: credentials.secretKey, sessionToken: credentials.sessionToken,
      region: configuration.region, service: "s3")
    var headers = operation.headers
    if let range = operation.range { headers.append(("Range", range.headerValue)) }
    let started = Timestamp.now()
    let signed = try signature.headers(
      for: SignatureV4.Request(
        method: operation.method, host: address.host, path: path, query: operation.query, headers: headers,
        bodyDigest: operation.bodyDigest), at: Int64(started))
    var request = HTTPRequest(
      method: operation.method, url: address.url(path: path, query: operation.query), headers: signed,
      body: operation.body, range: operation.range, bodyByteCountMax: operation.bodyByteCountMax)
    if operation.method == "GET" { request.movingTimeout = configuration.limits.attempt }
    let (exchange, bytesReceived) = transport.perform(request, timeout: timeout, buffer: operation.buffer)
    let ended = Timestamp.now()

    state.withLock { state in
      state.statistics.requests += 1
      state.statistics.bytesReceived += bytesReceived
      if exchange.failure == nil { state.statistics.bytesSent += Int64(operation.body.byteCount) }
      if exchange.failure != nil || exchange.status == 401 || exchange.status == 403 || exchange.status == 429
        || exchange.status == 408 || exchange.status >= 500
      {
        state.statistics.failures += 1
      }
      if let date = exchange.headers["date"].flatMap(Timestamp.http) {
        // `Date` has whole seconds: half a second is the fairest guess at the rest.
        state.clockOffset = .milliseconds(Int64((Double(date) + 0.5 - (started + ended) / 2) * 1000))
      }
    }
    return exchange
  }

  private static func isErrorDocument(_ exchange: HTTPExchange, _ operation: S3Operation) -> Bool {
    guard operation.answersWithDocument, exchange.body.first != nil else { return false }
    return S3Document.rootName(of: exchange.body) == "Error"
  }

  /// S3 says 400 ExpiredToken, which a HEAD's answer can't carry.
  private static func mayHaveExpired(_ refusal: S3Refusal, _ credentials: Credentials) -> Bool {
    if refusal.code == "ExpiredToken" || refusal.code == "TokenRefreshRequired" { return true }
    return refusal.code.isEmpty && (refusal.status == 400 || refusal.status == 403)
      && credentials.sessionToken != nil
  }
}
