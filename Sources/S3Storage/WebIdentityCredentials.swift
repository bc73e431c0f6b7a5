// A role's credentials for the token that the platform puts into a file (Kubernetes service accounts, CI systems): STS
// AssumeRoleWithWebIdentity. The file is read for each fetch, since the platform rotates it.
// Source: AWS STS API Reference, AssumeRoleWithWebIdentity; AWS SDKs Reference Guide, "Assume role credential provider".
import Diagnostics
import Foundation
import SystemSupport

struct WebIdentityCredentials: Sendable {
  private let roleARN: String?
  private let tokenPath: String?
  private let sessionName: String
  private let service: CredentialsService
  private static let attemptLimit = Duration.seconds(5)
  /// For all attempts together.
  private static let limit = Duration.seconds(10)
  /// STS takes 20 000 characters at most.
  private static let tokenByteCountMax = 20_000

  init(_ environment: CredentialsEnvironment) {
    roleARN = environment["AWS_ROLE_ARN"]
    tokenPath = environment["AWS_WEB_IDENTITY_TOKEN_FILE"]
    sessionName = environment["AWS_ROLE_SESSION_NAME"] ?? "tidemark"
    service = CredentialsService(
      "STS", endpoint: Self.endpoint(environment), attemptLimit: Self.attemptLimit,
      certificateAuthorityFile: environment["AWS_CA_BUNDLE"])
  }

  /// Whether the environment asks for it: by either variable, so that a forgotten one is an error and not a detour.
  var isConfigured: Bool { roleARN != nil || tokenPath != nil }

  /// - Throws: `credentials-missing` when a variable or the token is missing, otherwise see ``CredentialsProvider``.
  func fetch(deadline: Deadline) throws(TidemarkError) -> Credentials {
    guard let roleARN, let tokenPath else {
      throw TidemarkError(
        .credentialsMissing, "the web identity is incomplete",
        cause: "\(roleARN == nil ? "AWS_ROLE_ARN" : "AWS_WEB_IDENTITY_TOKEN_FILE") is not set",
        next: "set both AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE, or neither")
    }
    let token = String(decoding: try readFile(tokenPath, limit: Self.tokenByteCountMax), as: UTF8.self)
      .trimmingCharacters(in: .whitespacesAndNewlines)
    guard !token.isEmpty else {
      throw TidemarkError(.credentialsMissing, "the web identity's token file is empty", object: tokenPath)
    }
    let form = SignatureV4.query([
      ("Action", "AssumeRoleWithWebIdentity"), ("Version", "2011-06-15"), ("RoleArn", roleARN),
      ("RoleSessionName", sessionName), ("WebIdentityToken", token),
    ])
    var request = HTTPRequest(method: "POST", url: "\(service.endpoint)/")
    request.headers = [
      ("Content-Type", "application/x-www-form-urlencoded; charset=utf-8"), ("Accept", "application/xml"),
    ]
    request.body = [Array(form.utf8)]
    let exchange = try service.ask(request, deadline: deadline.earlier(.after(Self.limit))) { exchange in
      CredentialsService.isPassing(exchange) || Self.passingCodes.contains(S3Refusal(exchange).code)
    }
    guard exchange.failure == nil, exchange.status == 200 else {
      let refusal = S3Refusal(exchange)
      throw service.error(
        exchange, exchange.failure?.text ?? "\(refusal.text); role \(roleARN), token from \(tokenPath)",
        next: exchange.failure == nil ? "check the role's trust policy and the token's audience" : nil)
    }
    let answer = S3Document.root(of: exchange.body)?["AssumeRoleWithWebIdentityResult"]?["Credentials"]
    guard let answer, let key = answer.value("AccessKeyId"), let secret = answer.value("SecretAccessKey"),
      let session = answer.value("SessionToken")
    else { throw service.invalid("the answer has no credentials") }
    return try service.temporary(
      key, secret, session, answer.value("Expiration"), origin: "the web identity of \(roleARN)")
  }

  /// What STS says in a 400 that passes.
  private static let passingCodes: Set<String> = ["IDPCommunicationError", "Throttling", "RequestTimeout"]

  /// The service's own endpoint, the one for all services, or AWS's in the region.
  private static func endpoint(_ environment: CredentialsEnvironment) -> String {
    if let own = environment["AWS_ENDPOINT_URL_STS"] ?? environment["AWS_ENDPOINT_URL"] {
      return own.hasSuffix("/") ? String(own.dropLast()) : own
    }
    let region = environment["AWS_REGION"] ?? environment["AWS_DEFAULT_REGION"] ?? ""
    let isRegion = region.utf8.allSatisfy { byte in
      (0x61...0x7A).contains(byte) || (0x30...0x39).contains(byte) || byte == 0x2D
    }
    guard !region.isEmpty, isRegion else { return "https://sts.amazonaws.com" }
    return "https://sts.\(region).amazonaws.com" + (region.hasPrefix("cn-") ? ".cn" : "")
  }
}
