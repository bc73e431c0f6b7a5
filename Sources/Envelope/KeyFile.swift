// Key files: comment lines and secret lines. They are created once with mode 0600 and never overwritten; one that others
// may read is refused.
import Diagnostics
import Glibc
import SystemSupport

package enum KeyFile {
  private static let byteCountMax = 64 << 10

  /// The identities in the file at `path`, one or more.
  /// - Throws: `key-file-mode-open`, `key-file-invalid`, and what reading throws.
  package static func identities(_ path: String) throws(TidemarkError) -> [Identity] {
    var identities: [Identity] = []
    for line in try secretLines(path) {
      do throws(TidemarkError) { identities.append(try Identity(secretText: line)) } catch {
        throw error.with(object: path)
      }
    }
    return identities
  }

  /// The one writer key in the file at `path`.
  /// - Throws: as ``identities(_:)``.
  package static func writer(_ path: String) throws(TidemarkError) -> WriterKey {
    let lines = try secretLines(path)
    guard lines.count == 1 else {
      throw TidemarkError(.keyFileInvalid, "a writer key file holds one key, this one \(lines.count)", object: path)
    }
    do throws(TidemarkError) { return try WriterKey(secretText: lines[0]) } catch { throw error.with(object: path) }
  }

  /// Creates the file with a new identity unless it exists. Returns the identity when it was created.
  package static func createIdentity(_ path: String) throws(TidemarkError) -> Identity? {
    let identity = Identity()
    let text = "# Tidemark identity: opens the backups. Keep copies off this host.\n# public: \(identity.recipient)\n"
    return try create(path, text + identity.secretText + "\n") ? identity : nil
  }

  /// Creates the file with a new writer key unless it exists. Returns the key when it was created.
  package static func createWriter(_ path: String) throws(TidemarkError) -> WriterKey? {
    let writer = try WriterKey()
    let text = "# Tidemark writer key: signs the backups of this host.\n# public: \(writer.publicKey)\n"
    return try create(path, text + writer.secretText + "\n") ? writer : nil
  }

  private static func create(_ path: String, _ text: String) throws(TidemarkError) -> Bool {
    try DurableFile.createDirectories(directoryName(path))
    return try DurableFile.create(Array(text.utf8), at: path, mode: 0o600)
  }

  private static func secretLines(_ path: String) throws(TidemarkError) -> [String] {
    var status = stat()
    guard stat(path, &status) == 0 else {
      throw systemError("cannot read the key file", path).with(
        next: "'tidemark init' creates the key files that the configuration names")
    }
    // Root's files may be readable by a group, as service managers hand credentials over.
    let forbidden: mode_t = status.st_uid == 0 ? 0o037 : 0o077
    guard status.st_mode & forbidden == 0 else {
      throw TidemarkError(
        .keyFileModeOpen, "others may read or change the key file", object: path,
        cause: "its mode is \(String(status.st_mode & 0o7777, radix: 8))", next: "chmod 600 \(path)")
    }
    let text = String(decoding: try readFile(path, limit: byteCountMax), as: UTF8.self)
    let lines = text.split(whereSeparator: \.isNewline).map { $0.trimmingPrefix { $0 == " " } }
      .filter { !$0.isEmpty && !$0.hasPrefix("#") }.map { line in String(line.prefix { $0 != " " }) }
    guard !lines.isEmpty else {
      throw TidemarkError(.keyFileInvalid, "the key file holds no key", object: path)
    }
    return lines
  }
}
