// Drills on a real server: what passes, what is found, what is refused, and that nothing is left behind or touched.
import Foundation
import SystemSupport
import TestSupport
import Testing

@Suite("Drills", .serialized)
struct DrillTests {
  private static let policy = """
    assertions:
      - {name: leads are there, database: postgres, query: SELECT count(*) FROM leads_contact_info, expectation: {at-least: 1000}}
      - name: communications belong to a lead
        database: postgres
        query: |
          SELECT count(*) FROM communications c
          LEFT JOIN leads_contact_info l ON l.id = c.lead_id WHERE l.id IS NULL
        expectation: {equals: 0}
      - {name: addresses, database: postgres, query: SELECT email FROM leads_contact_info LIMIT 1, expectation: {matches: "^[^@]+@example"}}
      - {name: a campaign is named, database: postgres, query: SELECT name FROM campaigns, expectation: {not-empty: true}}
      - {name: few campaigns, database: postgres, query: SELECT count(*) FROM campaigns, expectation: {at-most: 1}, severity: remark}

    """
  private static let tables = [
    "CREATE TABLE leads_contact_info (id int PRIMARY KEY, email text)",
    "INSERT INTO leads_contact_info SELECT g, 'lead-' || g || '@example.org' FROM generate_series(1, 2000) g",
    "CREATE TABLE communications (id int PRIMARY KEY, lead_id int, body text)",
    "INSERT INTO communications SELECT g, 1 + g % 2000, 'hello' FROM generate_series(1, 3000) g",
    "CREATE TABLE campaigns (id int PRIMARY KEY, name text)",
    "INSERT INTO campaigns VALUES (1, 'spring'), (2, 'autumn')",
  ]

  /// An installation with the CRM's tables and lenient objectives.
  private func crm(_ version: PostgresVersion) throws -> Installation {
    let installation = try Installation(version, usesS3: false)
    for sql in Self.tables { try installation.server.psql(sql) }
    try configure(installation, "drill: {memory: 128MiB}") { $0.replacing("rpo: 30s", with: "rpo: 1h") }
    return installation
  }

  private func configure(
    _ installation: Installation, _ lines: String, _ change: (String) -> String = { $0 }
  ) throws {
    let kept = try String(contentsOfFile: installation.configuration, encoding: .utf8).split(separator: "\n")
      .filter { !$0.hasPrefix("drill:") }.joined(separator: "\n")
    try DurableFile.write(
      Array((change(kept) + "\n" + lines + "\n").utf8), to: installation.configuration, mode: 0o644)
    try PostgresServer.give(installation.configuration)
  }

  private func write(_ text: String, _ name: String, _ installation: Installation) throws -> String {
    let path = "\(installation.root)/\(name)"
    try DurableFile.write(Array(text.utf8), to: path, mode: 0o644)
    try PostgresServer.give(path)
    return path
  }

  /// Runs a drill that may end with findings.
  private func drill(
    _ installation: Installation, _ arguments: [String] = [], status: Int32 = 0
  ) throws -> [[String: Any]] {
    let outcome = try installation.run(["--json", "drill"] + arguments)
    try #require(outcome.ending == .exited(status), "\(outcome.errorText)\n\(outcome.outputText)")
    let document = try JSONSerialization.jsonObject(with: Data(outcome.output)) as? [String: Any]
    #expect(document?["ok"] as? Bool == (status == 0))
    // Whatever the outcome, nothing but the mark and the lock is left.
    let left = try directoryEntries("\(installation.root)/state/drill").sorted()
    #expect(left == ["lock", "tidemark-drill"])
    return try #require(document?["drills"] as? [[String: Any]])
  }

  private func outcomes(_ report: [String: Any], _ key: String) -> [String: String] {
    let list = report[key] as? [[String: Any]] ?? []
    return Dictionary(
      list.map { ("\($0["name"] ?? "")", "\($0["outcome"] ?? "")") }, uniquingKeysWith: { first, _ in first })
  }

  /// What lies in a directory, with contents.
  private func state(_ directory: String) throws -> String {
    let list = try ChildProcess.run(
      "/bin/sh", ["-c", "find \"$1\" -type f -exec md5sum {} + | sort -k2", "sh", directory])
    return list.outputText
  }

