// A connection to a PostgreSQL server, owned by one thread at a time. Every wait has a limit on silence and looks for
// SIGINT and SIGTERM, so nothing blocks for ever. No password is ever part of a message or an error.
// Name resolution alone blocks inside libpq, for as long as the resolver's own limits allow.
import CLibpq
import Diagnostics
import Glibc
import SystemSupport

/// An open connection. It is closed by ``close()``, or when the last reference goes.
package final class PostgresConnection {
  package typealias NoticeHandler = (ServerMessage) -> Void

  /// How long the server may say nothing while it is expected to answer.
  package let silenceLimit: Duration
  package let purpose: ConnectionInfo.Purpose
  /// The server as messages name it: "server at /var/run/postgresql, port 5432 (user tidemark)".
  package let serverName: String
  package let user: String
  /// As `server_version_num`: 150020.
  package let serverVersion: ServerVersion
  /// The process that serves this connection, as in `pg_stat_activity.pid`.
  package let serverProcess: Int32
  /// Called with each notice and warning, on the thread that uses the connection.
  package var noticeHandler: NoticeHandler?
  /// Counts the time that is spent waiting for the server.
  package var inputMeter: StageMeter?

  /// `nil` once closed.
  private(set) var handle: OpaquePointer?

  /// Connects, trying each host of `info` in order.
  /// - Throws: ``ErrorCode/serverUnreachable``; ``ErrorCode/serverRefused`` (password, pg_hba.conf, role attribute);
  ///   ``ErrorCode/serverUnsuitable`` for a server older than PostgreSQL 15; ``ErrorCode/interrupted``.
  package init(
    _ info: ConnectionInfo, for purpose: ConnectionInfo.Purpose = .queries, silenceLimit: Duration = .seconds(60),
    noticeHandler: NoticeHandler? = nil
  ) throws(TidemarkError) {
    let connected = try Self.connect(info, purpose)
    self.silenceLimit = silenceLimit
    self.purpose = purpose
    self.noticeHandler = noticeHandler
    handle = connected
    serverName = Self.name(connected)
    user = string(libpq.PQuser(connected)) ?? ""
    serverVersion = ServerVersion(number: Int(libpq.PQserverVersion(connected)))
    serverProcess = libpq.PQbackendPID(connected)
    guard serverVersion.major >= ServerVersion.oldestMajor else {
      throw TidemarkError(
        .serverUnsuitable, "PostgreSQL \(serverVersion) is too old", object: serverName,
        cause: "its replication protocol lacks what backups need; PostgreSQL 15 to 18 are supported",
        next: "upgrade the server to PostgreSQL 15 or later")
    }
    _ = libpq.PQsetnonblocking(connected, 1)
    _ = libpq.PQsetNoticeReceiver(connected, receiveNotice, Unmanaged.passUnretained(self).toOpaque())
    // What is called by its bare name is then PostgreSQL's own, whatever else lies in the search path (CVE-2018-1058).
    if purpose == .queries { try execute("SET search_path = pg_catalog") }
  }

  deinit { close() }

  /// Ends the session. Nothing more can be done with the connection.
  package func close() {
    guard let handle else { return }
    self.handle = nil
    libpq.PQfinish(handle)
  }

  // MARK: Connecting

  private static func connect(
    _ info: ConnectionInfo, _ purpose: ConnectionInfo.Purpose
  ) throws(TidemarkError) -> OpaquePointer {
    var failures: [TidemarkError] = []
    for attempt in info.attempts(for: purpose) {
      do throws(TidemarkError) {
        return try connect(attempt, limit: info.connectLimit, purpose)
      } catch {
        if error.code == .interrupted { throw error }
        failures.append(error)
      }
    }
    // What a server refused says more than that another host is down.
    guard var chosen = failures.first(where: { $0.code != .serverUnreachable }) ?? failures.last else {
      throw TidemarkError(.internalFault, "no host to connect to")
    }
    if failures.count > 1 {
      chosen.cause = failures.map { "\($0.object ?? "?"): \($0.cause ?? $0.summary)" }.joined(separator: "; ")
    }
    throw chosen
  }

  private static func connect(
    _ parameters: [ConnectionInfo.Parameter], limit: Duration?, _ purpose: ConnectionInfo.Purpose
  ) throws(TidemarkError) -> OpaquePointer {
    guard let started = start(parameters) else { throw TidemarkError(.internalFault, "libpq is out of memory") }
    var handle: OpaquePointer? = started
    defer { if let handle { libpq.PQfinish(handle) } }
    // The text of a failed or lost connection then tells the SQLSTATE, which libpq keeps to itself otherwise.
    _ = libpq.PQsetErrorVerbosity(started, PQERRORS_VERBOSE)
    _ = libpq.PQsetNoticeReceiver(started, { _, _ in }, nil)
    let deadline = limit.map { Deadline.after($0) } ?? .never
    var state = libpq.PQstatus(started) == CONNECTION_BAD ? PGRES_POLLING_FAILED : PGRES_POLLING_WRITING
    while state != PGRES_POLLING_OK {
      if state == PGRES_POLLING_FAILED { throw connectionFailure(started, purpose) }
      try Termination.check()
      if deadline.hasPassed {
        throw TidemarkError(
          .serverUnreachable, "cannot connect to the server", object: name(started),
          cause: "no answer within \(limit.map { Int($0.seconds) } ?? 0) s")
      }
      let wanted = state == PGRES_POLLING_READING ? POLLIN : POLLOUT
      guard pollSocket(libpq.PQsocket(started), wanted, until: deadline) else { continue }
      state = libpq.PQconnectPoll(started)
    }
    handle = nil
    return started
  }

  private static func start(_ parameters: [ConnectionInfo.Parameter]) -> OpaquePointer? {
    var keywords: [UnsafePointer<CChar>?] = parameters.map { UnsafePointer(strdup($0.keyword)) }
    var values: [UnsafePointer<CChar>?] = parameters.map { UnsafePointer(strdup($0.value)) }
    defer { for pointer in keywords + values { free(UnsafeMutablePointer(mutating: pointer)) } }
    keywords.append(nil)
    values.append(nil)
    return libpq.PQconnectStartParams(keywords, values, 0)
  }

  private static func connectionFailure(
    _ handle: OpaquePointer, _ purpose: ConnectionInfo.Purpose
  ) -> TidemarkError {
    let text = string(libpq.PQerrorMessage(handle)) ?? ""
    let user = string(libpq.PQuser(handle)) ?? "?"
    if let report = ServerMessage(libraryText: text) {
      return report.error("the server refused the connection", object: name(handle), purpose: purpose, user: user)
    }
    if libpq.PQconnectionNeedsPassword(handle) != 0 {
      return TidemarkError(
        .serverRefused, "the server wants a password", object: name(handle), cause: oneLine(text),
        next: "add a line for role \(user) to ~/.pgpass, mode 0600")
    }
    return TidemarkError(
      .serverUnreachable, "cannot connect to the server", object: name(handle), cause: oneLine(text))
  }

  private static func name(_ handle: OpaquePointer) -> String {
    let host = string(libpq.PQhost(handle)) ?? string(libpq.PQhostaddr(handle)) ?? "?"
    return
      "server at \(host), port \(string(libpq.PQport(handle)) ?? "?") (user \(string(libpq.PQuser(handle)) ?? "?"))"
  }
}

