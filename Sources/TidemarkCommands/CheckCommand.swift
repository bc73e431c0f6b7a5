// `check`: proves the whole path end to end and says what is wrong. Findings end with status 1; remarks don't.
import ArgumentParser
import BackupRepository
import Diagnostics
import Foundation
import ObjectStorage
import PostgresFormats
import PostgresReplication
import SystemSupport

struct CheckCommand: TidemarkCommand {
  static let configuration = CommandConfiguration(
    commandName: "check", abstract: "Prove every region, the server, and the way of WAL into each region.")
  @OptionGroup var global: GlobalOptions
  @Option(help: "Seconds that a WAL segment may take to reach every region.") var timeout = 60

  struct Check: Codable {
    var name: String
    var subject: String
    /// ok, remark or finding
    var status: String
    var detail: String
    var next: String?
  }
  struct Report: Codable {
    var ok: Bool
    var checks: [Check]
  }

  func execute() throws(TidemarkError) -> Int32 {
    let context = try CommandContext(global)
    let repository = try context.repository()
    var checks: [Check] = []
    func note(_ status: String, _ name: String, _ subject: String, _ detail: String, next: String? = nil) {
      checks.append(Check(name: name, subject: subject, status: status, detail: detail, next: next))
    }
    func attempt(_ name: String, _ subject: String, _ body: () throws -> String) {
      do { note("ok", name, subject, try body()) } catch {
        let error = TidemarkError.wrapping(error)
        note("finding", name, subject, error.description, next: error.next)
      }
    }
    for region in repository.regions.regions {
      attempt("region", region.name) { try probe(repository, region) }
      checkPermissions(repository, region, isCreateOnly: context.configuration.repository.createOnly, note)
      if let offset = region.store.clockOffset, abs(offset.seconds) > 60 {
        note(
          "finding", "clock", region.name, "the store's clock differs by \(Int(offset.seconds)) s",
          next: "synchronize this host's clock: signatures fail at 15 minutes")
      }
    }
    attempt("keys", "writer") { "signs as \(try repository.writer().publicKey.id)" }
    if repository.keys.recipients.isEmpty {
      note("finding", "keys", "recipients", "there is none to seal to", next: "set encryption.recipients")
    }
    if repository.keys.identities.isEmpty {
      note("remark", "keys", "identity", "this host can't open backups; restores need the identity elsewhere")
    }
    for path in context.configuration.attachments {
      attempt("attachment", path) { "\(try readFile(path).count) bytes" }
    }
    let debts = try repository.regions.debts.debts()
    if !debts.isEmpty {
      note("finding", "debts", "\(debts.count)", "regions lack objects that others hold", next: "tidemark sync")
    }
    var server: ServerInspection?
    attempt("server", "connection") {
      let inspection = try ServerInspection(reading: PostgresConnection(try context.connection), includesSizes: false)
      server = inspection
      return "PostgreSQL \(inspection.versionText), system identifier \(inspection.systemIdentifier)"
    }
    if let server {
      checkSettings(server, note)
      if server.archiveMode == "on", !server.isInRecovery {
        attempt("wal", "archiving") { try walPath(context, repository, server) }
      }
      let layout = repository.layout.lineage(server.systemIdentifier)
      attempt("backups", "newest") {
        let catalog = try repository.catalog(layout)
        if let finding = NewestBackupMemory(repository, layout).finding(catalog) {
          note(
            "finding", "backups", "deleted", finding,
            next: "find out who can delete in the regions; then 'tidemark backup'")
        }
        guard let newest = catalog.backups.last else { return "" }
        return "\(newest.label), \(isoTime(newest.manifest.stopTime))"
      }
      if let index = checks.firstIndex(where: { $0.name == "backups" && $0.detail.isEmpty }) {
        checks[index].status = "remark"
        checks[index].detail = "there is no backup yet"
        checks[index].next = "tidemark backup"
      }
    }
    let report = Report(ok: !checks.contains { $0.status == "finding" }, checks: checks)
    try context.print(report) {
      report.checks.map { check in
        "\(check.status.padding(toLength: 8, withPad: " ", startingAt: 0)) \(check.name) \(check.subject): \(check.detail)\n"
          + (check.next.map { "         next: \($0)\n" } ?? "")
      }.joined() + (report.ok ? "all is well\n" : "there are findings\n")
    }
    CommandRecord.current.note(
      findings: checks.filter { $0.status == "finding" }.map { "\($0.name) \($0.subject): \($0.detail)" })
    return report.ok ? 0 : ExitStatus.findings.rawValue
  }

