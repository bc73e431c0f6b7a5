// Credentials of the role of the instance that this runs on, by version 2 of its metadata service: a token first, so that
// nobody can make a proxy fetch them. Off that cloud nobody answers at the service's address: that costs two seconds at
// most, and is remembered.
// Source: Amazon EC2 User Guide, "Use the Instance Metadata Service to access instance metadata".
import Diagnostics
import Synchronization
import SystemSupport

final class InstanceCredentials: Sendable {
  enum Outcome: Sendable {
    case found(Credentials)
    /// Why there are none.
    case absent(String)
  }

  private let isDisabled: Bool
  private let service: CredentialsService
  /// Until when nobody needs to look again, and why.
  private let absence = Mutex<(until: ContinuousClock.Instant, reason: String)?>(nil)

  private static let attemptLimit = Duration.seconds(1)
  /// For a service that answers: throttling passes.
  private static let limit = Duration.seconds(4)
  private static let absencePause = Duration.seconds(300)
  /// What a token is good for, in seconds: one fetch.
  private static let tokenLife = "60"
  private static let path = "/latest/meta-data/iam/security-credentials/"
  private static let nameByteCountMax = 128

  init(_ environment: CredentialsEnvironment) {
    isDisabled = environment["AWS_EC2_METADATA_DISABLED"]?.lowercased() == "true"
    let isIPv6 = environment["AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE"]?.lowercased() == "ipv6"
    var endpoint =
      environment["AWS_EC2_METADATA_SERVICE_ENDPOINT"]
      ?? (isIPv6 ? "http://[fd00:ec2::254]" : "http://169.254.169.254")
    while endpoint.hasSuffix("/") { endpoint.removeLast() }
    service = CredentialsService("instance metadata", endpoint: endpoint, attemptLimit: Self.attemptLimit)
  }

  /// - Throws: when the service is there and hands out none: see ``CredentialsProvider``.
  func fetch(deadline: Deadline) throws(TidemarkError) -> Outcome {
    if isDisabled { return .absent("disabled by AWS_EC2_METADATA_DISABLED") }
    if let known = absence.withLock({ $0 }), .now < known.until { return .absent(known.reason) }
    let limit = deadline.earlier(.after(Self.limit))

    // One attempt: off that cloud the packets vanish, and a repetition would cost the same again.
    var request = HTTPRequest(method: "PUT", url: "\(service.endpoint)/latest/api/token")
    request.headers = [("X-aws-ec2-metadata-token-ttl-seconds", Self.tokenLife)]
    request.bypassesProxies = true
    let exchange = try service.ask(request, deadline: limit, repeatsFailures: false)
    if let failure = exchange.failure { return remember("\(failure.text) (\(service.endpoint))") }
    if (400..<500).contains(exchange.status), exchange.status != 429 {
      return remember("HTTP \(exchange.status) to the request for a token (\(service.endpoint))")
    }
    let token = String(decoding: exchange.body, as: UTF8.self)
    guard exchange.status == 200 else { throw service.error(exchange) }
    guard !token.isEmpty, CredentialsService.isHeaderValue(token) else {
      throw service.invalid("the token has characters that no header may have")
    }

    let listing = try get(Self.path, token, limit)
    if listing.failure == nil, listing.status == 404 { return remember("the instance has no role") }
    guard listing.failure == nil, listing.status == 200 else { throw service.error(listing) }
    let role = String(decoding: listing.body, as: UTF8.self).split(whereSeparator: \.isNewline).first.map(String.init)
    guard let role, role.utf8.count <= Self.nameByteCountMax, CredentialsService.isHeaderValue(role) else {
      throw service.invalid("the service doesn't name the instance's role")
    }
    let answer = try get(Self.path + SignatureV4.escape(role), token, limit)
    guard answer.failure == nil, answer.status == 200 else { throw service.error(answer) }
    return .found(try service.credentials(answer, origin: "the instance's role \(role)"))
  }

  private func get(_ path: String, _ token: String, _ limit: Deadline) throws(TidemarkError) -> HTTPExchange {
    var request = HTTPRequest(method: "GET", url: service.endpoint + path)
    request.headers = [("X-aws-ec2-metadata-token", token)]
    request.bypassesProxies = true
    return try service.ask(request, deadline: limit)
  }

  private func remember(_ reason: String) -> Outcome {
    absence.withLock { $0 = (.now + Self.absencePause, reason) }
    return .absent(reason)
  }
}
