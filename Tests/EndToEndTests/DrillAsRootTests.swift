// A drill that root runs: the restored files and the server are those of the configured user, and nothing of root's is in
// that user's way afterwards.
import Foundation
import Glibc
import SystemSupport
import TestSupport
import Testing

@Suite("Drills as root", .enabled(if: geteuid() == 0)) struct DrillAsRootTests {
  @Test("a drill as root restores and serves as os-user, killed or whole, and leaves that user's commands working")
  func ownedByTheConfiguredUser() throws {
    let installation = try Installation(.v15, usesS3: false, postgres: "os-user: postgres")
    let (server, root) = (installation.server, installation.root)
    let tablespace = "\(root)/space"
    try FileManager.default.createDirectory(atPath: tablespace, withIntermediateDirectories: true)
    try PostgresServer.give(tablespace)
    try server.psql("CREATE TABLESPACE space LOCATION '\(tablespace)'")
    try server.psql("CREATE TABLE placed TABLESPACE space AS SELECT generate_series(1, 500) AS id")
    _ = try installation.json(["backup"])
    try installation.archiveWAL()
    func drill(_ arguments: [String] = [], crashAt: String? = nil) throws -> ProgramOutcome {
      var environment = ["PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"]
      if let crashAt { environment["TIDEMARK_CRASH_AT"] = crashAt }
      return try ChildProcess.run(
        installation.program, ["--config", installation.configuration, "--json", "drill"] + arguments,
        environment: environment, workingDirectory: "/", deadline: .after(.seconds(120)))
    }

    let killed = try drill(crashAt: "drill.before-proofs")
    #expect(killed.ending == .signalled(SIGKILL), "\(killed.errorText)")
    let run = "\(root)/state/drill/run"
    let foreign = try ChildProcess.run(
      "find",
      [
        "\(run)/pg", "\(run)/tablespaces", "(", "-not", "-user", "postgres", "-o", "-not", "-type", "l", "-perm",
        "/077",
        ")",
      ])
    #expect(foreign.succeeded && foreign.outputText == "", "\(foreign.outputText)\(foreign.errorText)")
    #expect(try !directoryEntries("\(run)/tablespaces").isEmpty)
    let pid = try #require(
      String(contentsOfFile: "\(run)/pg/postmaster.pid", encoding: .utf8).split(separator: "\n").first.flatMap {
        pid_t($0)
      })
    let owner = try FileManager.default.attributesOfItem(atPath: "/proc/\(pid)")[.ownerAccountName] as? String
    #expect(owner == "postgres")

    let html = "\(root)/drill.html"
    let whole = try drill(["--html", html])
    try #require(whole.succeeded, "\(whole.errorText)\n\(whole.outputText)")
    #expect(FileManager.default.fileExists(atPath: html))
    // Its parent was killed: it is gone once init has taken note.
    #expect(try eventually { kill(pid, 0) != 0 })
    #expect(try directoryEntries("\(root)/state/drill").sorted() == ["lock", "tidemark-drill"])
    let left = try ChildProcess.run("pgrep", ["-f", run])
    #expect(left.outputText == "")
    // What root left in the state directory and in the regions stands in nobody's way.
    for place in ["state", "west", "east"] {
      let ofRoot = try ChildProcess.run("find", ["\(root)/\(place)", "-user", "root"])
      #expect(ofRoot.outputText == "", "\(ofRoot.outputText)")
    }
    _ = try installation.json(["drill"])
    _ = try installation.json(["backup"])
    #expect(try server.psql("SELECT count(*) FROM placed") == "500")
  }
}
