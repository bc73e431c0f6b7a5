// Sending a command and waiting for its results, without ever blocking in libpq.
// After a lost connection, silence or a signal the connection is closed: it can't be used again.
import CLibpq
import Diagnostics
import Glibc
import SystemSupport

/// The rows of a query, in text form.
package struct QueryRows: Sendable {
  package let columns: [String]
  /// `nil` stands for NULL.
  package let rows: [[String?]]

  /// The first row's first column.
  package var scalar: String? { rows.first?.first ?? nil }
}

extension PostgresConnection {
  /// Runs one SQL command and returns its rows. `parameters` stand for $1, $2 …; a replication connection takes none.
  /// - Parameter silenceLimit: how long the server may be busy with it; the connection's own limit unless given.
  /// - Throws: ``ErrorCode/serverRefused`` for a missing privilege, ``ErrorCode/serverFailed`` and others by SQLSTATE,
  ///   ``ErrorCode/serverUnreachable`` when the connection is lost, ``ErrorCode/serverSilent``,
  ///   ``ErrorCode/interrupted``.
  package func query(
    _ sql: String, _ parameters: [String?] = [], silenceLimit: Duration? = nil
  ) throws(TidemarkError) -> QueryRows {
    try send(sql, parameters)
    let limit = silenceLimit ?? self.silenceLimit
    var rows = QueryRows(columns: [], rows: [])
    var failure: TidemarkError?
    while let result = try nextResult(limit: limit) {
      switch result.status {
      case PGRES_TUPLES_OK: rows = result.rows()
      case PGRES_COMMAND_OK, PGRES_EMPTY_QUERY: break
      case PGRES_FATAL_ERROR: failure = failure ?? error(result.message, "the server refused a command")
      default:
        close()
        throw TidemarkError(
          .streamInvalid, "the server's answer to a command is of an unexpected kind", object: serverName,
          cause: string(libpq.PQresStatus(result.status)))
      }
    }
    if let failure { throw failure }
    return rows
  }

  /// Runs one SQL command whose rows, if any, don't matter.
  package func execute(
    _ sql: String, _ parameters: [String?] = [], silenceLimit: Duration? = nil
  ) throws(TidemarkError) {
    _ = try query(sql, parameters, silenceLimit: silenceLimit)
  }

  /// Asks the server to end what it is doing, as a signal to its process; the connection stays open, and the command
  /// ends with an error soon if the server heeds it. Returns when the request is delivered, or after `limit`.
  ///
  /// libpq's request blocks without a limit when the postmaster doesn't answer. So it runs on a thread of its own,
  /// which then outlives this call; it owns all that it touches.
  package func cancel(limit: Duration = .seconds(3)) {
    guard let handle, let request = libpq.PQgetCancel(handle) else { return }
    let pending = CancelRequest(request)
    let delivered = Condition()
    let ticket = delivered.ticket()
    _ = WorkerThread("cancel") {
      pending.deliver()
      delivered.signal()
    }
    delivered.wait(ticket, until: .after(limit))
  }

  /// The error for `message` of this server.
  func error(_ message: ServerMessage, _ summary: String) -> TidemarkError {
    message.error(summary, object: serverName, purpose: purpose, user: user)
  }

  // MARK: The protocol's steps

  /// PQsendQuery: the simple protocol unless there are parameters, since a walsender knows no other.
  func send(_ sql: String, _ parameters: [String?] = []) throws(TidemarkError) {
    let handle = try open()
    let sent: Int32
    if parameters.isEmpty {
      sent = libpq.PQsendQuery(handle, sql)
    } else {
      let values = parameters.map { $0.map { Array($0.utf8CString) } }
      sent = withPointers(to: values) {
        libpq.PQsendQueryParams(handle, sql, Int32(values.count), nil, $0, nil, nil, 0)
      }
    }
    guard sent == 1 else { throw connectionLost() }
    let deadline = Deadline.after(silenceLimit)
    while true {
      let left = libpq.PQflush(handle)
      if left == 0 { return }
      if left < 0 { throw connectionLost() }
      _ = try waitForSocket(POLLIN | POLLOUT, until: deadline, limit: silenceLimit)
      guard libpq.PQconsumeInput(handle) == 1 else { throw connectionLost() }
    }
  }