  private func probe(_ repository: Repository, _ region: BackupRepository.Region) throws -> String {
    let deadline = Deadline.after(.seconds(30))
    guard try repository.isMarked(region, deadline: deadline) else {
      throw TidemarkError(.repositoryMissing, "the region isn't marked", next: "tidemark init")
    }
    let key = region.key(repository.layout.probe("\(UInt64.random(in: 0...UInt64.max))"))
    let honours = try region.request { store throws(TidemarkError) in
      try store.honoursConditionalCreation(probe: key, deadline: deadline)
    }
    let bytes = try region.request { store throws(TidemarkError) in
      try store.read(key, range: nil, deadline: deadline)
    }
    var listed = false
    try region.request { store throws(TidemarkError) in
      try store.list(prefix: key.text, startingAfter: nil, deadline: deadline) { object in
        listed = object.key == key && object.byteCount == Int64(bytes.count)
        return false
      }
    }
    guard listed else {
      throw TidemarkError(.storeAnswerInvalid, "the region doesn't list what it holds", object: key.text)
    }
    return
      "writes, reads and lists at \(region.store.location); conditional creation \(honours ? "honoured" : "ignored")"
  }

  private func checkSettings(
    _ server: ServerInspection, _ note: (String, String, String, String, String?) -> Void
  ) {
    if !server.role.hasReplication && !server.role.isSuperuser {
      note(
        "finding", "server", "role", "\(server.role.name) may not replicate",
        "ALTER ROLE \(server.role.name) REPLICATION")
    }
    if server.walLevel == "minimal" {
      note("finding", "server", "wal_level", "is minimal", "set wal_level = replica and restart")
    }
    if server.archiveMode == "off" {
      note("finding", "server", "archive_mode", "is off", "set archive_mode = on and restart")
    } else if let command = server.archiveCommand, !command.contains("wal-push") {
      note("finding", "server", "archive_command", "doesn't call wal-push", "archive_command = 'tidemark wal-push %p'")
    }
    if let most = server.walSendersMax, server.walSendersInUse >= most {
      note("finding", "server", "max_wal_senders", "all \(most) are in use", "raise max_wal_senders")
    }
    if !server.hasDataChecksums {
      note("remark", "server", "data_checksums", "are off, so damaged pages go unseen", "pg_checksums --enable")
    }
  }

  /// Switches the WAL and waits until the finished segment is in every region.
  private func walPath(
    _ context: CommandContext, _ repository: Repository, _ server: ServerInspection
  ) throws -> String {
    let connection = try PostgresConnection(try context.connection)
    _ = try connection.query("SELECT pg_create_restore_point('tidemark-check')")
    guard let name = try connection.query("SELECT pg_walfile_name(pg_switch_wal())").scalar else {
      throw TidemarkError(.serverRefused, "the server doesn't name its WAL segment")
    }
    let object = repository.layout.lineage(server.systemIdentifier).wal(try WALFileName(text: name))
    let deadline = Deadline.after(.seconds(timeout))
    var lacking = repository.regions.regions
    while true {
      try Termination.check()
      var still: [BackupRepository.Region] = []
      for region in lacking {
        let found = try region.request { store throws(TidemarkError) in
          try store.information(region.key(object), deadline: .after(.seconds(10)))
        }
        if found == nil { still.append(region) }
      }
      lacking = still
      if lacking.isEmpty { return "segment \(name) reached every region" }
      if deadline.hasPassed {
        throw TidemarkError(
          .walNotArchived, "the segment isn't in \(lacking.map(\.name).joined(separator: ", ")) after \(timeout) s",
          object: name, next: "look for errors of archive_command in the server's log")
      }
      usleep(100_000)
    }
  }
}
