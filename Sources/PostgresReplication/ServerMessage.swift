// What the server says in an error or a notice, field by field, and the error that an operator gets for it.
// Decisions go by SQLSTATE alone: the texts come in the server's language.
import CLibpq
import Diagnostics

/// An error, warning or notice of the server.
/// Source: PostgreSQL manual, "Error and Notice Message Fields".
package struct ServerMessage: Sendable, CustomStringConvertible {
  /// ERROR, FATAL, PANIC, WARNING, NOTICE, LOG; in English whatever the server's language.
  package var severity: String
  /// Five characters: "28P01".
  package var sqlState: String
  package var message: String
  package var detail: String?
  package var hint: String?

  package init(severity: String, sqlState: String, message: String, detail: String? = nil, hint: String? = nil) {
    self.severity = severity
    self.sqlState = sqlState
    self.message = message
    self.detail = detail
    self.hint = hint
  }

  /// The fields of a result. One that libpq made up itself, about a lost connection, has a text alone.
  init(_ result: OpaquePointer?) {
    func field<Code: BinaryInteger>(_ code: Code) -> String? { string(libpq.PQresultErrorField(result, Int32(code))) }
    let text = string(libpq.PQresultErrorMessage(result)) ?? ""
    if field(CLIBPQ_SQLSTATE) == nil, let report = ServerMessage(libraryText: text) {
      self = report
      return
    }
    severity = field(CLIBPQ_SEVERITY) ?? "ERROR"
    sqlState = field(CLIBPQ_SQLSTATE) ?? ""
    message = field(CLIBPQ_MESSAGE) ?? oneLine(text)
    detail = field(CLIBPQ_DETAIL)
    hint = field(CLIBPQ_HINT)
  }

  /// One line with everything the server said.
  package var description: String {
    var text = sqlState.isEmpty ? message : "\(severity) \(sqlState): \(message)"
    if let detail { text += "; detail: \(oneLine(detail))" }
    if let hint { text += "; hint: \(oneLine(hint))" }
    return text
  }

  /// The error for this message. `summary` says what was being done, `object` names the server.
  func error(_ summary: String, object: String, purpose: ConnectionInfo.Purpose, user: String) -> TidemarkError {
    var error = TidemarkError(code, summary, object: object, cause: description)
    switch (sqlState, purpose) {
    case ("28P01", _):
      error.next = "check the password of role \(user) in ~/.pgpass (or the passfile of the connection string)"
    case ("28000", .replication):
      error.next =
        "add a line 'host replication \(user) ADDRESS scram-sha-256' (or 'local …') to pg_hba.conf and reload"
    case ("28000", .queries):
      error.next = "see that role \(user) exists and may log in, and that pg_hba.conf has a line for it"
    case ("42501", .replication) where severity == "FATAL":  // As an ERROR it is about a file of the server.
      error.next = "ALTER ROLE \(user) REPLICATION"
    case ("42501", .queries):
      error.next = "GRANT pg_monitor TO \(user), unless it is a member already"
    case ("53300", .replication):
      error.next =
        "raise max_wal_senders or max_connections (needs a restart), or end a replication client that isn't needed"
    case ("53300", .queries):
      error.next = "raise max_connections (needs a restart), or try again when there are fewer sessions"
    case ("55000", .replication):
      error.next = "set wal_level = replica and max_wal_senders above zero, and restart the server"
    case ("57P03", _):
      error.next = "try again when the server accepts connections"
    case ("3D000", _):
      error.next = "name an existing database in the connection string (dbname=…)"
    default: break
    }
    return error
  }

  /// Classes as in the manual's appendix "PostgreSQL Error Codes".
  private var code: ErrorCode {
    switch sqlState {
    case "42501": return .serverRefused
    case "3D000": return .configurationInvalid
    case "55000", "0A000": return .serverUnsuitable
    case "53300", "57P01", "57P02", "57P03", "": return .serverUnreachable
    case "XX001", "XX002": return .checksumFailures
    default: break
    }
    switch sqlState.prefix(2) {
    case "28": return .serverRefused
    case "08": return .serverUnreachable
    default: return .serverFailed
    }
  }

  /// The server's report inside libpq's text about a failed or lost connection, which has no fields: with verbose
  /// errors it reads "… failed: FATAL:  28P01: password authentication failed …", and lines of DETAIL, HINT and LOCATION
  /// may follow.
  init?(libraryText text: String) {
    let lines = text.split(separator: "\n").map(String.init)
    for (index, line) in lines.enumerated() {
      guard let found = Self.report(in: line) else { continue }
      self = found
      for extra in lines[(index + 1)...] {
        if extra.hasPrefix("DETAIL:") { detail = trimmed(extra.dropFirst(7)) }
        if extra.hasPrefix("HINT:") { hint = trimmed(extra.dropFirst(5)) }
      }
      return
    }
    return nil
  }

  /// "SEVERITY:  SQLST: message" somewhere in `line`.
  private static func report(in line: String) -> ServerMessage? {
    let bytes = Array(line.utf8)
    func isState(_ byte: UInt8) -> Bool { (48...57).contains(byte) || (65...90).contains(byte) }
    var start = 0
    while start + 10 <= bytes.count {
      defer { start += 1 }
      // ":  " SQLSTATE ": "
      guard bytes[start] == 58, bytes[start + 1] == 32, bytes[start + 2] == 32,
        bytes[(start + 3)..<(start + 8)].allSatisfy(isState), bytes[start + 8] == 58, bytes[start + 9] == 32
      else { continue }
      let severity = bytes[..<start].split(separator: 32).last ?? []
      return ServerMessage(
        severity: String(decoding: severity, as: UTF8.self),
        sqlState: String(decoding: bytes[(start + 3)..<(start + 8)], as: UTF8.self),
        message: String(decoding: bytes[(start + 10)...], as: UTF8.self))
    }
    return nil
  }
}

/// libpq's texts end with a line feed and may have several lines.
func oneLine(_ text: String) -> String {
  text.split(separator: "\n").map(trimmed).filter { !$0.isEmpty }.joined(separator: " ")
}

private func trimmed(_ text: some StringProtocol) -> String {
  var rest = Substring(text)
  while let first = rest.first, first.isWhitespace { rest.removeFirst() }
  while let last = rest.last, last.isWhitespace { rest.removeLast() }
  return String(rest)
}
