// What a bucket's store needs to know. Nothing here is a secret: credentials come from their provider, per request.
import Diagnostics
import ObjectStorage

package struct S3Configuration: Sendable {
  package enum Addressing: String, Sendable, CaseIterable {
    /// `https://host/bucket/key`: what nearly every S3-compatible server understands.
    case path = "path"
    /// `https://bucket.host/key`: what AWS wants.
    case virtualHosted = "virtual-hosted"
  }

  /// Whether the store itself refuses to create what exists (`If-None-Match: *` on PUT).
  package enum ConditionalCreation: Sendable {
    /// Not known yet: asked for, and a HEAD goes before each PUT.
    case unknown
    case honoured
    /// The store ignores or refuses the condition: a HEAD goes before each PUT.
    case ignored
  }

  /// `http[s]://host[:port][/path]`.
  package var endpoint: String
  package var bucket: String
  package var region: String
  package var addressing: Addressing
  package var credentials: CredentialsProvider
  /// PEM certificates that are trusted in place of the system's.
  package var certificateAuthorityFile: String?
  package var limits: S3Limits
  package var conditionalCreation: ConditionalCreation
  /// Keys to a page of a listing, 1 to 1000.
  package var listPageSize: Int

  package init(
    endpoint: String, bucket: String, region: String, addressing: Addressing = .path,
    credentials: CredentialsProvider, certificateAuthorityFile: String? = nil, limits: S3Limits = S3Limits(),
    conditionalCreation: ConditionalCreation = .unknown, listPageSize: Int = 1000
  ) {
    self.endpoint = endpoint
    self.bucket = bucket
    self.region = region
    self.addressing = addressing
    self.credentials = credentials
    self.certificateAuthorityFile = certificateAuthorityFile
    self.limits = limits
    self.conditionalCreation = conditionalCreation
    self.listPageSize = listPageSize
  }
}

/// Where a bucket's requests go.
struct S3Address: Sendable {
  let scheme: String
  /// Whether requests go through TLS.
  var isEncrypted: Bool { scheme == "https" }
  /// The host with its port unless that is the scheme's own: the `Host` header.
  let host: String
  /// The path before keys: escaped, without a slash at its end.
  private let basePath: String

  /// - Throws: `configuration-invalid`.
  init(_ configuration: S3Configuration) throws(TidemarkError) {
    let endpoint = try Endpoint(configuration.endpoint)
    let bucket = configuration.bucket
    let isSafe = bucket.utf8.allSatisfy { byte in
      (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte)
        || byte == 0x2E || byte == 0x2D || byte == 0x5F
    }
    guard (1...255).contains(bucket.utf8.count), isSafe, !bucket.hasPrefix(".") else {
      throw TidemarkError(.configurationInvalid, "not a valid bucket name", object: bucket)
    }
    scheme = endpoint.scheme
    switch configuration.addressing {
    case .path:
      host = endpoint.host
      basePath = "\(endpoint.path)/\(bucket)"
    case .virtualHosted:
      host = "\(bucket).\(endpoint.host)"
      basePath = endpoint.path
    }
  }

  /// The escaped path of `key`, or of the bucket.
  func path(_ key: ObjectKey?) -> String {
    guard let key else { return basePath.isEmpty ? "/" : basePath }
    return "\(basePath)/\(SignatureV4.escape(key.text, keepingSlashes: true))"
  }

  func url(path: String, query: [(name: String, value: String)]) -> String {
    "\(scheme)://\(host)\(path)" + (query.isEmpty ? "" : "?\(SignatureV4.query(query))")
  }
}

/// An `http` or `https` address in its parts.
struct Endpoint {
  let scheme: String
  /// With the port unless that is the scheme's own.
  let host: String
  /// Escaped as given, without a slash at its end.
  let path: String

  init(_ text: String) throws(TidemarkError) {
    let invalid = TidemarkError(
      .configurationInvalid, "not a valid endpoint", object: text, next: "write it as https://host[:port]")
    guard let separator = text.firstRange(of: "://") else { throw invalid }
    scheme = text[..<separator.lowerBound].lowercased()
    guard scheme == "http" || scheme == "https" else { throw invalid }
    let rest = text[separator.upperBound...]
    let authority = rest.prefix { $0 != "/" }
    var path = rest[authority.endIndex...]
    while path.hasSuffix("/") { path.removeLast() }
    let isPlain = { (part: Substring, more: String) in
      part.utf8.allSatisfy { byte in
        (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte)
          || more.utf8.contains(byte)
      }
    }
    guard !authority.isEmpty, isPlain(authority, ".-_:[]"), isPlain(path, "/.-_~%") else { throw invalid }
    let ownPort = scheme == "http" ? ":80" : ":443"
    host = authority.hasSuffix(ownPort) ? String(authority.dropLast(ownPort.count)) : String(authority)
    self.path = String(path)
  }
}
