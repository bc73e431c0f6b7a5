// Key files: private, never overwritten, and refused when others may read them.
import Diagnostics
import Glibc
import SystemSupport
import TestSupport
import Testing

@testable import Envelope

@Suite("Key files")
struct KeyFileTests {
  let directory: TemporaryDirectory
  var path: String { "\(directory.path)/keys/identity.key" }

  init() throws { directory = try TemporaryDirectory() }

  private func mode(_ path: String) -> mode_t {
    var status = stat()
    return stat(path, &status) == 0 ? status.st_mode & 0o7777 : 0
  }

  private func put(_ text: String, mode: mode_t = 0o600) throws {
    try DurableFile.createDirectories(directoryName(path))
    try DurableFile.write(Array(text.utf8), to: path, mode: mode)
    chmod(path, mode)
  }

  @Test("a new identity file is private, names its recipient, and reads back")
  func identity() throws {
    let created = try #require(try KeyFile.createIdentity(path))
    #expect(mode(path) == 0o600)
    #expect(try KeyFile.identities(path).map(\.recipient) == [created.recipient])
    let text = String(decoding: try readFile(path), as: UTF8.self)
    #expect(text.contains("# public: \(created.recipient)\n"))
    #expect(text.contains(/# created: 2\d\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ\n/))
  }

  @Test("a new writer key file is private, names its public key, and reads back")
  func writer() throws {
    let created = try #require(try KeyFile.createWriter(path))
    #expect(mode(path) == 0o600)
    #expect(try KeyFile.writer(path).publicKey == created.publicKey)
    #expect(String(decoding: try readFile(path), as: UTF8.self).contains("# public: \(created.publicKey)\n"))
  }

  @Test("an existing key file is never overwritten")
  func neverOverwritten() throws {
    _ = try KeyFile.createIdentity(path)
    let before = try readFile(path)
    #expect(try KeyFile.createIdentity(path) == nil)
    #expect(try KeyFile.createWriter(path) == nil)
    #expect(try readFile(path) == before)
  }

  @Test("a rotation adds an identity and keeps the old ones, also when several add at once")
  func rotation() throws {
    let first = try #require(try KeyFile.createIdentity(path))
    let path = path
    let added = try (0..<4).map { index in
      WorkerThread("add-\(index)") { try KeyFile.addIdentity(path).recipient }
    }.map { try $0.join() }
    let found = try KeyFile.identities(path).map(\.recipient)
    #expect(found.first == first.recipient)
    #expect(Set(found) == Set(added + [first.recipient]))
    #expect(mode(path) == 0o600)
  }

  @Test("a file that others may read or change is refused", arguments: [0o644, 0o604, 0o660, 0o620, 0o602, 0o601])
  func openMode(mode: UInt32) throws {
    try put("\(Identity().secretText)\n", mode: mode_t(mode))
    let error = #expect(throws: TidemarkError.self) { try KeyFile.identities(path) }
    #expect(error?.code == .keyFileModeOpen)
    #expect(error?.next == "chmod 600 \(path)")
  }

  @Test("a group may read a file that is root's, as service managers hand over credentials")
  func rootsCredential() throws {
    try put("\(Identity().secretText)\n", mode: 0o640)
    if getuid() == 0 {
      #expect(try KeyFile.identities(path).count == 1)
      // The same file of anybody else is refused.
      #expect(chown(path, 65534, 65534) == 0)
    }
    #expect(code { _ = try KeyFile.identities(path) } == .keyFileModeOpen)
  }

  @Test("comments, blank lines, indentation and line ends of other systems are read over")
  func layout() throws {
    let keys = [Identity(), Identity()]
    try put("# one\r\n\r\n  \(keys[0].secretText)  \r\n\n#\(keys[1].secretText)\n\(keys[1].secretText)")
    #expect(try KeyFile.identities(path).map(\.recipient) == keys.map(\.recipient))
  }

  @Test("garbage is refused, naming the file and repeating no secret")
  func garbage() throws {
    let secret = Identity().secretText
    for text in ["", "# only a comment\n", "hello\n", secret.dropLast() + "\n", secret + "\nhello\n"] {
      try put(text)
      let error = #expect(throws: TidemarkError.self) { try KeyFile.identities(path) }
      #expect(error?.code == .keyFileInvalid)
      #expect(error?.object == path)
      #expect(error?.operatorText.contains(secret.suffix(30)) == false)
    }
    try DurableFile.write([0xFF, 0xFE, 0], to: path)
    #expect(code { _ = try KeyFile.identities(path) } == .keyFileInvalid)
    try put(String(repeating: "#", count: 70_000))
    #expect(code { _ = try KeyFile.identities(path) } == .keyFileInvalid)
  }

  @Test("a directory or a FIFO is no key file, and nothing waits for it")
  func noRegularFile() throws {
    try DurableFile.createDirectories(path)
    #expect(code { _ = try KeyFile.identities(path) } == .keyFileInvalid)
    let fifo = "\(directory.path)/fifo"
    #expect(mkfifo(fifo, 0o600) == 0)
    #expect(code { _ = try KeyFile.identities(fifo) } == .keyFileInvalid)
  }

  @Test("a missing file is an error that says how to make one")
  func missing() {
    let error = #expect(throws: TidemarkError.self) { try KeyFile.identities(path) }
    #expect(error?.next?.contains("tidemark init") == true)
  }

  @Test("a writer key file holds exactly one key")
  func oneWriter() throws {
    try put("\(try WriterKey().secretText)\n\(try WriterKey().secretText)\n")
    #expect(code { _ = try KeyFile.writer(path) } == .keyFileInvalid)
    try put("\(Identity().secretText)\n")
    #expect(code { _ = try KeyFile.writer(path) } == .keyFileInvalid)
  }
}
