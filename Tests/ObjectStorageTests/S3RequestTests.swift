// What the S3 store sends, and what it makes of answers that real servers give only when they are ill: error documents,
// Retry-After, silence, truncated bodies. Real servers where they can be made to do it.
import Diagnostics
import ObjectStorage
import Synchronization
import SystemSupport
import TestSupport
import Testing

@testable import S3Storage

@Suite("Requests to S3")
struct S3RequestTests {
  private func store(
    _ endpoint: String, addressing: S3Configuration.Addressing = .path, bucket: String = TestedStore.bucket,
    secret: String = RcloneServer.secretKey, token: String? = nil, authority: String? = nil,
    limits: S3Limits = S3Limits(), creation: S3Configuration.ConditionalCreation = .unknown
  ) throws -> S3Store {
    try S3Store(
      configuration: S3Configuration(
        endpoint: endpoint, bucket: bucket, region: "us-east-1", addressing: addressing,
        credentials: CredentialsProvider(
          fixed: Credentials(
            accessKey: RcloneServer.accessKey, secretKey: secret, sessionToken: token, origin: "the tests")),
        certificateAuthorityFile: authority, limits: limits, conditionalCreation: creation))
  }

  private static func error(_ status: Int, _ code: String, retryAfter: String? = nil) -> ScriptedHTTPServer.Answer {
    .status(
      status, headers: retryAfter.map { [("Retry-After", $0)] } ?? [],
      body: Array("<Error><Code>\(code)</Code><Message>as scripted</Message></Error>".utf8))
  }

  private static let created = ScriptedHTTPServer.Answer.status(200, headers: [("ETag", "\"1\"")])

  // MARK: Real servers

  @Test("a wrong secret is refused by a server that verifies signatures")
  func wrongSecret() throws {
    let store = try store(try Servers.rclone.get().endpoint, secret: "wrong")
    for body in [
      { _ = try store.create(try ObjectKey("wrong-secret"), [1], deadline: patience) },
      { _ = try store.read(try ObjectKey("wrong-secret"), range: nil, deadline: patience) },
      { _ = try store.keys(prefix: "") },
    ] {
      let error = try failure(of: body)
      #expect(error.code == .accessDenied)
      #expect(error.cause?.contains("the tests") == true)
      #expect("\(error)".contains(RcloneServer.secretKey) == false)
    }
  }

  @Test("virtual-hosted addressing on a real server")
  func virtualHosted() throws {
    let moto = try Servers.moto.get()
    // moto takes the bucket from the host's first label; every name below localhost is this host (RFC 6761).
    let virtual = try store("http://localhost:\(moto.port)", addressing: .virtualHosted)
    let path = try store(moto.endpoint)
    let key = try ObjectKey("virtual/hosted")
    #expect(try virtual.create(key, [1, 2, 3], deadline: patience) == .created)
    #expect(try path.read(key, range: nil, deadline: patience) == [1, 2, 3])
    #expect(try virtual.keys(prefix: "virtual/") == ["virtual/hosted"])
  }

  @Test("a certificate of an authority that isn't trusted is refused at once")
  func untrusted() throws {
    let store = try store(try Servers.rcloneTLS.get().endpoint)
    let start = ContinuousClock.now
    let error = try failure { try store.read(try ObjectKey("a"), range: nil, deadline: patience) }
    #expect(error.code == .regionUnreachable)
    #expect(error.next?.contains("certificate") == true)
    #expect(ContinuousClock.now - start < .seconds(10))
    let missing = try self.store(try Servers.rcloneTLS.get().endpoint, authority: "/nonexistent/ca.crt")
    #expect(try failure { try missing.keys(prefix: "") }.code == .regionUnreachable)
  }

  @Test("a missing bucket is told as such")
  func missingBucket() throws {
    for endpoint in [try Servers.moto.get().endpoint, try Servers.rclone.get().endpoint] {
      let store = try store(endpoint, bucket: "no-such-bucket")
      #expect(try failure { try store.keys(prefix: "") }.code == .bucketMissing)
      #expect(try failure { try store.create(try ObjectKey("a"), [1], deadline: patience) }.code == .bucketMissing)
      #expect(try failure { try store.information(try ObjectKey("a"), deadline: patience) }.code == .bucketMissing)
    }
  }

  // MARK: What is sent

