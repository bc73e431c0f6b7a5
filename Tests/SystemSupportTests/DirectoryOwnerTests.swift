// What root leaves behind in somebody else's directory can be used by that somebody.
import Glibc
import SystemSupport
import TestSupport
import Testing

@Suite("Files of root in the directory of another user", .enabled(if: geteuid() == 0))
struct DirectoryOwnerTests {
  private func owner(_ path: String) -> uid_t {
    var status = stat()
    return lstat(path, &status) == 0 ? status.st_uid : uid_t.max
  }

  @Test("files, directories and locks become the directory owner's; in root's own directory they stay root's")
  func ownership() throws {
    let directory = try TemporaryDirectory()
    let theirs = "\(directory.path)/theirs"
    try DurableFile.createDirectories(theirs)
    #expect(owner(theirs) == 0)
    try PostgresServer.give(theirs)
    let user = owner(theirs)
    try #require(user != 0)
    try DurableFile.createDirectories("\(theirs)/debts/west")
    try DurableFile.write([1], to: "\(theirs)/debts/west/debt")
    #expect(try DurableFile.create([1], at: "\(theirs)/created"))
    _ = try FileLock("\(theirs)/lock", purpose: "a test")
    for name in ["debts", "debts/west", "debts/west/debt", "created", "lock"] {
      #expect(owner("\(theirs)/\(name)") == user, "\(name)")
    }
    try DurableFile.write([1], to: "\(directory.path)/ours")
    #expect(owner("\(directory.path)/ours") == 0)
  }
}
