// Where credentials come from: the configured file, the environment, the shared credentials file. They are asked for
// anew for each request, so that a rotated file is used without a restart. Web identity and instance metadata are not
// read yet: where nothing else is there, the error says which places were tried.
import Diagnostics
import Foundation
import SystemSupport

package final class CredentialsProvider: Sendable {
  private enum Source: Sendable {
    case fixed(Credentials)
    case file(String, profile: String)
    case surroundings(profile: String?)
  }
  private let source: Source

  package init(fixed: Credentials) { source = .fixed(fixed) }

  /// `file` is the configured one; without it the environment and then the shared credentials file are used.
  package init(file: String?, profile: String?) {
    source = file.map { .file($0, profile: profile ?? "default") } ?? .surroundings(profile: profile)
  }

  /// - Throws: `credentials-missing`, `key-file-mode-open`, and what reading the file throws.
  package func current() throws(TidemarkError) -> Credentials {
    switch source {
    case .fixed(let credentials): return credentials
    case .file(let path, let profile): return try Self.read(path, profile: profile)
    case .surroundings(let profile):
      let environment = ProcessInfo.processInfo.environment
      if let key = environment["AWS_ACCESS_KEY_ID"], let secret = environment["AWS_SECRET_ACCESS_KEY"] {
        return Credentials(
          accessKey: key, secretKey: secret, sessionToken: environment["AWS_SESSION_TOKEN"], origin: "the environment")
      }
      let home = environment["HOME"] ?? "/root"
      let path = environment["AWS_SHARED_CREDENTIALS_FILE"] ?? "\(home)/.aws/credentials"
      if fileExists(path) {
        return try Self.read(path, profile: profile ?? environment["AWS_PROFILE"] ?? "default")
      }
      throw TidemarkError(
        .credentialsMissing, "there are no credentials for the store",
        cause: "neither AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY nor \(path) are there",
        next: "set the region's credentials-file")
    }
  }

  /// Nothing is cached, so there is nothing to renew.
  package func renew() {}

  private static func read(_ path: String, profile: String) throws(TidemarkError) -> Credentials {
    var status = stat()
    guard stat(path, &status) == 0 else { throw systemError("cannot read the credentials file", path) }
    guard status.st_mode & 0o077 == 0 else {
      throw TidemarkError(
        .keyFileModeOpen, "others may read the credentials file", object: path,
        cause: "its mode is \(String(status.st_mode & 0o7777, radix: 8))", next: "chmod 600 \(path)")
    }
    var section = ""
    var fields: [String: String] = [:]
    for line in String(decoding: try readFile(path, limit: 1 << 20), as: UTF8.self).split(whereSeparator: \.isNewline) {
      let text = line.trimmingCharacters(in: .whitespaces)
      if text.hasPrefix("["), text.hasSuffix("]") {
        section = text.dropFirst().dropLast().trimmingCharacters(in: .whitespaces)
      } else if section == profile, let equals = text.firstIndex(of: "="), !text.hasPrefix("#") {
        let key = text[..<equals].trimmingCharacters(in: .whitespaces).lowercased()
        fields[key] = text[text.index(after: equals)...].trimmingCharacters(in: .whitespaces)
      }
    }
    guard let key = fields["aws_access_key_id"], let secret = fields["aws_secret_access_key"] else {
      throw TidemarkError(
        .credentialsMissing, "the credentials file has no key and secret for the profile", object: path,
        cause: "profile '\(profile)'", next: "give it aws_access_key_id and aws_secret_access_key below [\(profile)]")
    }
    return Credentials(accessKey: key, secretKey: secret, sessionToken: fields["aws_session_token"], origin: path)
  }
}
