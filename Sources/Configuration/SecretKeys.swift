// The configuration holds no secrets: it is world-readable on many hosts, and is printed by commands. Keys under which
// people tend to put them are refused with the right place.

/// Keys that can only hold a secret.
enum SecretKeys {
  /// What to say about the unknown key `name` when it holds a secret; `nil` when it doesn't.
  static func remedy(_ name: String) -> String? {
    let plain = name.lowercased().filter { $0.isLetter }
    if plain.contains("accesskey") || plain.contains("sessiontoken") || plain.contains("secretkey")
      || plain == "secret" || plain == "keyid"
    {
      return "is refused: no secrets in this file; put the access key into a file in the AWS shared format"
        + " (mode 0600) and name that with 'credentials-file'"
    }
    if plain.contains("password") || plain == "pgpass" {
      return "is refused: no secrets in this file; put the password into ~/.pgpass (mode 0600)"
    }
    if plain.contains("privatekey") || plain.contains("passphrase") || plain == "identity" || plain == "writerkey" {
      return "is refused: no secrets in this file; name the key's file with 'identity-file' or 'writer-key-file'"
    }
    return nil
  }

  /// Whether the libpq connection string holds a password: `password=`, `sslpassword=` or a URI's `user:password@`.
  /// https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING
  static func inConnection(_ connection: String) -> Bool {
    for prefix in ["postgresql://", "postgres://"] where connection.hasPrefix(prefix) {
      let authority = connection.dropFirst(prefix.count).prefix { $0 != "/" && $0 != "?" }
      if let at = authority.lastIndex(of: "@"), authority[..<at].contains(":") { return true }
      return connection.contains("?password=") || connection.contains("&password=")
        || connection.contains("sslpassword=")
    }
    return keywords(of: connection).contains { secretKeywords.contains($0) }
  }

  private static let secretKeywords: Set<Substring> = ["password", "sslpassword"]

  /// The keywords of a `keyword = value` string, read as libpq's conninfo_parse() does (fe-connect.c): blanks may stand
  /// around the equals sign, a value may be quoted, a backslash takes the next character as it is.
  private static func keywords(of connection: String) -> [Substring] {
    var found: [Substring] = []
    var rest = connection[...]
    while true {
      rest = rest.drop(while: \.isWhitespace)
      let keyword = rest.prefix { $0 != "=" && !$0.isWhitespace }
      if keyword.isEmpty { return found }
      found.append(keyword)
      rest = rest[keyword.endIndex...].drop(while: \.isWhitespace)
      guard rest.first == "=" else { continue }
      rest = rest.dropFirst().drop(while: \.isWhitespace)
      let isQuoted = rest.first == "'"
      if isQuoted { rest = rest.dropFirst() }
      while let character = rest.first, isQuoted ? character != "'" : !character.isWhitespace {
        rest = rest.dropFirst(character == "\\" ? 2 : 1)
      }
      if isQuoted { rest = rest.dropFirst() }
    }
  }
}
