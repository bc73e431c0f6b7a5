// Key files: comment lines and secret lines. They are created once with mode 0600 and never overwritten; a rotation adds
// an identity and keeps the old ones, or their backups couldn't be opened. A file that others may read is refused.
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
    let text = "# Tidemark identity: opens the backups. Keep copies off this host.\n" + lines(of: identity)
    return try create(path, text) ? identity : nil
  }

  /// Adds a new identity to an existing file, for a rotation of keys. Returns it after the file is durable.
  /// - Throws: as ``identities(_:)``.
  package static func addIdentity(_ path: String) throws(TidemarkError) -> Identity {
    // Two additions at once must not lose one: its recipient may already have been published.
    let lock = try FileLock(waitingFor: "\(path).lock")
    defer { withExtendedLifetime(lock) {} }
    _ = try identities(path)
    var text = try checkedText(path)
    if !text.hasSuffix("\n") { text += "\n" }
    let identity = Identity()
    try DurableFile.write(Array((text + lines(of: identity)).utf8), to: path, mode: 0o600)
    return identity
  }

  /// Creates the file with a new writer key unless it exists. Returns the key when it was created.
  package static func createWriter(_ path: String) throws(TidemarkError) -> WriterKey? {
    let writer = try WriterKey()
    let text =
      "# Tidemark writer key: signs the backups of this host.\n"
      + "# public: \(writer.publicKey)\n# created: \(now())\n\(writer.secretText)\n"
    return try create(path, text) ? writer : nil
  }

  private static func lines(of identity: Identity) -> String {
    "# public: \(identity.recipient)\n# created: \(now())\n\(identity.secretText)\n"
  }

  /// The time in UTC, RFC 3339.
  private static func now() -> String {
    var seconds = time(nil)
    var fields = tm()
    gmtime_r(&seconds, &fields)
    var text = [CChar](repeating: 0, count: 32)
    let count = strftime(&text, text.count, "%Y-%m-%dT%H:%M:%SZ", &fields)
    return String(decoding: text.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  private static func create(_ path: String, _ text: String) throws(TidemarkError) -> Bool {
    // Whoever uses a key may well not be let write beside it.
    if fileExists(path) { return false }
    try DurableFile.createDirectories(directoryName(path))
    return try DurableFile.create(Array(text.utf8), at: path, mode: 0o600)
  }

  /// The first line of a file with some other secret, which nobody else may read.
  package static func secret(_ path: String) throws(TidemarkError) -> String { try secretLines(path)[0] }

  private static func secretLines(_ path: String) throws(TidemarkError) -> [String] {
    let lines = try checkedText(path).split(whereSeparator: \.isNewline).map { $0.trimmingPrefix { $0 == " " } }
      .filter { !$0.isEmpty && !$0.hasPrefix("#") }.map { line in String(line.prefix { $0 != " " }) }
    guard !lines.isEmpty else {
      throw TidemarkError(.keyFileInvalid, "the key file holds no key", object: path)
    }
    return lines
  }

  /// The content of a regular file that nobody else may read. Mode and content are of the same open file.
  private static func checkedText(_ path: String) throws(TidemarkError) -> String {
    guard fileExists(path) else {
      throw systemError("cannot read the key file", path).with(
        next: "'tidemark init' creates the key files that the configuration names")
    }
    // Without O_NONBLOCK a FIFO would be waited for.
    let file = try OpenFile(path, O_RDONLY | O_NONBLOCK)
    var status = stat()
    guard fstat(file.descriptor, &status) == 0 else { throw systemError("cannot examine the key file", path) }
    guard status.st_mode & S_IFMT == S_IFREG, status.st_size <= byteCountMax else {
      throw TidemarkError(.keyFileInvalid, "this isn't a key file", object: path)
    }
    // Root's files may be readable by a group, as service managers hand credentials over.
    let forbidden: mode_t = status.st_uid == 0 ? 0o037 : 0o077
    guard status.st_mode & forbidden == 0 else {
      throw TidemarkError(
        .keyFileModeOpen, "others may read or change the key file", object: path,
        cause: "its mode is \(String(status.st_mode & 0o7777, radix: 8))", next: "chmod 600 \(path)")
    }
    var bytes = [UInt8](repeating: 0, count: Int(status.st_size))
    let count = try bytes.withUnsafeMutableBufferPointer { buffer throws(TidemarkError) in
      try file.read(into: UnsafeMutableRawBufferPointer(buffer), at: 0)
    }
    bytes.removeLast(bytes.count - count)
    guard let text = String(validating: bytes, as: UTF8.self) else {
      throw TidemarkError(.keyFileInvalid, "the key file isn't text", object: path)
    }
    return text
  }
}
