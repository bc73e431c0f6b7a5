// What runs leave for monitoring: metrics of each command, and notifications when something fails and when it is well
// again. Neither changes what the command itself ends with.
import Foundation
import SystemSupport
import TestSupport
import Testing

@Suite("Monitoring")
struct MonitoringTests {
  private func configure(_ installation: Installation, _ lines: String) throws {
    let kept = try String(contentsOfFile: installation.configuration, encoding: .utf8)
    try DurableFile.write(Array((kept + lines + "\n").utf8), to: installation.configuration, mode: 0o644)
    try PostgresServer.give(installation.configuration)
  }

  private func directory(_ name: String, _ installation: Installation) throws -> String {
    let path = "\(installation.root)/\(name)"
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    try PostgresServer.give(path)
    return path
  }

  /// The value of the line that begins with `sample`.
  private func value(_ sample: String, _ file: String) throws -> Double? {
    let text = try String(contentsOfFile: file, encoding: .utf8)
    return text.split(separator: "\n").first { $0.hasPrefix(sample + " ") }
      .flatMap { Double($0.dropFirst(sample.count + 1)) }
  }

  @Test("commands leave metrics, keep the last success through failures, and count debts")
  func metrics() throws {
    let installation = try Installation(.v15, usesS3: false, degradeAfter: "1s")
    let root = installation.root
    let metrics = try directory("metrics", installation)
    try configure(installation, "metrics: {textfile-directory: \(metrics)}")
    func file(_ command: String) -> String { "\(metrics)/tidemark_crm_\(command).prom" }
    try installation.archiveWAL()
    let pushes = try #require(try value("tidemark_wal_push_files_total{cluster=\"crm\"}", file("wal-push")))
    #expect(pushes >= 1)
    _ = try installation.json(["backup"])
    let own = "{cluster=\"crm\",command=\"backup\"}"
    #expect(try value("tidemark_command_last_exit_status\(own)", file("backup")) == 0)
    let success = try value("tidemark_backup_last_success_timestamp_seconds{cluster=\"crm\"}", file("backup"))
    #expect((success ?? 0) > 1_700_000_000)
    #expect((try value("tidemark_backup_bytes{cluster=\"crm\"}", file("backup")) ?? 0) > 1_000_000)
    for region in ["west", "east"] {
      let labels = "{cluster=\"crm\",command=\"backup\",region=\"\(region)\"}"
      #expect((try value("tidemark_region_bytes\(labels)", file("backup")) ?? 0) > 100_000)
      #expect(try value("tidemark_debts{cluster=\"crm\",region=\"\(region)\"}", file("state")) == 0)
    }
    #expect(try value("tidemark_objective_rto_seconds{cluster=\"crm\"}", file("state")) == 300)

    // A backup that fails says so and doesn't hide the last good one.
    try installation.server.stop(.fast)
    #expect(!(try installation.run(["backup"]).succeeded))
    #expect(try value("tidemark_command_last_exit_status\(own)", file("backup")) == 69)
    #expect(try value("tidemark_backup_last_success_timestamp_seconds{cluster=\"crm\"}", file("backup")) == success)
    let errors = "{cluster=\"crm\",command=\"backup\",result=\"error\"}"
    #expect(try value("tidemark_command_runs_total\(errors)", file("backup")) == 1)
    try installation.server.start()

    // A region is away: the push counts what it lacks.
    try FileManager.default.moveItem(atPath: "\(root)/east", toPath: "\(root)/away")
    try installation.archiveWAL()
    #expect((try value("tidemark_debts{cluster=\"crm\",region=\"east\"}", file("state")) ?? 0) > 0)
    #expect((try value("tidemark_region_failing_seconds{cluster=\"crm\",region=\"east\"}", file("state")) ?? 0) > 0)
    try FileManager.default.moveItem(atPath: "\(root)/away", toPath: "\(root)/east")
    _ = try installation.json(["sync"])
    #expect(try value("tidemark_debts{cluster=\"crm\",region=\"east\"}", file("state")) == 0)

    // Without the directory everything goes on.
    try FileManager.default.removeItem(atPath: metrics)
    let outcome = try installation.run(["backup"])
    #expect(outcome.succeeded, "\(outcome.errorText)")
    #expect(outcome.errorText.contains("the metrics can't be written"))
    try installation.archiveWAL()
  }

  @Test("a failure is told once and its end too; a receiver that fails changes nothing but is named")
  func notifications() throws {
    let installation = try Installation(.v15, usesS3: false, degradeAfter: "1s")
    let root = installation.root
    let inbox = try directory("inbox", installation)
    let script = "\(root)/page"
    try DurableFile.write(
      Array("#!/bin/sh\ncat >> \"$1/messages\"; echo >> \"$1/messages\"\n".utf8), to: script, mode: 0o755)
    try PostgresServer.give(script)
    let closed = try LoopbackPort.free()
    let address = "\(root)/address"
    try DurableFile.write(Array("http://127.0.0.1:\(closed)/a-secret-path\n".utf8), to: address)
    try PostgresServer.give(address)
    try configure(
      installation,
      """
      notifications:
        - {name: pager, command: \(script), arguments: [\(inbox)]}
        - {name: chat, url-file: \(address), events: [backup-failed, message], retry-for: 200ms}
      """)
    func messages() throws -> [String] {
      let text = (try? String(contentsOfFile: "\(inbox)/messages", encoding: .utf8)) ?? ""
      return try text.split(separator: "\n").map { line in
        let document = try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any]
        return "\(document?["event"] ?? "") \(document?["state"] ?? "")"
      }
    }
    try installation.server.stop(.fast)
    let failed = try installation.run(["backup"])
    #expect(failed.ending == .exited(69))
    #expect(failed.errorText.contains("wasn't delivered") && failed.errorText.contains("chat"), "\(failed.errorText)")
    #expect(!failed.errorText.contains("a-secret-path"))
    #expect(!(try installation.run(["backup"]).succeeded))
    #expect(try messages() == ["backup-failed firing"])
    try installation.server.start()
    #expect(try installation.run(["backup"]).succeeded)
    #expect(try messages() == ["backup-failed firing", "backup-failed resolved"])

    try FileManager.default.moveItem(atPath: "\(root)/east", toPath: "\(root)/away")
    try installation.archiveWAL()
    #expect(try eventually(.seconds(20)) { try messages().contains("debts firing") })
    try FileManager.default.moveItem(atPath: "\(root)/away", toPath: "\(root)/east")
    _ = try installation.json(["sync"])
    #expect(try messages().contains("debts resolved"))

    let told = try installation.run(["--json", "notify", "hello"])
    #expect(told.ending == .exited(1))
    #expect(told.outputText.contains("\"delivered\" : true") && told.outputText.contains("\"delivered\" : false"))
    #expect(!(told.outputText + told.errorText).contains("a-secret-path"))
    #expect(try messages().last == "message firing")
  }
}
