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
    func attempt(_ name: String, _ subject: String, next: String, _ body: () throws -> String) {
      do { note("ok", name, subject, try body()) } catch {
        let error = TidemarkError.wrapping(error)
        note("finding", name, subject, error.description, next: error.next ?? next)
      }
    }
    for region in repository.regions.regions {
      attempt("region", region.name, next: "check this region's endpoint, bucket and credentials") {
        try probe(repository, region)
      }
      checkPermissions(repository, region, isCreateOnly: context.configuration.repository.createOnly, note)
      if let offset = region.store.clockOffset, abs(offset.seconds) > 60 {
        note(
          "finding", "clock", region.name, "the store's clock differs by \(Int(offset.seconds)) s",
          next: "synchronize this host's clock: signatures fail at 15 minutes")
      }
    }
    attempt("keys", "writer", next: "tidemark init") { "signs as \(try repository.writer().publicKey.id)" }
    if repository.keys.recipients.isEmpty {
      note(
        "finding", "keys", "recipients", "there is none to seal to",
        next: "set encryption.recipients, or encryption.identity-file and run 'tidemark init'")
    }
    if repository.keys.identities.isEmpty {
      note(
        "remark", "keys", "identity", "this host can't open backups",
        next: "restore on a host that has the identity")
    }
    for path in context.configuration.attachments {
      attempt("attachment", path, next: "make it readable for this user, or take it out of 'attachments'") {
        "\(try readFile(path).count) bytes"
      }
    }
    let debts = try repository.regions.debts.debts()
    if !debts.isEmpty {
      note("finding", "debts", "\(debts.count)", "regions lack objects that others hold", next: "tidemark sync")
    }
    var server: ServerInspection?
    let connectionHelp = "check postgres.connection; the role needs LOGIN, REPLICATION and pg_monitor"
    attempt("server", "connection", next: connectionHelp) {
      let inspection = try ServerInspection(reading: PostgresConnection(try context.connection), includesSizes: false)
      server = inspection
      return "PostgreSQL \(inspection.versionText), system identifier \(inspection.systemIdentifier)"
    }
    if let server {
      checkSettings(server, context, note)
      if server.archiveMode != "off", !server.isInRecovery {
        attempt("wal", "archiving", next: "look for errors of archive_command in the server's log") {
          try walPath(context, repository, server, note)
        }
      }
      attempt("backups", "recoverability", next: "tidemark list") {
        try checkBackups(repository, repository.layout.lineage(server.systemIdentifier), note)
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

  private typealias Note = (_ status: String, _ name: String, _ subject: String, _ detail: String, _ next: String?) ->
    Void

  private func checkSettings(_ server: ServerInspection, _ context: CommandContext, _ note: Note) {
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
    if server.archiver.isFailing {
      note(
        "finding", "server", "archiver", "the last attempt failed, on \(server.archiver.lastFailedName ?? "a file")",
        "look for errors of archive_command in the server's log")
    }
    if let rpo = context.configuration.objectives.rpo, server.archiveMode != "off",
      let timeout = server.setting("archive_timeout").flatMap({ Int($0) }),
      timeout == 0 || Double(timeout) > rpo.seconds
    {
      note(
        "remark", "server", "archive_timeout",
        timeout == 0 ? "is off: a quiet server's last changes stay on it alone" : "is longer than objectives.rpo",
        "set archive_timeout = \(max(1, Int(rpo.seconds)))s")
    }
    if let most = server.walSendersMax, server.walSendersInUse >= most {
      note("finding", "server", "max_wal_senders", "all \(most) are in use", "raise max_wal_senders")
    }
    if !server.hasDataChecksums {
      note("remark", "server", "data_checksums", "are off, so damaged pages go unseen", "pg_checksums --enable")
    }
  }

  /// What could be restored now.
  private func checkBackups(
    _ repository: Repository, _ layout: LineageLayout, _ note: Note
  ) throws -> String {
    let catalog = try repository.catalog(layout)
    if let finding = NewestBackupMemory(repository, layout).finding(catalog) {
      note(
        "finding", "backups", "deleted", finding, "find out who can delete in the regions; then 'tidemark backup'")
    }
    for unusable in catalog.unusable {
      note(
        "finding", "backups", "unusable", "\(unusable.name): \(unusable.error.description)",
        "tidemark sync, then 'tidemark list'")
    }
    guard let newest = catalog.backups.last, let size = WALSegmentSize(byteCount: newest.manifest.walSegmentSize)
    else {
      note("remark", "backups", "newest", "there is no backup yet", "tidemark backup")
      return "nothing can be restored yet"
    }
    if let suspect = newest.manifest.suspect {
      note(
        "finding", "backups", newest.label.text, "the server found damaged pages: \(suspect)",
        "find the damaged relations in the server's log")
    }
    let found = try repository.recoverability(catalog, try repository.walCatalog(layout, segmentSize: size))
    for missing in found.missing {
      note(
        "finding", "wal", "\(missing.first)–\(missing.last)", "is missing: no moment in it can be restored",
        "'tidemark wal-push' it if a server still has it in pg_wal; else take a new backup")
    }
    for backup in found.incomplete {
      note("finding", "backups", backup.label.text, "the WAL that it needs itself isn't whole", "tidemark backup")
    }
    guard let window = found.windows.first(where: \.isNewest) else {
      throw TidemarkError(.walHole, "no backup leads to the newest moment", next: "tidemark backup")
    }
    return "from \(RecoveryTime(microseconds: window.from)) to \(RecoveryTime(microseconds: window.to)), newest backup "
      + newest.label.text
  }

  /// Switches the WAL and waits until the finished segment is in every region. A role that may not do that proves the
  /// way with the segment that was archived last.
  private func walPath(
    _ context: CommandContext, _ repository: Repository, _ server: ServerInspection, _ note: Note
  ) throws -> String {
    let connection = try PostgresConnection(try context.connection)
    var name: String?
    do throws(TidemarkError) {
      _ = try connection.query("SELECT pg_create_restore_point('tidemark-check')")
      name = try connection.query("SELECT pg_walfile_name(pg_switch_wal())").scalar
    } catch {
      guard error.code == .serverRefused else { throw error }
      note(
        "remark", "server", "role",
        "\(server.role.name) may not finish a WAL segment: the last archived one is examined",
        "GRANT EXECUTE ON FUNCTION pg_switch_wal(), pg_create_restore_point(text) TO \(server.role.name)")
      name = server.archiver.lastArchivedName
    }
    guard let name else {
      throw TidemarkError(
        .walNotArchived, "nothing was archived yet", next: "look for errors of archive_command in the server's log")
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
