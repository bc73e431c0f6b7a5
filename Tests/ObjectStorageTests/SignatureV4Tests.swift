// Vectors: Amazon S3 API Reference, "Signature Calculations for the Authorization Header: Transferring Payload in a
// Single Chunk", and the aws-sig-v4-test-suite. Neither was written by us.
import Testing

@testable import S3Storage

@Suite("AWS Signature Version 4")
struct SignatureV4Tests {
  private static let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
  private static let s3 = SignatureV4(
    accessKey: "AKIAIOSFODNN7EXAMPLE", secretKey: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", sessionToken: nil,
    region: "us-east-1", service: "s3")
  /// 2013-05-24T00:00:00Z
  private static let s3Time: Int64 = 1_369_353_600

  private func authorization(
    _ method: String, _ path: String, query: [(name: String, value: String)] = [],
    headers: [(name: String, value: String)] = [], bodyDigest: String = Self.empty
  ) throws -> String {
    let signed = try Self.s3.headers(
      for: SignatureV4.Request(
        method: method, host: "examplebucket.s3.amazonaws.com", path: path, query: query, headers: headers,
        bodyDigest: bodyDigest), at: Self.s3Time)
    return try #require(signed.first { $0.name == "Authorization" }?.value)
  }

  @Test("GET object with a range")
  func getObject() throws {
    #expect(
      try authorization("GET", "/test.txt", headers: [("Range", "bytes=0-9")])
        == "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
        + "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,"
        + "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41")
  }

  @Test("PUT object with a character that must be escaped")
  func putObject() throws {
    let digest = try Digest.sha256(Array("Welcome to Amazon S3.".utf8)).hexadecimal
    #expect(digest == "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072")
    let path = "/" + SignatureV4.escape("test$file.text", keepingSlashes: true)
    let result = try authorization(
      "PUT", path,
      headers: [("Date", "Fri, 24 May 2013 00:00:00 GMT"), ("x-amz-storage-class", "REDUCED_REDUNDANCY")],
      bodyDigest: digest)
    #expect(result.hasSuffix("Signature=98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"))
  }

  @Test("GET bucket lifecycle: a parameter without a value")
  func lifecycle() throws {
    let result = try authorization("GET", "/", query: [("lifecycle", "")])
    #expect(result.hasSuffix("Signature=fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"))
  }

  @Test("GET bucket: parameters are sorted")
  func listObjects() throws {
    let result = try authorization("GET", "/", query: [("prefix", "J"), ("max-keys", "2")])
    #expect(result.hasSuffix("Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"))
  }

  @Test(
    "aws-sig-v4-test-suite",
    arguments: [
      ("GET", [], "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),  // get-vanilla
      (
        "GET", [("Param2", "value2"), ("Param1", "value1")],
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"
      ),  // get-vanilla-query-order-key-case
      ("POST", [], "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),  // post-vanilla
    ] as [(String, [(name: String, value: String)], String)])
  func testSuite(method: String, query: [(name: String, value: String)], signature: String) throws {
    let signer = SignatureV4(
      accessKey: "AKIDEXAMPLE", secretKey: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", sessionToken: nil,
      region: "us-east-1", service: "service")
    // 2015-08-30T12:36:00Z
    let headers = try signer.headers(
      for: SignatureV4.Request(
        method: method, host: "example.amazonaws.com", path: "/", query: query, bodyDigest: Self.empty),
      at: 1_440_938_160, sendsBodyDigest: false)
    #expect(headers.first { $0.name == "Authorization" }?.value.hasSuffix("Signature=\(signature)") == true)
  }

  @Test("a session token is sent and signed")
  func sessionToken() throws {
    var signer = Self.s3
    signer.sessionToken = "token"
    let headers = try signer.headers(
      for: SignatureV4.Request(method: "GET", host: "h", path: "/", bodyDigest: Self.empty), at: Self.s3Time)
    #expect(headers.contains { $0.name == "x-amz-security-token" && $0.value == "token" })
    #expect(
      headers.first { $0.name == "Authorization" }?.value.contains("x-amz-date;x-amz-security-token,") == true)
  }

  @Test("HMAC-SHA-256 of RFC 4231, test cases 1, 2 and 6")
  func hmac() throws {
    #expect(
      try Digest.hmacSHA256(key: [UInt8](repeating: 0x0B, count: 20), Array("Hi There".utf8)).hexadecimal
        == "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7")
    #expect(
      try Digest.hmacSHA256(key: Array("Jefe".utf8), Array("what do ya want for nothing?".utf8)).hexadecimal
        == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
    #expect(
      try Digest.hmacSHA256(
        key: [UInt8](repeating: 0xAA, count: 131),
        Array("Test Using Larger Than Block-Size Key - Hash Key First".utf8)
      ).hexadecimal == "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54")
  }

  @Test(
    "base64 of RFC 4648, section 10",
    arguments: zip(
      ["", "f", "fo", "foo", "foob", "fooba", "foobar"],
      ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]))
  func base64(text: String, encoded: String) {
    #expect(Array(text.utf8).base64 == encoded)
  }

  @Test("dates of RFC 9110 and ISO 8601")
  func dates() {
    #expect(Timestamp.http("Sun, 06 Nov 1994 08:49:37 GMT") == 784_111_777)
    #expect(Timestamp.iso8601("2013-05-24T00:00:00.000Z") == Self.s3Time)
    #expect(Timestamp.iso8601("2013-05-24T00:00:00Z") == Self.s3Time)
    #expect(Timestamp.http("yesterday") == nil)
    #expect(Timestamp.http("Sun, 06 Foo 1994 08:49:37 GMT") == nil)
    #expect(Timestamp.iso8601("2013-05-24") == nil)
    #expect(Timestamp.iso8601("2013-05-24T00:00:00") == nil)
    #expect(Timestamp.basic(Self.s3Time) == "20130524T000000Z")
  }
}
