// Where credentials come from when no file is configured: order, caching, renewal, and what a missing service costs.
// moto's STS and metadata service where they have what is asked, otherwise a scripted server.
import Diagnostics
import Foundation
import ObjectStorage
import S3Storage
import Synchronization
import SystemSupport
import TestSupport
import Testing

@Suite("Credentials from the surroundings")
struct CredentialsTests {
  private let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  private func file(_ name: String, _ text: String, mode: mode_t = 0o600) throws -> String {
    let path = "\(directory.path)/\(name)"
    try DurableFile.write(Array(text.utf8), to: path, mode: mode)
    return path
  }

  /// A provider that sees these variables alone, and whose home and metadata service are nowhere.
  private func provider(_ variables: [String: String]) -> CredentialsProvider {
    let nowhere = ["HOME": directory.path, "AWS_EC2_METADATA_DISABLED": "true"]
    return CredentialsProvider(
      file: nil, profile: nil, environment: nowhere.merging(variables) { _, given in given })
  }

  private func webIdentity(_ endpoint: String) throws -> [String: String] {
    [
      "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/tidemark",
      "AWS_WEB_IDENTITY_TOKEN_FILE": try file("token", "eyJ.token.sig\n"), "AWS_ROLE_SESSION_NAME": "crm",
      "AWS_ENDPOINT_URL_STS": endpoint,
    ]
  }

  private func document(_ key: String, lifeInSeconds: Double, code: String = "Success") -> String {
    let expires = Date(timeIntervalSinceNow: lifeInSeconds).formatted(.iso8601)
    return """
      {"Code": "\(code)", "Type": "AWS-HMAC", "AccessKeyId": "\(key)", "SecretAccessKey": "secret-of-\(key)",
       "Token": "token-of-\(key)", "Expiration": "\(expires)", "LastUpdated": "2026-01-01T00:00:00Z"}
      """
  }

  // MARK: Order

  @Test("the environment comes first, then web identity, the shared file, the container, the instance")
  func order() throws {
    let metadata = try ScriptedHTTPServer { request, _ in
      switch request.target {
      case "/latest/api/token": .text("token")
      case "/latest/meta-data/iam/security-credentials/": .text("role")
      default: .text(document("INSTANCE", lifeInSeconds: 3600))
      }
    }
    let container = try ScriptedHTTPServer { _, _ in .text(document("CONTAINER", lifeInSeconds: 3600)) }
    var variables = [
      "AWS_EC2_METADATA_DISABLED": "", "AWS_EC2_METADATA_SERVICE_ENDPOINT": "\(metadata.endpoint)/",
    ]
    #expect(try provider(variables).current().accessKey == "INSTANCE")
    variables["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = "\(container.endpoint)/credentials"
    #expect(try provider(variables).current().accessKey == "CONTAINER")
    variables["AWS_SHARED_CREDENTIALS_FILE"] = try file(
      "shared", "[default]\naws_access_key_id = SHARED\naws_secret_access_key = s\n")
    #expect(try provider(variables).current().accessKey == "SHARED")
    variables.merge(try webIdentity(Servers.moto.get().endpoint)) { $1 }
    let assumed = try provider(variables).current()
    #expect(assumed.accessKey.hasPrefix("ASIA"))
    #expect(assumed.origin.contains("role/tidemark"))
    variables["AWS_ACCESS_KEY_ID"] = "ENVIRONMENT"
    variables["AWS_SECRET_ACCESS_KEY"] = "s"
    #expect(try provider(variables).current().accessKey == "ENVIRONMENT")
    // A configured file goes before everything.
    let configured = try file("own", "[crm]\naws_access_key_id = CONFIGURED\naws_secret_access_key = s\n")
    #expect(
      try CredentialsProvider(file: configured, profile: "crm", environment: variables).current().accessKey
        == "CONFIGURED")
  }

  @Test("a credentials file is read for each request, and refused while others may read it")
  func rotatedFile() throws {
    func text(_ key: String) -> String { "[default]\naws_access_key_id = \(key)\naws_secret_access_key = s\n" }
    let path = try file("rotated", text("OLD"))
    let provider = CredentialsProvider(file: path, profile: nil, environment: [:])
    #expect(try provider.current().accessKey == "OLD")
    _ = try file("rotated", text("NEW"))
    #expect(try provider.current().accessKey == "NEW")
    chmod(path, 0o644)
    let error = try failure { try provider.current() }
    #expect(error.code == .keyFileModeOpen)
    #expect(error.next == "chmod 600 \(path)")
  }

