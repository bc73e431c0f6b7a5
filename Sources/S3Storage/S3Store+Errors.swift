// What the store's refusals and libcurl's failures mean for an operator.
import Diagnostics
import ObjectStorage
import SystemSupport

extension S3Store {
  /// S3 refuses signatures whose time differs by more than this (API Reference, RequestTimeTooSkewed).
  private static let clockSkewMax = Duration.seconds(900)

  func describe(_ operation: S3Operation) -> String {
    operation.key.map { "\($0) in \(location)" } ?? location
  }

  func transportError(_ failure: TransportFailure, _ operation: S3Operation) -> TidemarkError {
    let doing = "cannot \(operation.doing)"
    let object = describe(operation)
    switch failure.kind {
    case .connection, .timeout:
      return TidemarkError(.regionUnreachable, doing, object: object, cause: failure.text)
    case .trust:
      return TidemarkError(
        .regionUnreachable, doing, object: object, cause: failure.text,
        next: "check the endpoint's certificate, or name the file of its authority in the configuration")
    case .tooLong: return TidemarkError(.storeAnswerInvalid, doing, object: object, cause: failure.text)
    case .interrupted: return TidemarkError(.interrupted, doing, object: object, cause: failure.text)
    case .local: return TidemarkError(.configurationInvalid, doing, object: object, cause: failure.text)
    }
  }

  /// For a refusal that was worth a retry, when no time is left for one.
  func exhaustedError(_ refusal: S3Refusal, _ operation: S3Operation, attempts: Int) -> TidemarkError {
    let isThrottled = refusal.status == 429 || refusal.code == "SlowDown" || refusal.code == "RequestLimitExceeded"
    return TidemarkError(
      isThrottled ? .regionThrottled : .regionUnreachable, "cannot \(operation.doing)", object: describe(operation),
      cause: refusal.text + (attempts > 1 ? " (\(attempts) attempts)" : ""))
  }

  /// The error for refusals that mean the same for every operation; `nil` for those that the operation judges.
  func permanentError(
    _ refusal: S3Refusal, _ operation: S3Operation, _ credentials: Credentials
  ) -> TidemarkError? {
    let doing = "cannot \(operation.doing)"
    let object = describe(operation)
    let region = refusal.headers["x-amz-bucket-region"] ?? refusal.document?.value("Region")
    if refusal.code == "RequestTimeTooSkewed"
      || (refusal.status == 403 && (clockOffset ?? .zero).isBeyond(Self.clockSkewMax))
    {
      let ours = Int64(Timestamp.now())
      let theirs =
        refusal.document?.value("ServerTime")
        ?? clockOffset.map { Timestamp.extended(ours + Int64($0.seconds)) } ?? "unknown"
      return TidemarkError(
        .clockSkewed, doing, object: object,
        cause: "\(refusal.text); this host's clock says \(Timestamp.extended(ours)), the store's \(theirs)",
        next: "set this host's clock right (timedatectl)")
    }
    if refusal.code == "NoSuchBucket" {
      return TidemarkError(
        .bucketMissing, doing, object: object, cause: refusal.text,
        next: "create the bucket, or correct its name or endpoint in the configuration")
    }
    if (300..<400).contains(refusal.status) && refusal.status != 304
      || refusal.code == "AuthorizationHeaderMalformed" && region != nil || refusal.code == "PermanentRedirect"
    {
      let endpoint = refusal.document?.value("Endpoint") ?? refusal.headers["location"]
      let place = [region.map { "region \($0)" }, endpoint.map { "endpoint \($0)" }].compactMap { $0 }
      return TidemarkError(
        .configurationInvalid, "the bucket is elsewhere, so Tidemark cannot \(operation.doing)", object: object,
        cause: refusal.text,
        next: place.isEmpty
          ? "correct the region's endpoint in the configuration"
          : "set the \(place.joined(separator: " and ")) in the configuration of this region")
    }
    if refusal.status == 401 || refusal.status == 403 || refusal.code == "InvalidAccessKeyId"
      || refusal.code == "ExpiredToken" || refusal.code == "InvalidToken"
    {
      let isAboutKeys = ["SignatureDoesNotMatch", "InvalidAccessKeyId", "ExpiredToken", "InvalidToken"]
        .contains(refusal.code)
      return TidemarkError(
        .accessDenied, doing, object: object, cause: "\(refusal.text); credentials from \(credentials.origin)",
        next: isAboutKeys
          ? "check the access key and its secret in \(credentials.origin)"
          : "check what the credentials from \(credentials.origin) are allowed; absence can be told only with s3:ListBucket"
      )
    }
    return nil
  }

  /// For refusals that the operation has no use for.
  func refused(_ refusal: S3Refusal, _ operation: S3Operation) -> TidemarkError {
    // A 404 without S3's own code is no absence: it is a proxy's or a web server's page.
    let isForeign = refusal.code.isEmpty && operation.method != "HEAD"
    return TidemarkError(
      isForeign ? .storeAnswerInvalid : .storeRefused, "cannot \(operation.doing)", object: describe(operation),
      cause: isForeign ? "\(refusal.text) without an S3 error document" : refusal.text)
  }

  func invalid(_ cause: String, _ operation: S3Operation) -> TidemarkError {
    TidemarkError(.storeAnswerInvalid, "cannot \(operation.doing)", object: describe(operation), cause: cause)
  }
}

extension Duration {
  fileprivate func isBeyond(_ limit: Duration) -> Bool { self > limit || self < .zero - limit }
}
