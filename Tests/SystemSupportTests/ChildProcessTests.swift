// Child processes end as told, with their output whole and no descriptor left behind.
import Diagnostics
import Glibc
import SystemSupport
import Testing

@Suite("Child processes")
struct ChildProcessTests {
  private static let limit = Deadline.after(.seconds(60))

  @Test("input, output, error and status arrive")
  func everythingArrives() throws {
    let outcome = try ChildProcess.run(
      "/bin/sh", ["-c", "cat; echo oops >&2; exit 7"], input: Array("hello".utf8), deadline: Self.limit)
    #expect(outcome.ending == .exited(7))
    #expect(outcome.outputText == "hello")
    #expect(outcome.errorText == "oops\n")
  }

  @Test("much input and output at once don't block each other")
  func muchBothWays() throws {
    let input = (0..<3_000_000).map { UInt8(truncatingIfNeeded: $0) }
    let outcome = try ChildProcess.run("cat", [], input: input, deadline: Self.limit)
    #expect(outcome.succeeded)
    #expect(outcome.output == input)
  }

  @Test("a program that doesn't read its input is no error of ours")
  func unreadInput() throws {
    let input = [UInt8](repeating: 65, count: 1 << 20)
    #expect(try ChildProcess.run("true", [], input: input, deadline: Self.limit).succeeded)
  }

  @Test("the environment is replaced and the working directory set")
  func environmentAndDirectory() throws {
    let outcome = try ChildProcess.run(
      "/bin/sh", ["-c", "pwd; /usr/bin/env | /usr/bin/sort"], environment: ["TIDE": "mark", "PWD": "/"],
      workingDirectory: "/", deadline: Self.limit)
    #expect(outcome.outputText.hasPrefix("/\n"))
    #expect(outcome.outputText.contains("TIDE=mark\n"))
    #expect(!outcome.outputText.contains("HOME="))
  }

  @Test("the child has no descriptor of ours, even one that isn't close-on-exec")
  func noStrayDescriptors() throws {
    let stray = open("/dev/null", O_RDONLY)
    defer { close(stray) }
    let outcome = try ChildProcess.run("/bin/sh", ["-c", "ls /proc/$$/fd"], deadline: Self.limit)
    #expect(outcome.outputText.split(separator: "\n").allSatisfy { ["0", "1", "2", "10"].contains($0) })
    #expect(!outcome.outputText.contains("\n\(stray)\n"))
  }

  @Test("a missing program is an error that names it")
  func missingProgram() {
    let error = #expect(throws: TidemarkError.self) { try ChildProcess.run("/nonexistent/program", []) }
    #expect(error?.code == .localIO)
    #expect(error?.object == "/nonexistent/program")
  }

  @Test("a program that outlasts its limit is killed")
  func outlastsLimit() throws {
    let error = #expect(throws: TidemarkError.self) {
      try ChildProcess.run("sleep", ["600"], deadline: .after(.milliseconds(50)))
    }
    #expect(error?.summary.contains("in time") == true)
  }

  @Test("output beyond the limit is refused")
  func outputBeyondLimit() throws {
    let error = #expect(throws: TidemarkError.self) {
      try ChildProcess.run("yes", [], deadline: Self.limit, outputLimit: 100_000)
    }
    #expect(error?.summary.contains("more than expected") == true)
  }

  @Test("a daemon that keeps the pipes open isn't waited for")
  func daemonLeftBehind() throws {
    let outcome = try ChildProcess.run(
      "/bin/sh", ["-c", "sleep 30 & echo $!"], deadline: .after(.seconds(20)))
    #expect(outcome.succeeded)
    let daemon = try #require(pid_t(outcome.outputText.dropLast()))
    #expect(kill(daemon, SIGKILL) == 0)
  }

  @Test("a signal's number is told, and waiting again tells it again")
  func signalled() throws {
    let child = try ChildProcess("sleep", ["600"])
    #expect(try child.wait(until: .after(.milliseconds(10))) == nil)
    #expect(child.isRunning)
    #expect(try child.kill() == .signalled(SIGKILL))
    #expect(try child.wait() == .signalled(SIGKILL))
    #expect(!child.isRunning)
  }

  @Test("a child is killed when its owner lets go of it")
  func killedInDeinit() throws {
    var child: ChildProcess? = try ChildProcess("sleep", ["600"])
    let pid = try #require(child?.pid)
    child = nil
    #expect(kill(pid, 0) == -1 && errno == ESRCH)
  }
}