  @Test("where there are none, the error says what was looked for")
  func none() throws {
    let error = try failure { try provider([:]).current() }
    #expect(error.code == .credentialsMissing)
    #expect(error.cause?.contains("AWS_ACCESS_KEY_ID") == true)
    #expect(error.cause?.contains("AWS_WEB_IDENTITY_TOKEN_FILE") == true)
    #expect(error.cause?.contains("\(directory.path)/.aws/credentials") == true)
    #expect(error.cause?.contains("AWS_EC2_METADATA_DISABLED") == true)
    #expect(error.next?.contains("credentials-file") == true)
  }

  // MARK: Web identity

  @Test("STS is asked for the role with the token of the file, and its answer is kept")
  func webIdentityIsKept() throws {
    let sts = try ScriptedHTTPServer { _, number in .text(stsAnswer("ASIA\(number)", lifeInSeconds: 3600)) }
    let provider = provider(try webIdentity(sts.endpoint))
    let first = try provider.current()
    #expect(first.accessKey == "ASIA0")
    #expect(first.sessionToken == "session+/=")
    #expect(try provider.current().accessKey == "ASIA0")
    let request = try #require(sts.requests.first)
    #expect(sts.requests.count == 1)
    #expect(request.method == "POST")
    #expect(request.target == "/")
    let form = request.bodyText.split(separator: "&").map(String.init)
    #expect(form.contains("Action=AssumeRoleWithWebIdentity"))
    #expect(form.contains("Version=2011-06-15"))
    #expect(form.contains("RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Ftidemark"))
    #expect(form.contains("RoleSessionName=crm"))
    #expect(form.contains("WebIdentityToken=eyJ.token.sig"))
    #expect(request["authorization"] == nil)
  }

  private func stsAnswer(_ key: String, lifeInSeconds: Double) -> String {
    """
    <AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
      <AssumeRoleWithWebIdentityResult><Credentials>
        <AccessKeyId>\(key)</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>
        <SessionToken>session+/=</SessionToken>
        <Expiration>\(Date(timeIntervalSinceNow: lifeInSeconds).formatted(.iso8601))</Expiration>
      </Credentials></AssumeRoleWithWebIdentityResult>
    </AssumeRoleWithWebIdentityResponse>
    """
  }

  @Test("a refusal of STS is told in its own words, and no other source stands in for it")
  func webIdentityRefused() throws {
    let sts = try ScriptedHTTPServer { _, _ in
      .text(
        400,
        "<ErrorResponse><Error><Type>Sender</Type><Code>InvalidIdentityToken</Code>"
          + "<Message>Incorrect token audience</Message></Error></ErrorResponse>")
    }
    var variables = try webIdentity(sts.endpoint)
    variables["AWS_SHARED_CREDENTIALS_FILE"] = try file(
      "shared", "[default]\naws_access_key_id = SHARED\naws_secret_access_key = s\n")
    let error = try failure { try provider(variables).current() }
    #expect(error.code == .accessDenied)
    #expect(error.cause?.contains("InvalidIdentityToken: Incorrect token audience") == true)
    #expect(error.cause?.contains("eyJ") == false)
    #expect(sts.requests.count == 1)

    variables["AWS_ROLE_ARN"] = nil
    let incomplete = try failure { try provider(variables).current() }
    #expect(incomplete.code == .credentialsMissing)
    #expect(incomplete.cause == "AWS_ROLE_ARN is not set")
  }

  @Test("STS that stumbles is asked again")
  func webIdentityRetried() throws {
    let sts = try ScriptedHTTPServer { _, number in
      switch number {
      case 0: .text(503, "")
      case 1: .reset
      default: .text(stsAnswer("ASIA", lifeInSeconds: 3600))
      }
    }
    #expect(try provider(try webIdentity(sts.endpoint)).current().accessKey == "ASIA")
    #expect(sts.requests.count == 3)
  }

