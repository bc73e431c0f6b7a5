// An access key and its secret. The secret never appears in a description.

package struct Credentials: Sendable, CustomStringConvertible, CustomReflectable {
  package var accessKey: String
  package var secretKey: String
  /// For temporary credentials.
  package var sessionToken: String?
  /// In seconds since 1970; `nil` for credentials that don't expire.
  package var expires: Int64?
  /// Where they came from, for messages: a file's path, "environment", "instance metadata".
  package var origin: String

  package init(
    accessKey: String, secretKey: String, sessionToken: String? = nil, expires: Int64? = nil, origin: String
  ) {
    self.accessKey = accessKey
    self.secretKey = secretKey
    self.sessionToken = sessionToken
    self.expires = expires
    self.origin = origin
  }

  package var description: String { "credentials from \(origin)" }
  package var customMirror: Mirror { Mirror(self, children: ["origin": origin]) }
}