  /// The next result of the command that was sent, or `nil` after its last.
  func nextResult(limit: Duration) throws(TidemarkError) -> ServerResult? {
    let handle = try open()
    var deadline = Deadline.after(limit)
    while libpq.PQisBusy(handle) == 1 {
      if try awaitInput(until: deadline, limit: limit) { deadline = .after(limit) }
    }
    return libpq.PQgetResult(handle).map { ServerResult($0) }
  }

  /// Waits for bytes of the server, a tenth of a second at most, and gives them to libpq. Returns whether some came.
  ///
  /// libpq is asked to read even if the socket has nothing: what TLS has already decrypted doesn't show in poll(2).
  func awaitInput(until deadline: Deadline, limit: Duration) throws(TidemarkError) -> Bool {
    let handle = try open()
    let isReady = try StageMeter.waitingForInput(inputMeter) { () throws(TidemarkError) in
      try waitForSocket(POLLIN, until: deadline, limit: limit)
    }
    guard libpq.PQconsumeInput(handle) == 1 else { throw connectionLost() }
    return isReady
  }

  private func waitForSocket(_ events: Int32, until deadline: Deadline, limit: Duration) throws(TidemarkError) -> Bool {
    let handle = try open()
    if let signal = Termination.requested {
      abandon()
      throw TidemarkError(.interrupted, "ended by signal \(signal)")
    }
    if pollSocket(libpq.PQsocket(handle), events, until: deadline) { return true }
    if deadline.hasPassed {
      abandon()
      throw TidemarkError(
        .serverSilent, "the server has said nothing for too long", object: serverName,
        cause: "no byte within \(limit.seconds) s",
        next: "see what server process \(serverProcess) is doing or waiting for, and whether its host is reachable")
    }
    return false
  }

  /// Ends the command and the session: the request to cancel reaches a process that waits for something else than this
  /// connection, the closed connection one that is sending.
  package func abandon() {
    guard let handle else { return }
    if libpq.PQtransactionStatus(handle) == PQTRANS_ACTIVE { cancel() }
    close()
  }

  func open() throws(TidemarkError) -> OpaquePointer {
    guard let handle else {
      throw TidemarkError(.serverUnreachable, "the connection is closed", object: serverName)
    }
    return handle
  }

  /// Closes the connection and returns the error: what the server said at last if it said something (an administrator
  /// ended it, it crashed), else libpq's words.
  func connectionLost() -> TidemarkError {
    guard let handle else { return TidemarkError(.serverUnreachable, "the connection is closed", object: serverName) }
    var text = string(libpq.PQerrorMessage(handle)) ?? ""
    // The socket is gone, so these calls only look at what had arrived before; a few are enough to reach an error.
    for _ in 0..<8 where libpq.PQstatus(handle) == CONNECTION_BAD {
      guard let result = libpq.PQgetResult(handle).map({ ServerResult($0) }) else { break }
      if !text.contains(result.text) { text += "\n" + result.text }
    }
    let lost =
      if let report = ServerMessage(libraryText: text) {
        error(report, "the server ended the connection")
      } else {
        TidemarkError(
          .serverUnreachable, "the connection to the server was lost", object: serverName, cause: oneLine(text))
      }
    close()
    return lost
  }

  private func withPointers<Result>(
    to values: [[CChar]?], _ body: ([UnsafePointer<CChar>?]) -> Result
  ) -> Result {
    let copies = values.map { value in
      value.map { characters in
        let copy = UnsafeMutablePointer<CChar>.allocate(capacity: characters.count)
        copy.initialize(from: characters, count: characters.count)
        return copy
      }
    }
    defer { for copy in copies { copy?.deallocate() } }
    return body(copies.map { UnsafePointer($0) })
  }
}

/// A request to cancel, freed when it is delivered or dropped.
private final class CancelRequest: @unchecked Sendable {
  // Only the thread that delivers it uses the pointer, and libpq lets PQcancel be called from any thread.
  private let pointer: OpaquePointer
  init(_ pointer: OpaquePointer) { self.pointer = pointer }
  deinit { libpq.PQfreeCancel(pointer) }

  func deliver() {
    var reason = [CChar](repeating: 0, count: 256)
    _ = libpq.PQcancel(pointer, &reason, Int32(reason.count))
  }
}
