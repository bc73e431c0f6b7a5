// A base backup over the replication protocol: sends BASE_BACKUP and hands over what comes, without copying it.
// A stream that is silent, breaks the protocol, is interrupted or refused by its handler is cancelled and its
// connection closed, so that the server ends the backup; only ``BaseBackupEvent/finished(_:)`` makes a backup complete.
import CLibpq
import Diagnostics
import SystemSupport

/// The stream of one base backup of PostgreSQL 15 to 18.
///
/// It needs a role with the attribute REPLICATION, a line of pg_hba.conf for the database 'replication', and one of the
/// server's `max_wal_senders`.
package struct BaseBackupStream {
  private let connection: PostgresConnection
  private let options: BaseBackupOptions

  /// - Parameter connection: one for replication, with nothing running. Warnings of the server, such as the file and
  ///   block of a checksum failure, go to its ``PostgresConnection/noticeHandler``.
  package init(_ connection: PostgresConnection, _ options: BaseBackupOptions) {
    precondition(connection.purpose == .replication, "BASE_BACKUP is a command of the replication protocol")
    self.connection = connection
    self.options = options
  }

  /// Takes the backup: calls `handle` for each event, in order, on this thread, until the backup is finished. While
  /// `handle` runs, nothing is read and the server waits; that isn't silence.
  ///
  /// The connection can be used again only after success.
  /// - Throws: ``ErrorCode/serverRefused``, ``ErrorCode/serverUnsuitable`` (`wal_level`, `max_wal_senders`),
  ///   ``ErrorCode/serverUnreachable``, ``ErrorCode/serverFailed``, ``ErrorCode/serverSilent``,
  ///   ``ErrorCode/streamInvalid``, ``ErrorCode/interrupted``, and what `handle` throws.
  package func run(_ handle: (BaseBackupEvent) throws -> Void) throws(TidemarkError) {
    do {
      try exchange { (event) throws(TidemarkError) in
        do { try handle(event) } catch { throw TidemarkError.wrapping(error) }
      }
    } catch {
      connection.abandon()
      throw error.with(object: connection.serverName)
    }
  }

  private func exchange(_ handle: (BaseBackupEvent) throws(TidemarkError) -> Void) throws(TidemarkError) {
    var state = BaseBackupProtocol()
    func advance(_ input: BaseBackupProtocol.Input) throws(TidemarkError) {
      let event = try state.receive(input) { connection.error($0, "the server refused or broke off the base backup") }
      if let event { try handle(event) }
    }

    try connection.send(options.command())
    while !state.hasEnded {
      let limit = state.hasStarted ? options.silenceLimit : options.startLimit
      guard let result = try connection.nextResult(limit: limit) else {
        try advance(.end)
        continue
      }
      switch result.status {
      case PGRES_TUPLES_OK: try advance(.rows(result.rows()))
      case PGRES_COMMAND_OK: try advance(.commandComplete)
      case PGRES_FATAL_ERROR: try advance(.error(result.message))
      case PGRES_COPY_OUT:
        try advance(.copyOut)
        try copy(advance)
      default:
        throw TidemarkError(
          .streamInvalid, "the base backup's stream breaks the protocol",
          cause: string(libpq.PQresStatus(result.status)))
      }
    }
  }

  /// Takes all messages of the copy. Between two waits every complete message is handled; a message lives in the
  /// buffer that libpq made for it until then.
  private func copy(_ advance: (BaseBackupProtocol.Input) throws(TidemarkError) -> Void) throws(TidemarkError) {
    var deadline = Deadline.after(options.silenceLimit)
    while true {
      var message: UnsafeMutablePointer<CChar>?
      let count = try libpq.PQgetCopyData(connection.open(), &message, 1)
      switch count {
      case 1...:
        defer { libpq.PQfreemem(message) }
        try Termination.check()
        try advance(.copyData(UnsafeRawBufferPointer(start: message, count: Int(count))))
        deadline = .after(options.silenceLimit)
      case 0:
        if try connection.awaitInput(until: deadline, limit: options.silenceLimit) {
          deadline = .after(options.silenceLimit)
        }
      case -1:
        try advance(.copyDone)
        return
      default:
        throw connection.connectionLost()
      }
    }
  }
}
