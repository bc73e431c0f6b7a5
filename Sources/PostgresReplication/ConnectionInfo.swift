// A libpq connection string, taken apart by libpq itself and completed with what Tidemark always wants.
// It is never printed with a password, and an error about it quotes nothing that could be one.
import CLibpq
import Diagnostics
import Glibc

/// The parameters of a connection, as an operator writes them: "host=/var/run/postgresql user=tidemark", or a URI.
///
/// Passwords belong into `~/.pgpass` or the file that `passfile` names.
package struct ConnectionInfo: Sendable, CustomStringConvertible {
  /// What the connection is for.
  package enum Purpose: Sendable {
    /// Ordinary SQL in a database.
    case queries
    /// Commands of the replication protocol (`replication=true`); no SQL.
    case replication
  }

  struct Parameter: Sendable {
    var keyword: String
    var value: String
  }

  private var given: [Parameter]

  /// - Throws: ``ErrorCode/configurationInvalid`` when libpq can't parse `text`, and `local-io` when there is no libpq.
  package init(_ text: String) throws(TidemarkError) {
    try requireLibpq()
    var message: UnsafeMutablePointer<CChar>?
    guard let options = libpq.PQconninfoParse(text, &message) else {
      let cause = message.map { Self.withoutQuotedText(String(cString: $0)) }
      libpq.PQfreemem(message)
      throw TidemarkError(
        .configurationInvalid, "the connection string can't be understood", cause: cause,
        next: "write it as in: host=/var/run/postgresql user=tidemark")
    }
    defer { libpq.PQconninfoFree(options) }
    given = []
    var option = options
    while let keyword = option.pointee.keyword {
      if let value = option.pointee.val, value.pointee != 0 {
        given.append(Parameter(keyword: String(cString: keyword), value: String(cString: value)))
      }
      option += 1
    }
  }

  /// What was given for `keyword`; not what the environment or a service file adds.
  package subscript(keyword: String) -> String? { given.first { $0.keyword == keyword }?.value }

  /// The same parameters with `value` for `keyword`.
  package func with(_ keyword: String, _ value: String) -> ConnectionInfo {
    var copy = self
    copy.given.removeAll { $0.keyword == keyword }
    copy.given.append(Parameter(keyword: keyword, value: value))
    return copy
  }

  package func without(_ keyword: String) -> ConnectionInfo {
    var copy = self
    copy.given.removeAll { $0.keyword == keyword }
    return copy
  }

  /// Without passwords, fit for messages.
  package var description: String {
    let secrets: Set = ["password", "sslpassword", "oauth_client_secret"]
    return given.filter { !secrets.contains($0.keyword) }
      .map { parameter in
        let plain = parameter.value.allSatisfy { !$0.isWhitespace && $0 != "'" && $0 != "\\" }
        if plain { return "\(parameter.keyword)=\(parameter.value)" }
        let escaped = parameter.value.flatMap { $0 == "'" || $0 == "\\" ? ["\\", $0] : [$0] }
        return "\(parameter.keyword)='\(String(escaped))'"
      }.joined(separator: " ")
  }

  /// How long one host may take, `connect_timeout` or `PGCONNECT_TIMEOUT`, else 10 s. As in libpq, zero and less mean
  /// no limit, and one second means two.
  var connectLimit: Duration? {
    guard let seconds = (self["connect_timeout"] ?? environment("PGCONNECT_TIMEOUT")).flatMap({ Int($0) }) else {
      return .seconds(10)
    }
    return seconds <= 0 ? nil : .seconds(max(seconds, 2))
  }

  /// The parameter lists to try, in order. libpq moves to the next of several hosts by itself only when connecting
  /// blocks; so each host is a list of its own here, and a host that doesn't answer costs `connectLimit`.
  func attempts(for purpose: Purpose) -> [[Parameter]] {
    let completed = completed(for: purpose)
    let hosts = completed.list("host")
    let addresses = completed.list("hostaddr")
    let ports = completed.list("port")
    let count = max(hosts.count, addresses.count)
    guard count > 1, ports.count <= 1 || ports.count == count,
      hosts.isEmpty || addresses.isEmpty || hosts.count == addresses.count
    else { return [completed.given] }  // one host, or lists that libpq shall refuse in its own words
    let single = (0..<count).map { index in
      var one = completed
      if !hosts.isEmpty { one = one.with("host", hosts[index]) }
      if !addresses.isEmpty { one = one.with("hostaddr", addresses[index]) }
      if ports.count > 1 { one = one.with("port", ports[index]) }
      return one
    }
    guard self["target_session_attrs"] == "prefer-standby" else { return single.map(\.given) }
    return single.map { $0.with("target_session_attrs", "standby").given }
      + single.map { $0.with("target_session_attrs", "any").given }
  }

  private func list(_ keyword: String) -> [String] {
    self[keyword].map { $0.split(separator: ",", omittingEmptySubsequences: false).map(String.init) } ?? []
  }

  private func completed(for purpose: Purpose) -> ConnectionInfo {
    var info = self
    func add(_ keyword: String, _ value: String) {
      if info[keyword] == nil { info = info.with(keyword, value) }
    }
    add("fallback_application_name", "tidemark")
    // A host that vanishes without a word is noticed within a minute and a half.
    add("keepalives_idle", "30")
    add("keepalives_interval", "10")
    add("keepalives_count", "6")
    switch purpose {
    case .queries:
      info = info.with("client_encoding", "UTF8")
      let isNamedElsewhere =
        environment("PGDATABASE") != nil || environment("PGSERVICE") != nil || info["service"] != nil
      if !isNamedElsewhere { add("dbname", "postgres") }
    case .replication:
      // As pg_basebackup does: the server ignores the name, but ~/.pgpass lines for 'replication' match it.
      info = info.with("replication", "true").with("dbname", "replication")
    }
    return info
  }

  /// libpq's parse errors quote pieces of the string, which may be a password or hold one; the name of an unknown
  /// option is the one quotation that helps and can't be a value.
  private static func withoutQuotedText(_ message: String) -> String {
    let line = message.split(separator: "\n").first.map(String.init) ?? ""
    if line.hasPrefix("invalid connection option") { return line }
    var result = ""
    for (index, piece) in line.split(separator: "\"", omittingEmptySubsequences: false).enumerated() {
      result += index.isMultiple(of: 2) ? String(piece) : "\"…\""
    }
    return result
  }
}

private func environment(_ name: String) -> String? {
  guard let value = getenv(name), value.pointee != 0 else { return nil }
  return String(cString: value)
}