/// Hands a notice to the connection's handler. libpq calls it inside its own functions, on the thread that uses the
/// connection; the context is the connection, which lives as long as the handle that it closes.
private func receiveNotice(_ context: UnsafeMutableRawPointer?, _ result: OpaquePointer?) {
  guard let context else { return }
  let connection = Unmanaged<PostgresConnection>.fromOpaque(context).takeUnretainedValue()
  connection.noticeHandler?(ServerMessage(result))
}

func string(_ pointer: UnsafePointer<CChar>?) -> String? {
  guard let pointer, pointer.pointee != 0 else { return nil }
  return String(cString: pointer)
}

func string(_ pointer: UnsafeMutablePointer<CChar>?) -> String? { string(UnsafePointer(pointer)) }

/// poll(2) for at most a tenth of a second, so that signals and deadlines are seen. Returns whether `socket` is ready,
/// which an error or a hang-up is too: the call that follows reports it.
func pollSocket(_ socket: Int32, _ events: Int32, until deadline: Deadline) -> Bool {
  guard socket >= 0 else { return true }
  var descriptor = pollfd(fd: socket, events: Int16(events), revents: 0)
  let slice = min(deadline.remaining ?? .milliseconds(100), .milliseconds(100))
  return poll(&descriptor, 1, Int32(slice.milliseconds)) > 0
}
