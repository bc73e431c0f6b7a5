// What a process with keys shows to others: nothing in output, logs and process lists, no memory in a crash.
import Foundation
import Glibc
import SystemSupport
import TestSupport
import Testing

@Suite("Secrecy", .serialized)
struct SecrecyTests {
  /// A process with keys that waits for a region which accepts and never answers.
  private func waiting(
    _ directory: TemporaryDirectory, _ region: MuteServer, _ environment: [String: String]
  ) throws -> ChildProcess {
    let root = directory.path
    let built = directoryName(try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) + "/tidemark"
    try FileManager.default.copyItem(atPath: built, toPath: "\(root)/tidemark")
    let yaml = """
      cluster: crm
      repository: {regions: [{name: mute, endpoint: "http://127.0.0.1:\(region.port)", bucket: mute, region: r}]}
      encryption: {identity-file: \(root)/identity.key, writer-key-file: \(root)/writer.key}
      state-directory: \(root)/state

      """
    try DurableFile.write(Array(yaml.utf8), to: "\(root)/tidemark.yaml", mode: 0o644)
    try PostgresServer.give(root)
    func command(_ arguments: [String]) -> [String] {
      PostgresServer.unprivileged("\(root)/tidemark", ["--config", "\(root)/tidemark.yaml"] + arguments)
    }
    let keys = command(["keys", "generate", "--identity", "\(root)/identity.key", "--writer", "\(root)/writer.key"])
    try #require(try ChildProcess.run(keys[0], Array(keys.dropFirst()), workingDirectory: "/").succeeded)
    var environment = environment
    environment["PATH"] = "/usr/bin:/bin"
    environment["AWS_ACCESS_KEY_ID"] = "someone"
    environment["AWS_SECRET_ACCESS_KEY"] = "sesame"
    let list = command(["list"])
    let child = try ChildProcess(
      list[0], Array(list.dropFirst()), environment: environment, workingDirectory: "/", error: .file("\(root)/log"))
    try #require(region.waitForClient())
    return child
  }

  @Test(
    "a crash prints neither registers nor memory, whatever the environment asks for",
    arguments: [SIGSEGV, SIGILL, SIGTRAP, SIGABRT])
  func crash(_ signal: Int32) throws {
    let (directory, region) = (try TemporaryDirectory(), try MuteServer())
    let child = try waiting(
      directory, region, ["SWIFT_BACKTRACE": "enable=yes,registers=all,images=all,output-to=stderr"])
    child.signal(signal)
    #expect(try child.wait(until: .after(.seconds(30))) == .signalled(signal))
    let said = String(decoding: try readFile("\(directory.path)/log"), as: UTF8.self)
    #expect(said.isEmpty, "\(said)")
    #expect(try !directoryEntries(directory.path).contains { $0.hasPrefix("core") })
  }

  @Test("nobody else, not even the same user, reads its memory or its environment") func memory() throws {
    let (directory, region) = (try TemporaryDirectory(), try MuteServer())
    let child = try waiting(directory, region, [:])
    // Root may read everything, so it takes another user to look.
    for file in ["environ", "mem", "maps"] where geteuid() == 0 {
      let command = PostgresServer.unprivileged("/bin/head", ["-c", "1", "/proc/\(child.pid)/\(file)"])
      let outcome = try ChildProcess.run(command[0], Array(command.dropFirst()), workingDirectory: "/")
      #expect(!outcome.succeeded && outcome.errorText.contains("Permission denied"), "\(file): \(outcome.errorText)")
    }
    _ = try child.kill()
  }

  @Test("no secret is in any output, log, process list or file beside the keys'") func secrets() throws {
    let installation = try Installation(.v15, usesS3: true)
    let root = installation.root
    try installation.server.psql("CREATE TABLE t AS SELECT 1 AS id")
    let secrets =
      try [RcloneServer.secretKey]
      + ["identity.key", "writer.key"].map { file in
        let text = String(decoding: try readFile("\(root)/\(file)"), as: UTF8.self)
        return String(try #require(text.firstMatch(of: /tidemark-\w+-secret-(\w+)/)).output.1)
      }
    var said = ""
    func run(_ arguments: [String]) throws {
      for json in [[], ["--json"]] {
        let outcome = try installation.run(json + arguments + ["--log-level", "trace"])
        said += outcome.outputText + outcome.errorText
      }
    }
    try run(["backup"])
    try installation.archiveWAL()
    for arguments in [
      ["list"], ["check"], ["sync"], ["keys", "list"], ["init"],
      ["restore", "--plan-only", "--target-directory", "\(root)/x"],
      ["wal-fetch", "0000000900000009000000AA", "\(installation.server.dataDirectory)/pg_wal/x"], ["show", "nothing"],
    ] { try run(arguments) }
    // Failures say most: a region that is gone, and one that refuses.
    try installation.servers[0].stop()
    try run(["check"])
    try run(["restore", "--plan-only", "--target-directory", "\(root)/x"])
    var processes = ""
    try installation.restore("restored", ["--to-backup-end"]) { _ in
      processes = try ChildProcess.run("ps", ["-eo", "args"]).outputText
    }
    #expect(processes.contains("\(root)/restored"))
    for secret in secrets {
      #expect(!said.contains(secret))
      // rclone itself is given its keys on the command line.
      #expect(!processes.split(separator: "\n").contains { $0.contains(secret) && !$0.contains("rclone") })
      let found = try ChildProcess.run("grep", ["-rlaF", "--exclude-dir=proc", secret, root])
      let files = found.outputText.split(separator: "\n").map { String($0.dropFirst(root.count + 1)) }.sorted()
      #expect(
        files.allSatisfy { ["identity.key", "writer.key", "west.credentials", "east.credentials"].contains($0) },
        "\(files)")
    }
  }
}