  // MARK: Keeping and renewing

  @Test("threads that need credentials at once cause one request")
  func oneRequest() throws {
    let sts = try ScriptedHTTPServer { _, number in .text(stsAnswer("ASIA\(number)", lifeInSeconds: 3600)) }
    let provider = provider(try webIdentity(sts.endpoint))
    try withThreads("client", count: 8) { _ in
      guard try provider.current().accessKey == "ASIA0" else {
        throw TidemarkError(.internalFault, "other credentials")
      }
    }
    #expect(sts.requests.count == 1)
  }

  @Test("what the store calls expired is fetched anew, and only once by all who were refused")
  func renewed() throws {
    let sts = try ScriptedHTTPServer { _, number in .text(stsAnswer("ASIA\(number)", lifeInSeconds: 3600)) }
    let provider = provider(try webIdentity(sts.endpoint))
    let old = try provider.current()
    provider.renew(rejected: old)
    #expect(try provider.current().accessKey == "ASIA1")
    provider.renew(rejected: old)
    #expect(try provider.current().accessKey == "ASIA1")
    #expect(sts.requests.count == 2)
  }

  @Test("a request that meets ExpiredToken is repeated with new credentials")
  func expiredToken() throws {
    let sts = try ScriptedHTTPServer { _, number in .text(stsAnswer("ASIA\(number)", lifeInSeconds: 3600)) }
    let store = try ScriptedHTTPServer { request, _ in
      if request["authorization"]?.contains("Credential=ASIA0/") == true {
        return .text(400, "<Error><Code>ExpiredToken</Code><Message>The token has expired.</Message></Error>")
      }
      return .text("content")
    }
    let s3 = try S3Store(
      configuration: S3Configuration(
        endpoint: store.endpoint, bucket: "crm", region: "us-1",
        credentials: provider(try webIdentity(sts.endpoint))))
    #expect(try s3.read(try ObjectKey("a"), range: nil, deadline: patience) == Array("content".utf8))
    #expect(store.requests.count == 2)
    #expect(store.requests.allSatisfy { $0["x-amz-security-token"] == "session+/=" })
    #expect(sts.requests.count == 2)
  }

  @Test("a service that is ill doesn't spoil credentials that are still good")
  func illService() throws {
    let isIll = Atomic<Bool>(false)
    // A life that is shorter than the pause between renewals is renewed after that pause; so this one is due at once
    // only by the store's refusal.
    let sts = try ScriptedHTTPServer { _, number in
      isIll.load(ordering: .relaxed)
        ? .text(400, "<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>")
        : .text(stsAnswer("ASIA\(number)", lifeInSeconds: 3600))
    }
    let provider = provider(try webIdentity(sts.endpoint))
    let old = try provider.current()
    isIll.store(true, ordering: .relaxed)
    // The store is the judge: what it refused isn't used again.
    provider.renew(rejected: old)
    #expect(try failure { try provider.current() }.code == .accessDenied)
    isIll.store(false, ordering: .relaxed)
    #expect(try provider.current().accessKey == "ASIA2")
  }

  // MARK: Container and instance

  @Test("the container's service gets the token of its file, and only on this host over plain HTTP")
  func container() throws {
    let service = try ScriptedHTTPServer { request, _ in
      request["authorization"] == "Bearer abc" ? .text(document("CONTAINER", lifeInSeconds: 3600)) : .text(401, "{}")
    }
    let token = try file("authorization", "Bearer abc\n")
    let full = "\(service.endpoint)/v1/credentials"
    let found = try provider([
      "AWS_CONTAINER_CREDENTIALS_FULL_URI": full, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": token,
    ]).current()
    #expect(found.accessKey == "CONTAINER")
    #expect(found.secretKey == "secret-of-CONTAINER")
    #expect(try failure { try provider(["AWS_CONTAINER_CREDENTIALS_FULL_URI": full]).current() }.code == .accessDenied)
    for url in ["http://example.com/", "http://127.0.0.1.example.com/", "ftp://127.0.0.1/", "http://a@127.0.0.1/", "x"]
    {
      let error = try failure { try provider(["AWS_CONTAINER_CREDENTIALS_FULL_URI": url]).current() }
      #expect(error.code == .configurationInvalid, "\(url)")
    }
  }

