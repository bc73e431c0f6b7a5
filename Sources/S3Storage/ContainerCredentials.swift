// Credentials from the service that a container platform (ECS, EKS Pod Identity) names in the environment. Over plain
// HTTP only this host and the platform's own addresses are asked: anybody else could be handing out or listening.
// Source: AWS SDKs and Tools Reference Guide, "Container credential provider".
import Diagnostics
import Foundation
import SystemSupport

struct ContainerCredentials: Sendable {
  private let relative: String?
  private let full: String?
  private let authorization: String?
  private let authorizationPath: String?
  private static let attemptLimit = Duration.seconds(2)
  private static let limit = Duration.seconds(4)
  private static let tokenByteCountMax = 64 << 10
  private static let ecsEndpoint = "http://169.254.170.2"
  private static let platformHosts: Set<String> = [
    "169.254.170.2", "169.254.170.23", "[fd00:ec2::23]", "localhost", "[::1]",
  ]

  init(_ environment: CredentialsEnvironment) {
    relative = environment["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"]
    full = environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
    authorization = environment["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
    authorizationPath = environment["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"]
  }

  var isConfigured: Bool { relative != nil || full != nil }

  func fetch(deadline: Deadline) throws(TidemarkError) -> Credentials {
    let url = relative.map { Self.ecsEndpoint + ($0.hasPrefix("/") ? $0 : "/\($0)") } ?? full ?? ""
    try Self.check(url)
    let service = CredentialsService(
      "the container's credentials service", endpoint: url, attemptLimit: Self.attemptLimit)
    var request = HTTPRequest(method: "GET", url: url)
    request.bypassesProxies = true
    var token = authorization
    if let authorizationPath {
      token = String(decoding: try readFile(authorizationPath, limit: Self.tokenByteCountMax), as: UTF8.self)
        .trimmingCharacters(in: .whitespacesAndNewlines)
    }
    if let token {
      guard token.utf8.allSatisfy({ (0x20...0x7E).contains($0) }) else {
        throw service.invalid("the authorization token has characters that no header may have")
      }
      request.headers = [("Authorization", token)]
    }
    let exchange = try service.ask(request, deadline: deadline.earlier(.after(Self.limit)))
    guard exchange.failure == nil, exchange.status == 200 else { throw service.error(exchange) }
    return try service.credentials(exchange, origin: "the container's credentials service")
  }

  /// - Throws: `configuration-invalid` for an address that must not be asked.
  private static func check(_ url: String) throws(TidemarkError) {
    let parts = url.split(separator: "/", maxSplits: 3, omittingEmptySubsequences: false)
    if parts.count >= 3, parts[1].isEmpty, !parts[2].contains("@") {
      if parts[0] == "https:" { return }
      let authority = parts[2]
      let host =
        authority.hasPrefix("[")
        ? authority.prefix { $0 != "]" } + "]" : authority.prefix { $0 != ":" }
      if parts[0] == "http:", platformHosts.contains(host.lowercased()) || isLoopback(host) { return }
    }
    throw TidemarkError(
      .configurationInvalid, "AWS_CONTAINER_CREDENTIALS_FULL_URI is not an address to ask for credentials",
      object: url, cause: "it is neither https nor on this host nor the platform's own")
  }

  /// 127.0.0.0/8, and nothing that merely begins like it.
  private static func isLoopback(_ host: Substring) -> Bool {
    let numbers = host.split(separator: ".", omittingEmptySubsequences: false).map { UInt8($0) }
    return numbers.count == 4 && numbers[0] == 127 && !numbers.contains(nil)
  }
}
