// AWS Signature Version 4, with the whole body signed or, under TLS, none of it. Query parameters are sorted, and the URL
// carries them in the same form in which they are signed, so that nothing can differ between the two.
// Source: Amazon S3 API Reference, "Signature Calculations for the Authorization Header".
import Diagnostics

struct SignatureV4 {
  var accessKey: String
  var secretKey: String
  var sessionToken: String?
  var region: String
  var service: String

  /// What is signed: `path` is already escaped.
  struct Request {
    var method: String
    var host: String
    var path: String
    var query: [(name: String, value: String)] = []
    /// Further headers to sign.
    var headers: [(name: String, value: String)] = []
    /// SHA-256 of the body in hexadecimal digits, or ``S3Operation/unsignedBody``.
    var bodyDigest: String
  }

  /// All headers to send: those of the request, and those of the signature.
  /// - Parameter sendsBodyDigest: whether `x-amz-content-sha256` goes with it, as S3 demands.
  func headers(
    for request: Request, at time: Int64, sendsBodyDigest: Bool = true
  ) throws(TidemarkError) -> [(name: String, value: String)] {
    let stamp = Timestamp.basic(time)
    var headers = request.headers
    headers.append(("Host", request.host))
    headers.append(("x-amz-date", stamp))
    if sendsBodyDigest { headers.append(("x-amz-content-sha256", request.bodyDigest)) }
    if let sessionToken { headers.append(("x-amz-security-token", sessionToken)) }

    let sorted = headers.map { ($0.name.lowercased(), $0.value.collapsingSpaces) }.sorted { $0.0 < $1.0 }
    let signedNames = sorted.map(\.0).joined(separator: ";")
    let canonical = [
      request.method, request.path, Self.query(request.query),
      sorted.map { "\($0.0):\($0.1)\n" }.joined(), signedNames, request.bodyDigest,
    ].joined(separator: "\n")

    let date = String(stamp.prefix(8))
    let scope = "\(date)/\(region)/\(service)/aws4_request"
    let digest = try Digest.sha256(Array(canonical.utf8)).hexadecimal
    let text = "AWS4-HMAC-SHA256\n\(stamp)\n\(scope)\n\(digest)"
    var key = Array("AWS4\(secretKey)".utf8)
    for part in [date, region, service, "aws4_request"] { key = try Digest.hmacSHA256(key: key, Array(part.utf8)) }
    let signature = try Digest.hmacSHA256(key: key, Array(text.utf8)).hexadecimal
    headers.append(
      (
        "Authorization",
        "AWS4-HMAC-SHA256 Credential=\(accessKey)/\(scope),SignedHeaders=\(signedNames),Signature=\(signature)"
      ))
    return headers
  }

  /// The query string: sorted by the escaped names, every parameter with its `=`.
  static func query(_ parameters: [(name: String, value: String)]) -> String {
    parameters.map { (escape($0.name), escape($0.value)) }
      .sorted { ($0.0, $0.1) < ($1.0, $1.1) }
      .map { "\($0.0)=\($0.1)" }.joined(separator: "&")
  }

  /// Everything but RFC 3986's unreserved characters as %XX; `/` too, unless it separates parts of a path.
  static func escape(_ text: String, keepingSlashes: Bool = false) -> String {
    let digits = Array("0123456789ABCDEF".utf8)
    var escaped: [UInt8] = []
    for byte in text.utf8 {
      switch byte {
      case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"),
        UInt8(ascii: "~"):
        escaped.append(byte)
      case UInt8(ascii: "/") where keepingSlashes: escaped.append(byte)
      default: escaped += [UInt8(ascii: "%"), digits[Int(byte >> 4)], digits[Int(byte & 15)]]
      }
    }
    return String(decoding: escaped, as: UTF8.self)
  }
}

extension String {
  /// Without spaces at the ends, and with runs of them made one, as canonical header values are.
  fileprivate var collapsingSpaces: String { split(separator: " ").joined(separator: " ") }
}
