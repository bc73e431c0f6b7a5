// A credentials file in the AWS shared format. It is read for each request, so that a rotated one is used at once, and
// refused while others may read it.
// Source: AWS SDKs and Tools Reference Guide, "Format of the credentials file".
import Diagnostics
import Foundation
import SystemSupport

enum SharedCredentialsFile {
  private static let byteCountMax = 1 << 20

  /// - Throws: `key-file-mode-open`, `credentials-missing`, and what reading throws.
  static func read(_ path: String, profile: String) throws(TidemarkError) -> Credentials {
    var status = stat()
    guard stat(path, &status) == 0 else { throw systemError("cannot read the credentials file", path) }
    // Root's files may be readable by a group: a service's credentials are (systemd gives its user an access list).
    let forbidden: mode_t = status.st_uid == 0 ? 0o037 : 0o077
    guard status.st_mode & forbidden == 0 else {
      throw TidemarkError(
        .keyFileModeOpen, "others may read the credentials file", object: path,
        cause: "its mode is \(String(status.st_mode & 0o7777, radix: 8))", next: "chmod 600 \(path)")
    }
    var section = ""
    var fields: [String: String] = [:]
    let text = String(decoding: try readFile(path, limit: byteCountMax), as: UTF8.self)
    for line in text.split(whereSeparator: \.isNewline) {
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
