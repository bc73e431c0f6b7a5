// What a process's surroundings offer as credentials, in the order of AWS's SDKs. The first source that is there is
// used; where none is, the error says what was looked for and why it isn't there.
// Source: AWS SDKs and Tools Reference Guide, "Standardized credential providers".
import Diagnostics
import SystemSupport

struct CredentialsSurroundings: Sendable {
  private let environment: CredentialsEnvironment
  private let webIdentity: WebIdentityCredentials
  private let container: ContainerCredentials
  private let instance: InstanceCredentials

  init(_ variables: [String: String]) {
    environment = CredentialsEnvironment(variables)
    webIdentity = WebIdentityCredentials(environment)
    container = ContainerCredentials(environment)
    instance = InstanceCredentials(environment)
  }

  func credentials(profile: String?, deadline: Deadline) throws(TidemarkError) -> Credentials {
    if let key = environment["AWS_ACCESS_KEY_ID"], let secret = environment["AWS_SECRET_ACCESS_KEY"] {
      return Credentials(
        accessKey: key, secretKey: secret, sessionToken: environment["AWS_SESSION_TOKEN"], origin: "the environment")
    }
    if webIdentity.isConfigured { return try webIdentity.fetch(deadline: deadline) }
    let path = environment["AWS_SHARED_CREDENTIALS_FILE"] ?? "\(environment["HOME"] ?? "/root")/.aws/credentials"
    if fileExists(path) {
      return try SharedCredentialsFile.read(path, profile: profile ?? environment["AWS_PROFILE"] ?? "default")
    }
    if container.isConfigured { return try container.fetch(deadline: deadline) }
    switch try instance.fetch(deadline: deadline) {
    case .found(let credentials): return credentials
    case .absent(let reason):
      throw TidemarkError(
        .credentialsMissing, "there are no credentials for the store",
        cause: "no AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, no AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN, "
          + "no \(path), no AWS_CONTAINER_CREDENTIALS_FULL_URI; instance metadata: \(reason)",
        next: "set the region's credentials-file")
    }
  }
}

/// Environment variables; an empty one counts as unset.
struct CredentialsEnvironment: Sendable {
  private let variables: [String: String]
  init(_ variables: [String: String]) { self.variables = variables }
  subscript(name: String) -> String? { variables[name].flatMap { $0.isEmpty ? nil : $0 } }
}
