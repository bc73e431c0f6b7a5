// The address of an S3 service: scheme, host and port, nothing else. A path, a query or credentials in it are refused:
// they would be signed wrongly, or shown in messages.

/// `http://host[:port]` or `https://host[:port]`.
package struct Endpoint: Sendable, Equatable, CustomStringConvertible {
  package enum Scheme: String, Sendable, Equatable {
    case http
    case https
  }

  package let scheme: Scheme
  /// A name or an address; an IPv6 address keeps its brackets.
  package let host: String
  /// `nil`: the scheme's own, 80 or 443.
  package let port: Int?

  package var description: String { "\(scheme.rawValue)://\(host)" + (port.map { ":\($0)" } ?? "") }

  /// Whether this is Amazon's own service, which prefers the bucket in the host name.
  package var isAmazon: Bool { host.hasSuffix(".amazonaws.com") || host.hasSuffix(".amazonaws.com.cn") }

  /// Stands for an endpoint that was refused, while the rest of the file is read.
  static let unusable = Endpoint(scheme: .https, host: "", port: nil)

  private init(scheme: Scheme, host: String, port: Int?) {
    self.scheme = scheme
    self.host = host
    self.port = port
  }

  /// Parses `text`, without a trailing slash or with one.
  /// - Throws: ``Refusal``, which doesn't repeat the text: it could hold a secret.
  init(parsing text: String) throws(Refusal) {
    guard let separator = text.firstRange(of: "://") else {
      throw Refusal("is not a URL: write http://host:port, https://host or file:///path")
    }
    guard let scheme = Scheme(rawValue: text[..<separator.lowerBound].lowercased()) else {
      throw Refusal("has an unknown scheme: use https, http or file")
    }
    var rest = text[separator.upperBound...]
    if rest.hasSuffix("/") { rest = rest.dropLast() }
    if rest.contains("@") {
      throw Refusal("holds credentials: remove them here and put them into the credentials-file")
    }
    if rest.contains(where: { "/?#".contains($0) }) {
      throw Refusal("has a path or a query: give scheme, host and port alone; the bucket is a key of its own")
    }
    let (host, port) = try Self.splitPort(rest)
    guard Self.isHost(host) else { throw Refusal("has no valid host name") }
    self.scheme = scheme
    self.host = host.lowercased()
    self.port = port
  }

  private static func splitPort(_ text: Substring) throws(Refusal) -> (Substring, Int?) {
    // The colons inside an IPv6 address's brackets don't count.
    let searched = text.lastIndex(of: "]").map { text[$0...] } ?? text
    guard let colon = searched.firstIndex(of: ":") else { return (text, nil) }
    let digits = text[text.index(after: colon)...]
    guard digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let port = Int(digits), (1...65535).contains(port)
    else { throw Refusal("has a port that is not a number from 1 to 65535") }
    return (text[..<colon], port)
  }

  private static func isHost(_ text: Substring) -> Bool {
    if text.hasPrefix("[") {
      let inside = text.dropFirst().dropLast()
      return text.hasSuffix("]") && inside.contains(":")
        && inside.allSatisfy { $0.isASCII && $0.isHexDigit || $0 == ":" || $0 == "." }
    }
    return (1...253).contains(text.utf8.count) && !text.hasPrefix(".") && !text.contains("..")
      && text.utf8.allSatisfy { byte in
        (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte) || byte == 0x2D
          || byte == 0x2E || byte == 0x5F
      }
  }
}