  @Test("the instance's role comes by a token, from moto's metadata service")
  func instance() throws {
    let variables = [
      "AWS_EC2_METADATA_DISABLED": "false", "AWS_EC2_METADATA_SERVICE_ENDPOINT": try Servers.moto.get().endpoint,
    ]
    let found = try provider(variables).current()
    #expect(found.accessKey == "test-key")
    #expect(found.secretKey == "test-secret-key")
    #expect(found.sessionToken == "test-session-token")
  }

  @Test("every request to the metadata service carries the token; a role's document that fails is an error")
  func instanceToken() throws {
    let service = try ScriptedHTTPServer { request, _ in
      switch (request.method, request.target) {
      case ("PUT", "/latest/api/token"):
        request["x-aws-ec2-metadata-token-ttl-seconds"] == nil ? .text(400, "") : .text("the-token")
      case ("GET", _) where request["x-aws-ec2-metadata-token"] != "the-token": .text(401, "")
      case ("GET", "/latest/meta-data/iam/security-credentials/"): .text("a role+name\nanother")
      default: .text("{\"Code\": \"Failed\", \"Message\": \"the role is gone\"}")
      }
    }
    let variables = [
      "AWS_EC2_METADATA_DISABLED": "", "AWS_EC2_METADATA_SERVICE_ENDPOINT": service.endpoint,
    ]
    let refused = try failure { try provider(variables).current() }
    // A name with a blank is none.
    #expect(refused.code == .storeAnswerInvalid)
    let second = try ScriptedHTTPServer { request, _ in
      switch request.target {
      case "/latest/api/token": .text("t")
      case "/latest/meta-data/iam/security-credentials/": .text("role+name\n")
      case "/latest/meta-data/iam/security-credentials/role%2Bname":
        .text("{\"Code\": \"Failed\", \"Message\": \"the role is gone\"}")
      default: .text(404, "")
      }
    }
    let failed = try failure {
      try provider(variables.merging(["AWS_EC2_METADATA_SERVICE_ENDPOINT": second.endpoint]) { $1 }).current()
    }
    #expect(failed.code == .accessDenied)
    #expect(failed.cause == "Failed: the role is gone")
  }

  @Test("a metadata service that never answers costs two seconds at most, and is remembered")
  func silentMetadata() throws {
    let service = try ScriptedHTTPServer { _, _ in .stall }
    let provider = provider([
      "AWS_EC2_METADATA_DISABLED": "", "AWS_EC2_METADATA_SERVICE_ENDPOINT": service.endpoint,
    ])
    let start = ContinuousClock.now
    #expect(try failure { try provider.current() }.code == .credentialsMissing)
    #expect(ContinuousClock.now - start < .seconds(2))
    let again = ContinuousClock.now
    #expect(try failure { try provider.current() }.code == .credentialsMissing)
    #expect(ContinuousClock.now - again < .milliseconds(200))
    #expect(service.connectionCount == 1)
  }

  @Test("no role, no service, and a service that is turned off are absence", arguments: [404, 403, 401, 400])
  func absentMetadata(status: Int) throws {
    let service = try ScriptedHTTPServer { request, _ in
      status == 404 && request.method == "PUT" ? .text("t") : .text(status, "")
    }
    let provider = provider([
      "AWS_EC2_METADATA_DISABLED": "", "AWS_EC2_METADATA_SERVICE_ENDPOINT": service.endpoint,
    ])
    let error = try failure { try provider.current() }
    #expect(error.code == .credentialsMissing)
    #expect(error.cause?.contains(status == 404 ? "the instance has no role" : "HTTP \(status)") == true)
  }

  @Test("an answer that is no credentials is refused, and quoted nowhere", arguments: ["[]", "{}", "<xml/>", ""])
  func nonsense(answer: String) throws {
    let service = try ScriptedHTTPServer { _, _ in .text(answer) }
    let error = try failure {
      try provider(["AWS_CONTAINER_CREDENTIALS_FULL_URI": "\(service.endpoint)/"]).current()
    }
    #expect(error.code == .storeAnswerInvalid)
  }
}