  @Test("a PUT carries its digest, its MD5, the session token and the condition, all of them signed")
  func headers() throws {
    let server = try ScriptedHTTPServer { _, _ in Self.created }
    let store = try store(server.endpoint, token: "session", creation: .honoured)
    #expect(try store.create(try ObjectKey("a/b"), Array("hello".utf8), deadline: patience) == .created)
    let request = try #require(server.requests.first)
    #expect(request.startLine == "PUT /\(TestedStore.bucket)/a/b HTTP/1.1")
    // printf hello | md5sum, sha256sum.
    #expect(request["content-md5"] == "XUFAKrxLKna5cZ2REBfFkg==")
    #expect(
      request["x-amz-content-sha256"] == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824")
    #expect(request["x-amz-security-token"] == "session")
    #expect(request["if-none-match"] == "*")
    #expect(request["content-length"] == "5")
    #expect(request["transfer-encoding"] == nil)
    #expect(request["expect"] == nil)
    let signed = try #require(request["authorization"]?.firstRange(of: "SignedHeaders=")).upperBound
    let names = try #require(request["authorization"])[signed...].prefix { $0 != "," }.split(separator: ";")
    #expect(
      Set(names).isSuperset(of: [
        "content-md5", "host", "if-none-match", "x-amz-content-sha256", "x-amz-security-token",
      ])
    )
  }

  @Test("requests one after another share one connection, and threads use no more than they need")
  func connectionReuse() throws {
    let server = try ScriptedHTTPServer { request, _ in
      request.method == "PUT" ? Self.created : .status(200, body: [UInt8](repeating: 7, count: 100_000))
    }
    let store = try store(server.endpoint, creation: .honoured)
    for index in 0..<20 {
      _ = try store.create(try ObjectKey("k\(index)"), pattern(10_000), deadline: patience)
      _ = try store.read(try ObjectKey("k\(index)"), range: nil, deadline: patience)
      _ = try store.information(try ObjectKey("k\(index)"), deadline: patience)
    }
    #expect(server.requests.count == 60)
    #expect(server.connectionCount == 1)
    try withThreads("client", count: 4) { _ in
      for index in 0..<10 { _ = try store.read(try ObjectKey("k\(index)"), range: nil, deadline: patience) }
    }
    #expect(server.requests.count == 100)
    #expect(server.connectionCount <= 4)
  }

  @Test("a server that doesn't implement the condition gets a plain PUT after a HEAD, and is remembered")
  func conditionNotImplemented() throws {
    let server = try ScriptedHTTPServer { request, _ in
      if request.method != "PUT" { return Self.error(404, "NoSuchKey") }
      return request["if-none-match"] == nil ? Self.created : Self.error(501, "NotImplemented")
    }
    let store = try store(server.endpoint)
    #expect(try store.create(try ObjectKey("a"), [1], deadline: patience) == .created)
    #expect(try store.create(try ObjectKey("b"), [1], deadline: patience) == .created)
    #expect(store.conditionalCreation == .ignored)
    #expect(server.requests.filter { $0["if-none-match"] != nil }.count == 1)
    #expect(server.requests.last?.method == "PUT")
    #expect(server.requests.dropLast().last?.method == "HEAD")
  }

  // MARK: Retries

  @Test("what passes is asked again, after the time that the server asks for")
  func retryAfter() throws {
    let server = try ScriptedHTTPServer { _, number in
      switch number {
      case 0: Self.error(503, "SlowDown", retryAfter: "1")
      case 1: .reset
      case 2: Self.error(500, "InternalError")
      case 3: Self.error(400, "RequestTimeout")
      case 4: Self.error(400, "BadDigest")
      default: Self.created
      }
    }
    let store = try store(server.endpoint, creation: .honoured)
    let start = ContinuousClock.now
    #expect(try store.create(try ObjectKey("a"), [1], deadline: patience) == .created)
    #expect(ContinuousClock.now - start >= .seconds(1))
    #expect(server.requests.count == 6)
    // libcurl itself repeats a request whose kept connection turns out to be dead.
    #expect(store.statistics.failures >= 2)
  }

  @Test("what a repetition can't better is told at once", arguments: [400, 401, 403, 501])
  func noRetry(status: Int) throws {
    let server = try ScriptedHTTPServer { _, _ in Self.error(status, "Whatever") }
    let store = try store(server.endpoint, creation: .ignored)
    let error = try failure { try store.keys(prefix: "") }
    #expect(error.cause?.contains("HTTP \(status) Whatever: as scripted") == true)
    #expect(server.requests.count == 1)
  }

  @Test("a deadline ends the repetitions, and a server that asks for more time than is left isn't waited for")
  func totalDeadline() throws {
    let server = try ScriptedHTTPServer { _, number in
      Self.error(503, "SlowDown", retryAfter: number == 0 ? nil : "100")
    }
    let store = try store(server.endpoint)
    let start = ContinuousClock.now
    let error = try failure { try store.keys(prefix: "", deadline: .after(.seconds(5))) }
    #expect(error.code == .regionThrottled)
    #expect(error.cause?.contains("2 attempts") == true)
    #expect(ContinuousClock.now - start < .seconds(2))
  }

  @Test("a server that accepts and never answers is given up after the limit on silence")
  func silence() throws {
    let server = try ScriptedHTTPServer { _, number in
      number == 0 ? .stall : .text("<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
    }
    var limits = S3Limits()
    limits.silence = .seconds(1)
    let store = try store(server.endpoint, limits: limits)
    let start = ContinuousClock.now
    #expect(try store.keys(prefix: "") == [])
    #expect(ContinuousClock.now - start < .seconds(4))
    #expect(server.requests.count == 2)
  }

  @Test("a body that comes slowly isn't cut by the deadline; an answer that doesn't begin is")
  func slowBody() throws {
    let bytes = pattern(100_000)
    let head = Array("HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 100000\r\n\r\n".utf8)
    let slow = try ScriptedHTTPServer { _, _ in .trickle(head + bytes, pieceCount: 8) }
    #expect(
      try store(slow.endpoint).read(try ObjectKey("a"), range: nil, deadline: .after(.milliseconds(100))) == bytes)
    let silent = try ScriptedHTTPServer { _, _ in .stall }
    let start = ContinuousClock.now
    let error = try failure {
      try store(silent.endpoint).read(try ObjectKey("a"), range: nil, deadline: .after(.milliseconds(100)))
    }
    #expect(error.code == .regionUnreachable)
    #expect(ContinuousClock.now - start < .seconds(5))
  }

  @Test("why a HEAD was refused is found out, since its answer can't say it")
  func muteRefusal() throws {
    let server = try ScriptedHTTPServer { _, _ in Self.error(403, "InvalidAccessKeyId") }
    let error = try failure { try store(server.endpoint).create(try ObjectKey("a"), [1], deadline: patience) }
    #expect(error.code == .accessDenied)
    #expect(error.cause?.contains("InvalidAccessKeyId: as scripted") == true)
  }

  @Test("a PUT whose answer was lost converges")
  func lostAnswer() throws {
    // The object is there after the first PUT, whose answer never came.
    let server = try ScriptedHTTPServer { request, number in
      if request.method == "PUT", number == 0 { return .reset }
      if request.method == "PUT" { return Self.error(412, "PreconditionFailed") }
      return .status(200, headers: [("Content-Length", "1")])
    }
    let store = try store(server.endpoint, creation: .honoured)
    #expect(try store.create(try ObjectKey("a"), [1], deadline: patience) == .exists)
  }

  @Test("a request's body goes out whole from any byte that libcurl goes back to")
  func rewoundBody() {
    let pieces: [[UInt8]] = [[1, 2, 3], [], [4], [5, 6], []]
    let whole = pieces.inOnePiece()
    let transfer = HTTPTransfer(
      HTTPRequest(method: "PUT", url: "http://localhost", body: pieces), silenceLimit: .seconds(1), answerLimit: nil,
      buffer: nil)
    for start in 0...whole.count {
      for step in 1...4 {
        #expect(transfer.seek(to: Int64(start)))
        var sent: [UInt8] = []
        var part = [UInt8](repeating: 0, count: step)
        while case let count = part.withUnsafeMutableBytes(transfer.supply), count > 0 { sent += part.prefix(count) }
        #expect(sent == Array(whole[start...]), "from \(start) in steps of \(step)")
      }
    }
    #expect(!transfer.seek(to: -1) && !transfer.seek(to: Int64(whole.count) + 1))
  }

  // MARK: Answers

  @Test("a server that ignores ranges, and one that cuts bodies, give the same bytes in the end")
  func ranges() throws {
    let bytes = pattern(100_000)
    let ignoring = try ScriptedHTTPServer { _, _ in .status(200, headers: [("ETag", "\"x\"")], body: bytes) }
    let key = try ObjectKey("a")
    #expect(
      try store(ignoring.endpoint).read(key, range: .bytes(offset: 70_000, count: 500), deadline: patience)
        == Array(bytes[70_000..<70_500]))
    #expect(
      try store(ignoring.endpoint).read(key, range: .suffix(count: 500), deadline: patience) == bytes.suffix(500))

    // The first answer ends after 40 000 of 100 000 bytes; the second one continues where the first ended.
    let cutting = try ScriptedHTTPServer { request, number in
      if number == 0 {
        let head = "HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 100000\r\n\r\n"
        return .bytes(Array(head.utf8) + bytes[..<40_000])
      }
      let isContinuation = request["range"] == "bytes=40000-99999" && request["if-match"] == "\"x\""
      guard isContinuation else { return Self.error(400, "NotTheRestThatIsMissing") }
      return .status(
        206, headers: [("ETag", "\"x\""), ("Content-Range", "bytes 40000-99999/100000")], body: Array(bytes[40_000...]))
    }
    #expect(try store(cutting.endpoint).read(key, range: nil, deadline: patience) == bytes)
    #expect(cutting.requests.count == 2)
  }

  @Test("an error document in a 200 is an error")
  func errorInSuccess() throws {
    let server = try ScriptedHTTPServer { _, _ in Self.error(200, "AccessDenied") }
    #expect(try failure { try store(server.endpoint).keys(prefix: "") }.code == .accessDenied)
    let page = try ScriptedHTTPServer { _, _ in .text("<html>Welcome to the hotel's network</html>") }
    #expect(try failure { try store(page.endpoint).keys(prefix: "") }.code == .storeAnswerInvalid)
    #expect(
      try failure { try store(page.endpoint, creation: .honoured).create(ObjectKey("a"), [1], deadline: patience) }.code
        == .storeAnswerInvalid)
    let missing = try ScriptedHTTPServer { _, _ in .text(404, "<html>not found</html>") }
    // A page that isn't S3's proves no absence.
    #expect(
      try failure { try store(missing.endpoint).read(ObjectKey("a"), range: nil, deadline: patience) }.code
        == .storeAnswerInvalid)
  }

  @Test("bulk deletion reads what was deleted and what was not")
  func bulkDeletion() throws {
    let server = try ScriptedHTTPServer { request, number in
      guard request.method == "POST", request["content-md5"] != nil else { return Self.error(400, "InvalidRequest") }
      if number == 0 {
        return .text(
          "<DeleteResult><Deleted><Key>a</Key></Deleted>"
            + "<Error><Key>b</Key><Code>AccessDenied</Code><Message>locked</Message></Error>"
            + "<Error><Key>c</Key><Code>InternalError</Code><Message>later</Message></Error></DeleteResult>")
      }
      return .text("<DeleteResult><Deleted><Key>c</Key></Deleted></DeleteResult>")
    }
    let store = try store(server.endpoint)
    let keys = try ["a", "b", "c", "d"].map { try ObjectKey($0) }
    let failures = try store.delete(keys, deadline: patience)
    #expect(failures.map(\.key.text).sorted() == ["b", "d"])
    #expect(failures.first { $0.key.text == "b" }?.reason == "AccessDenied: locked")
    #expect(server.requests.last?.bodyText.contains("<Key>c</Key>") == true)
    #expect(server.requests.last?.bodyText.contains("<Key>a</Key>") == false)
  }

  @Test("a clock that is wrong is told as such")
  func clockSkew() throws {
    let server = try ScriptedHTTPServer { _, _ in
      .status(
        403, headers: [("Date", "Sun, 06 Nov 1994 08:49:37 GMT")],
        body: Array("<Error><Code>RequestTimeTooSkewed</Code><Message>too large</Message></Error>".utf8))
    }
    let store = try store(server.endpoint)
    let error = try failure { try store.keys(prefix: "") }
    #expect(error.code == .clockSkewed)
    #expect(error.cause?.contains("1994-11-06") == true)
    #expect(error.next?.contains("timedatectl") == true)
    #expect((store.clockOffset ?? .zero) < .seconds(-3600))
    #expect(server.requests.count == 1)
  }
}
