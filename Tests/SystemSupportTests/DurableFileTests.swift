// Files are there whole or not at all, with the mode that was asked for, and nothing temporary stays behind.
import Diagnostics
import Glibc
import SystemSupport
import TestSupport
import Testing

@Suite("Durable files")
struct DurableFileTests {
  let directory: TemporaryDirectory
  private var path: String { "\(directory.path)/file" }

  init() throws { directory = try TemporaryDirectory() }

  private func mode(_ path: String) -> mode_t {
    var status = stat()
    return lstat(path, &status) == 0 ? status.st_mode & 0o7777 : 0
  }

  @Test("a write replaces the file whole, and only the owner can read it unless told otherwise") func write() throws {
    try DurableFile.write([1, 2, 3], to: path)
    #expect(mode(path) == 0o600)
    try DurableFile.write([4], to: path, mode: 0o640)
    #expect(mode(path) == 0o640)
    #expect(try readFile(path) == [4])
    #expect(try directoryEntries(directory.path) == ["file"])
  }

  @Test("a write replaces a symbolic link, and never what it leads to") func link() throws {
    let other = "\(directory.path)/other"
    try DurableFile.write([9], to: other)
    symlink(other, path)
    try DurableFile.write([1], to: path)
    #expect(try readFile(other) == [9])
    #expect(try readFile(path) == [1])
  }

  @Test("of many that create a file at once one does, and its content is whole") func create() throws {
    let path = path
    let winners = Counter()
    try withThreads("create", count: 8) { index in
      if try DurableFile.create([UInt8](repeating: UInt8(index), count: 100_000), at: path) { winners.add(1) }
    }
    #expect(winners.value == 1)
    let content = try readFile(path)
    #expect(content.count == 100_000 && Set(content).count == 1)
    #expect(try directoryEntries(directory.path) == ["file"])
  }

  @Test("failures name the file and leave nothing") func failures() throws {
    let missing = "\(directory.path)/missing/file"
    let error = #expect(throws: TidemarkError.self) { try DurableFile.write([1], to: missing) }
    #expect(error?.code == .localIO && error?.object?.hasPrefix("\(directory.path)/missing/") == true)
    #expect(error?.cause == "No such file or directory")
    // A directory where the file should be: the rename fails, the temporary file goes.
    try DurableFile.createDirectories(path)
    #expect(thrownCode { try DurableFile.write([1], to: path) } == .localIO)
    #expect(try directoryEntries(directory.path) == ["file"])
  }

  @Test("a full disk is an error at the write, in the system's words") func full() throws {
    let error = #expect(throws: TidemarkError.self) {
      let file = try OpenFile("/dev/full", O_WRONLY)
      try file.write([1, 2, 3])
    }
    #expect(error?.code == .localIO && error?.cause == "No space left on device")
  }

  @Test("removing durably what isn't there is no error") func remove() throws {
    try DurableFile.write([1], to: path)
    try DurableFile.remove(path)
    try DurableFile.remove(path)
    #expect(!fileExists(path))
    #expect(thrownCode { try DurableFile.remove("\(directory.path)/missing/file") } == nil)
  }

  @Test("directories are made with their parents and modes; a file in the way is an error") func directories() throws {
    let deep = "\(directory.path)/a/b/c"
    try DurableFile.createDirectories(deep)
    try DurableFile.createDirectories(deep)
    #expect(mode("\(directory.path)/a") == 0o700 && mode(deep) == 0o700)
    try DurableFile.write([], to: path)
    #expect(thrownCode { try DurableFile.createDirectories("\(path)/x") } == .localIO)
    #expect(thrownCode { try DurableFile.createDirectories(path) } == .localIO)
  }

  @Test("files are read up to their limit, those of /proc to their end") func read() throws {
    try DurableFile.write([UInt8](repeating: 7, count: 1000), to: path)
    #expect(try readFile(path, limit: 1000).count == 1000)
    let error = #expect(throws: TidemarkError.self) { try readFile(path, limit: 999) }
    #expect(error?.code == .localIO && error?.cause == "1000 bytes, limit 999")
    #expect(try !readFile("/proc/self/status").isEmpty)
    #expect(thrownCode { _ = try readFile("\(directory.path)/none") } == .localIO)
    #expect(thrownCode { _ = try readFile(directory.path) } == .localIO)
  }

  @Test("reads and writes at positions, short at the end") func positions() throws {
    let file = try OpenFile(path, O_RDWR | O_CREAT)
    let bytes: [UInt8] = [1, 2, 3, 4]
    try bytes.withUnsafeBytes { try file.write($0, at: 2) }
    #expect(try file.byteCount() == 6)
    var buffer = [UInt8](repeating: 9, count: 6)
    let count = try buffer.withUnsafeMutableBytes { try file.read(into: $0, at: 3) }
    #expect(count == 3 && buffer == [2, 3, 4, 9, 9, 9])
    try file.synchronize()
    try file.close()
  }

  @Test("the parts of a path") func paths() {
    for (path, parent, name) in [
      ("/a/b", "/a", "b"), ("/a", "/", "a"), ("a", ".", "a"), ("a/b/c", "a/b", "c"), ("/", "/", ""),
    ] {
      #expect(directoryName(path) == parent)
      #expect(baseName(path) == name)
    }
  }

  // MARK: Spool files

  @Test("a spool file has no name that anybody could find, and its bytes come back") func spool() throws {
    let spoolDirectory = "\(directory.path)/spool/deep"
    let spool = try SpoolFile(directory: spoolDirectory)
    #expect(try directoryEntries(spoolDirectory) == [])
    try spool.append([5, 6, 7], at: 1 << 33)
    try spool.append([], at: 0)
    #expect(try spool.read(2, at: (1 << 33) + 1) == [6, 7])
    #expect(try spool.read(3, at: 100) == [0, 0, 0])
    let error = #expect(throws: TidemarkError.self) { try spool.read(4, at: 1 << 33) }
    #expect(error?.code == .localIO && error?.summary.contains("cut short") == true)
  }

  // MARK: Owners

  @Test("as root everything is given to the user, who must exist and not be root; otherwise it stays ours")
  func owners() throws {
    if geteuid() != 0 {
      #expect(try !OwnedTree(userName: "no such user").changesOwner)
      return
    }
    for name in ["no such user", "root"] {
      #expect(thrownCode { _ = try OwnedTree(userName: name) } == .configurationInvalid)
    }
    let tree = try OwnedTree(userName: "nobody")
    let nobody = try #require(getpwnam("nobody")).pointee.pw_uid
    try tree.makeDirectories("\(directory.path)/a/b", mode: 0o750)
    try tree.write("text", to: "\(directory.path)/a/file")
    symlink("/etc/hostname", "\(directory.path)/a/link")
    try tree.give("\(directory.path)/a/link")
    var status = stat()
    for name in ["a", "a/b", "a/file", "a/link"] {
      #expect(lstat("\(directory.path)/\(name)", &status) == 0 && status.st_uid == nobody, "\(name)")
    }
    // Neither what a link leads to nor the parent that was there.
    #expect(stat("/etc/hostname", &status) == 0 && status.st_uid == 0)
    #expect(stat(directory.path, &status) == 0 && status.st_uid == 0)
  }

  @Test("a directory isn't made through a link that stands in its place") func linkedDirectory() throws {
    let tree = try OwnedTree(userName: "nobody")
    symlink("/tmp", "\(directory.path)/link")
    #expect(thrownCode { try tree.makeDirectory("\(directory.path)/link") } == .localIO)
  }
}