  @Test("a drill restores, proves, measures, reports and leaves nothing", arguments: PostgresVersion.allAvailable)
  func passes(_ version: PostgresVersion) throws {
    let installation = try crm(version)
    let (server, root) = (installation.server, installation.root)
    // What the restored files say must neither lead the copy to the live places nor open it.
    let livePID = try write("not yours\n", "live.pid", installation)
    let conf = "\(server.dataDirectory)/postgresql.conf"
    let hostile =
      "\ndata_directory = '\(server.dataDirectory)'\nexternal_pid_file = '\(livePID)'\nlisten_addresses = '127.0.0.1'\nlogging_collector = on\n"
    try DurableFile.write(readFile(conf) + Array(hostile.utf8), to: conf)
    try PostgresServer.give(conf)
    let tablespace = "\(root)/space"
    try FileManager.default.createDirectory(atPath: tablespace, withIntermediateDirectories: true)
    try PostgresServer.give(tablespace)
    try server.psql("CREATE TABLESPACE space LOCATION '\(tablespace)'")
    try server.psql("CREATE TABLE placed (id int PRIMARY KEY) TABLESPACE space")
    try server.psql("INSERT INTO placed SELECT generate_series(1, 500)")
    _ = try installation.json(["backup"])
    try server.psql("INSERT INTO campaigns VALUES (3, 'late')")
    try installation.archiveWAL()
    try server.psql("CHECKPOINT")
    let live = try state(tablespace)

    let policy = try write(Self.policy, "policy.yaml", installation)
    let html = "\(root)/state/report.html"
    let report = try drill(installation, ["--policy", policy, "--html", html])[0]
    let phases = (report["phases"] as? [[String: Any]] ?? []).compactMap { $0["name"] as? String }
    #expect(["plan", "files", "start", "replay", "probe"].allSatisfy(phases.contains), "\(phases)")
    #expect(phases.suffix(6) == ["catalogue", "amcheck", "assertions", "stop", "checksums", "cleanup"], "\(phases)")
    let checks = outcomes(report, "checks")
    for name in [
      "isolation", "identity", "databases", "tablespaces", "database opens", "pg_amcheck", "pg_checksums",
    ] { #expect(checks[name] == "passed", "\(name): \(report["checks"] ?? "")") }
    #expect(
      outcomes(report, "assertions") == [
        "leads are there": "passed", "communications belong to a lead": "passed", "addresses": "passed",
        "a campaign is named": "passed", "few campaigns": "failed",
      ])
    #expect(report["findings"] as? [String] == [])
    #expect((report["remarks"] as? [String])?.contains { $0.contains("few campaigns") } == true)
    #expect(report["rtoMet"] as? Bool == true)
    #expect(report["transactionsLost"] as? Int == 0)
    #expect(report["rpoSeconds"] as? Double == 0)
    // The live cluster is as it was.
    #expect(try state(tablespace) == live)
    #expect(try String(contentsOfFile: livePID, encoding: .utf8) == "not yours\n")
    #expect(try server.psql("SELECT count(*) FROM placed") == "500")

    try isEvidence(html)
    try isStored(installation, report)
    if version == .v15 { try compares(installation) }
  }

