// Locks exclude, name themselves, and go with their process.
import Diagnostics
import Glibc
import SystemSupport
import TestSupport
import Testing

@Suite("File locks")
struct FileLockTests {
  let directory: TemporaryDirectory
  private var path: String { "\(directory.path)/lock" }

  init() throws { directory = try TemporaryDirectory() }

  private func isFree() throws -> Bool {
    do { _ = try FileLock(path, purpose: "a look") } catch {
      #expect(error.code == .locked)
      return false
    }
    return true
  }

  @Test("a held lock is an error that says what for, and that it may be tried again") func held() throws {
    let lock = try FileLock(path, purpose: "backups")
    let error = #expect(throws: TidemarkError.self) { _ = try FileLock(path, purpose: "backups") }
    #expect(error?.code == .locked && error?.exitStatus == .tryAgain)
    #expect(error?.summary == "another process holds the lock for backups")
    #expect(error?.next?.contains("fuser \(path)") == true)
    withExtendedLifetime(lock) {}
  }

  @Test("a lock goes with its value") func released() throws {
    do {
      let lock = try FileLock(path, purpose: "backups")
      #expect(try !isFree())
      withExtendedLifetime(lock) {}
    }
    #expect(try isFree())
  }

  @Test("a lock goes with its process, even a killed one, and nobody removes the file") func killed() throws {
    let holder = try ChildProcess("flock", ["--no-fork", path, "sleep", "600"])
    try #require(try eventually { fileExists(path) ? try !isFree() : false })
    _ = try holder.kill()
    #expect(try eventually { try isFree() })
    #expect(fileExists(path))
  }

  @Test("whoever waits gets the lock when it is let go") func waits() throws {
    let path = path
    let order = Counter()
    var waiting: WorkerThread<Int>?
    do {
      let lock = try FileLock(path, purpose: "the first")
      waiting = WorkerThread("waits") {
        let lock = try FileLock(waitingFor: path)
        let place = order.add(1)
        withExtendedLifetime(lock) {}
        return place
      }
      order.add(1)
      withExtendedLifetime(lock) {}
    }
    #expect(try waiting?.join() == 2)
  }
}