  /// The page stands by itself: whole, escaped, and with nothing that is loaded or run.
  private func isEvidence(_ path: String) throws {
    let page = try String(contentsOfFile: path, encoding: .utf8)
    for needed in [
      "<svg", "prefers-color-scheme: dark", "@media print", "passed", "pg_amcheck", "communications belong to a lead",
      "LEFT JOIN leads_contact_info", "SHA-256", "Data loss (RPO)",
    ] { #expect(page.contains(needed), "\(needed)") }
    for refused in ["<script", "<link", "src=", "href=", "url(", "@import", "http://", "https://"] {
      #expect(!page.contains(refused), "\(refused)")
    }
    let opened = page.matches(of: /<(section|main|table|svg|tr|td|figure|ul|li|p)[ >]/).count
    let closed = page.matches(of: /<\/(section|main|table|svg|tr|td|figure|ul|li|p)>/).count
    #expect(opened == closed)
  }

  /// Sealed in both regions, listed, and printed as it was signed.
  private func isStored(_ installation: Installation, _ report: [String: Any]) throws {
    let name = try #require(report["name"] as? String)
    for region in ["west", "east"] {
      let found = try ChildProcess.run("find", ["\(installation.root)/\(region)", "-path", "*/drills/\(name)"])
      #expect(found.outputText.split(separator: "\n").count == 1)
      let clear = try ChildProcess.run("grep", ["-rlF", "leads_contact_info", "\(installation.root)/\(region)"])
      #expect(clear.ending == .exited(1), "\(clear.outputText)")
    }
    let list = try installation.json(["drill", "list"])
    let drills = try #require(list["drills"] as? [[String: Any]])
    #expect(drills.map { $0["name"] as? String } == [name])
    #expect((drills[0]["signedBy"] as? String)?.isEmpty == false)
    let again = try installation.json(["drill", "report", name])
    #expect(again["name"] as? String == name)
    #expect((again["rtoSeconds"] as? Double) == (report["rtoSeconds"] as? Double))
    let missing = try installation.run(["drill", "report", "19990101"])
    #expect(missing.errorText.contains("no such drill"))
  }

  /// Each region in turn, compared with itself; a seed chooses its moment again.
  private func compares(_ installation: Installation) throws {
    let first = try drill(installation, ["--each-region"])
    #expect(first.map { $0["region"] as? String } == ["west", "east"])
    for report in first {
      let region = try #require(report["region"] as? String)
      #expect((report["regions"] as? [String: Any])?.keys.sorted() == [region])
      #expect((report["comparison"] as? [String])?.first?.contains("first drill from region \(region)") == true)
      #expect((report["advice"] as? [String])?.first?.contains("The phase") == true)
    }
    let moments = try [0, 1].map { _ in
      try drill(installation, ["--random", "--seed", "42", "--from-region", "west"])[0]
    }
    #expect(moments[0]["target"] as? String == moments[1]["target"] as? String)
    #expect(moments[0]["moment"] as? String == "random")
    #expect(moments[0]["seed"] as? Int == 42)
    let comparison = try #require(moments[1]["comparison"] as? [String])
    #expect(comparison.first?.contains("after") == true, "\(comparison)")
    #expect(comparison.contains { $0.contains("Of 3 drills") }, "\(comparison)")
  }

  @Test("a failing assertion, a broken index, a damaged page and a missed objective are findings")
  func finds() throws {
    let installation = try crm(.v15)
    let server = installation.server
    // An index that lacks a row: nobody kept it while it wasn't ready.
    try server.psql("CREATE INDEX by_email ON leads_contact_info (email)")
    try server.psql("UPDATE pg_index SET indisready = false WHERE indexrelid = 'by_email'::regclass")
    try server.psql("INSERT INTO leads_contact_info VALUES (90000, 'unseen@example.org')")
    try server.psql("UPDATE pg_index SET indisready = true WHERE indexrelid = 'by_email'::regclass")
    try server.psql("CREATE TABLE spoilt AS SELECT g AS id, repeat('x', 100) AS t FROM generate_series(1, 5000) g")
    let file = try server.psql("SELECT pg_relation_filepath('spoilt')")
    try server.psql("CHECKPOINT")
    try server.stop(.fast)
    let handle = try FileHandle(forUpdating: URL(filePath: "\(server.dataDirectory)/\(file)"))
    try handle.seek(toOffset: 3 * 8192 + 4000)
    try handle.write(contentsOf: Data("spoilt".utf8))
    try handle.close()
    try server.start()
    // The server says so, and the backup is kept as suspect.
    let backup = try installation.run(["backup"])
    #expect(backup.ending == .exited(65), "\(backup.errorText)")
    try installation.archiveWAL()
    try configure(installation, "drill: {memory: 128MiB}") { $0.replacing("rto: 5m", with: "rto: 1ms") }

    let policy = try write(
      """
      assertions:
        - {name: too many, database: postgres, query: SELECT count(*) FROM campaigns, expectation: {at-least: 1000}}
        - {name: no table, database: postgres, query: SELECT 1 FROM never_made, expectation: {equals: 1}}
        - {name: writes, database: postgres, query: DELETE FROM campaigns RETURNING 1, expectation: {equals: 1}}
        - {name: slow, database: postgres, query: "SELECT pg_sleep(60), 1", expectation: {not-empty: true}, timeout: 200ms}

      """, "policy.yaml", installation)
    let report = try drill(installation, ["--policy", policy], status: 1)[0]
    let findings = try #require(report["findings"] as? [String])
    func found(_ words: String...) -> Bool { findings.contains { text in words.allSatisfy(text.contains) } }
    #expect(found("pg_amcheck", "by_email", "lacks matching index tuple"), "\(findings)")
    #expect(found("pg_checksums", "checksum verification failed", "block 3"), "\(findings)")
    #expect(found("too many", "at least 1000", "got 2"), "\(findings)")
    #expect(found("no table", "never_made"), "\(findings)")
    #expect(found("writes", "read-only"), "\(findings)")
    #expect(found("slow", "timeout"), "\(findings)")
    #expect(found("RTO", "over the objective"), "\(findings)")
    #expect(report["ok"] as? Bool == false)
    #expect(report["rtoMet"] as? Bool == false)
  }

  @Test("after kill -9 the next drill stops the server that was left and removes its files")
  func killed() throws {
    let installation = try crm(.v15)
    _ = try installation.json(["backup"])
    try installation.archiveWAL()
    let scratch = "\(installation.root)/state/drill"
    let command = PostgresServer.unprivileged(
      "\(installation.root)/tidemark", ["--config", installation.configuration, "drill"])
    var environment = ProcessInfo.processInfo.environment
    environment["TIDEMARK_CRASH_AT"] = "drill.before-proofs"
    let killed = try ChildProcess.run(
      command[0], Array(command.dropFirst()), environment: environment, workingDirectory: "/",
      deadline: .after(.seconds(120)))
    #expect(killed.ending == .signalled(SIGKILL), "\(killed.errorText)")
    let left = try String(contentsOfFile: "\(scratch)/run/pg/postmaster.pid", encoding: .utf8)
    let pid = try #require(left.split(separator: "\n").first.flatMap { pid_t($0) })
    #expect(kill(pid, 0) == 0)
    // The server that was left gets no WAL that nobody looked at.
    let plan = "\(scratch)/run/pg.tidemark/plan.json"
    let planned = try JSONSerialization.jsonObject(with: Data(contentsOf: URL(filePath: plan))) as? [String: Any]
    let leg = try #require((planned?["legs"] as? [[String: Any]])?.first)
    let segment = try #require(leg["firstSegment"] as? String)
    let fetched = try installation.run(["wal-fetch", segment, "\(scratch)/run/pg/pg_wal/RECOVERYXLOG", "--plan", plan])
    #expect(fetched.ending == .exited(201), "\(fetched.errorText)")
    #expect(!FileManager.default.fileExists(atPath: "\(scratch)/run/pg/pg_wal/RECOVERYXLOG"))
    let report = try drill(installation)[0]
    #expect(report["ok"] as? Bool == true)
    #expect(try eventually(.seconds(10)) { kill(pid, 0) != 0 })

    // A second copy at the same time is told so.
    do {
      let lock = try FileLock("\(scratch)/lock", purpose: "the test")
      let second = try installation.run(["drill"])
      #expect(second.ending == .exited(75), "\(second.errorText)")
      withExtendedLifetime(lock) {}
    }

    // A pid file that names a process of somebody else ends nobody: here the live server's.
    let live = try #require(installation.server.pid)
    try FileManager.default.createDirectory(atPath: "\(scratch)/run/pg", withIntermediateDirectories: true)
    try Data("\(live)\n\(scratch)/run/pg\n".utf8).write(to: URL(filePath: "\(scratch)/run/pg/postmaster.pid"))
    try Data().write(to: URL(filePath: "\(scratch)/run/tidemark-drill"))
    try PostgresServer.give(scratch)
    _ = try drill(installation, ["--to-backup-end"])
    #expect(try installation.server.psql("SELECT 1") == "1")
    #expect(installation.server.pid == live)
  }

  @Test("a signal ends a drill, its server and its files")
  func signalled() throws {
    let installation = try crm(.v15)
    _ = try installation.json(["backup"])
    try installation.archiveWAL()
    let policy = try write(
      "assertions:\n  - {name: slow, database: postgres, query: SELECT pg_sleep(300), expectation: {not-empty: true}, timeout: 10m}\n",
      "policy.yaml", installation)
    let log = try write("", "drill.log", installation)
    let command = PostgresServer.unprivileged(
      "\(installation.root)/tidemark", ["--config", installation.configuration, "drill", "--policy", policy])
    let child = try ChildProcess(
      command[0], Array(command.dropFirst()), workingDirectory: "/", input: .null, output: .null, error: .file(log))
    let data = "\(installation.root)/state/drill/run/pg"
    // The assertion is being asked when a backend sleeps.
    let socket = "\(data).tidemark/socket"
    #expect(
      try eventually(.seconds(60)) {
        let port = (try? String(contentsOfFile: "\(data)/postmaster.pid", encoding: .utf8))?.split(separator: "\n")
        guard let port, port.count > 3 else { return false }
        let psql = PostgresServer.unprivileged(
          "\(PostgresVersion.v15.binDirectory)/psql",
          [
            "-XAtq", "-h", socket, "-p", String(port[3]), "-U", "postgres", "-c",
            "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(300)'",
          ])
        let outcome = try ChildProcess.run(psql[0], Array(psql.dropFirst()), workingDirectory: "/")
        return outcome.outputText.hasPrefix("1")
      })
    let pid = try #require(
      String(contentsOfFile: "\(data)/postmaster.pid", encoding: .utf8).split(separator: "\n").first.flatMap {
        pid_t($0)
      })
    child.signal(SIGTERM)
    let ending = try child.wait(until: .after(.seconds(30)))
    let said = try String(contentsOfFile: log, encoding: .utf8)
    #expect(ending == .exited(75), "\(said)")
    #expect(try eventually(.seconds(10)) { kill(pid, 0) != 0 })
    #expect(try directoryEntries("\(installation.root)/state/drill").sorted() == ["lock", "tidemark-drill"])
  }

  @Test("a drill refuses live places, and a tablespace that the WAL would make there")
  func refuses() throws {
    let installation = try crm(.v15)
    let (server, root) = (installation.server, installation.root)
    _ = try installation.json(["backup"])
    try installation.archiveWAL()
    func refuse(_ directory: String, _ code: String, _ status: Int32 = 76, extra: String = "") throws {
      try configure(installation, "drill: {directory: \"\(directory)\"\(extra)}")
      let outcome = try installation.run(["drill"])
      #expect(outcome.ending == .exited(status), "\(directory): \(outcome.errorText)")
      #expect(outcome.errorText.contains("[\(code)]"), "\(directory): \(outcome.errorText)")
    }
    let data = server.dataDirectory
    let before = try directoryEntries(data).sorted()
    try refuse(data, "target-in-use")
    try refuse("\(data)/drill", "target-in-use")
    try FileManager.default.createSymbolicLink(atPath: "\(root)/link", withDestinationPath: data)
    try refuse("\(root)/link/base/drill", "target-in-use")
    try refuse("\(root)/west/drill", "target-in-use")
    try refuse(root, "target-in-use")
    try refuse("\(root)/state", "target-not-empty")
    try refuse("\(root)/" + String(repeating: "d", count: 90), "usage", 64)
    #expect(try directoryEntries(data).sorted() == before)
    // Too little room is said before anything is restored.
    try refuse("\(root)/state/drill", "space-insufficient", extra: ", disk: 1MiB")

    let tablespace = "\(root)/space"
    try FileManager.default.createDirectory(atPath: tablespace, withIntermediateDirectories: true)
    try PostgresServer.give(tablespace)
    try server.psql("CREATE TABLESPACE space LOCATION '\(tablespace)'")
    try server.psql("CREATE TABLE placed TABLESPACE space AS SELECT generate_series(1, 500) AS id")
    try server.psql("CHECKPOINT")
    try refuse("\(tablespace)/drill", "target-in-use")
    try installation.archiveWAL()
    let live = try state(tablespace)
    try configure(installation, "drill: {memory: 128MiB}")
    let report = try drill(installation, status: 1)[0]
    let finding = (report["findings"] as? [String])?.first ?? ""
    #expect(finding.contains("tablespace") && finding.contains(tablespace), "\(finding)")
    #expect((report["failure"] as? [String: Any])?["code"] as? String == "path-unsafe")
    #expect(try state(tablespace) == live)
    #expect(try server.psql("SELECT count(*) FROM placed") == "500")
    // Nor does a restore beside the cluster.
    let copy = try installation.run(["restore", "--target-directory", "\(root)/copy"])
    #expect(copy.ending == .exited(76) && copy.errorText.contains("[path-unsafe]"), "\(copy.errorText)")
    #expect(try state(tablespace) == live)
    // With a backup that knows it, it is remapped.
    _ = try installation.json(["backup"])
    let later = try state(tablespace)
    _ = try drill(installation, ["--to-backup-end"])
    #expect(try state(tablespace) == later)
  }

  @Test("a region that lacks what a restore needs fails its own drill, and the report says so in both")
  func region() throws {
    let installation = try crm(.v15)
    _ = try installation.json(["backup"])
    try installation.archiveWAL()
    let packs = try ChildProcess.run("find", ["\(installation.root)/east", "-path", "*/packs/*", "-type", "f"])
    for path in packs.outputText.split(separator: "\n") { try FileManager.default.removeItem(atPath: String(path)) }
    let reports = try drill(installation, ["--each-region"], status: 1)
    #expect(reports.map { $0["ok"] as? Bool } == [true, false])
    let finding = (reports[1]["findings"] as? [String])?.first ?? ""
    #expect(finding.hasPrefix("The restore failed"), "\(finding)")
    let list = try installation.run(["drill", "list"])
    #expect(list.outputText.contains("FAILED"), "\(list.outputText)")
  }
}
