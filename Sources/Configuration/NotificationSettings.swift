// Who is told what, as the configuration says it. Addresses and secrets that must stay secret are in files of their own.

/// What happened. The raw value is stable: configurations and receivers name it.
package enum NotificationEvent: String, Sendable, Codable, CaseIterable {
  case backupFailed = "backup-failed"
  case backupSuspect = "backup-suspect"
  case walPushFailed = "wal-push-failed"
  case restoreFailed = "restore-failed"
  case drillFailed = "drill-failed"
  case checkFailed = "check-failed"
  case verifyFailed = "verify-failed"
  case expireFailed = "expire-failed"
  case syncFailed = "sync-failed"
  /// Regions lack objects.
  case debts
  /// A region has been failing for longer than the policy waits for it.
  case regionDegraded = "region-degraded"
  /// `tidemark notify`: what the caller says.
  case message
}

/// One receiver.
package struct NotificationSettings: Sendable, Equatable {
  package enum Means: Sendable, Equatable {
    case webhook(url: String)
    /// The first line of the file is the address.
    case webhookFile(String)
    case program(path: String, arguments: [String])
  }
  package var name: String
  package var means: Means
  /// The first line of the file is the key of the signature.
  package var secretFile: String?
  package var caFile: String?
  /// Empty: all.
  package var events: Set<NotificationEvent>
  package var timeout: Duration
  package var retryFor: Duration
  package var repeatAfter: Duration

  static let keys = [
    "name", "url", "url-file", "secret-file", "ca-file", "command", "arguments", "events", "timeout", "retry-for",
    "repeat-after",
  ]

  init(_ section: ConfigurationSection) {
    name = section.name("name")
    let given = ["url", "url-file", "command"].filter(section.has)
    if given.count != 1 {
      section.refuse(given.first ?? "name", "needs exactly one of 'url', 'url-file' and 'command' beside it")
    }
    if section.has("url-file") {
      means = .webhookFile(section.absolutePath("url-file") ?? "")
    } else if section.has("command") {
      means = .program(
        path: section.absolutePath("command") ?? "", arguments: section.texts("arguments").map(\.text))
    } else {
      let url: String? = section.value("url") { text throws(Refusal) in
        guard text.hasPrefix("https://") || text.hasPrefix("http://"), !text.contains(where: \.isWhitespace) else {
          throw Refusal("is not an address: write https://host/path")
        }
        if text.drop(while: { $0 != "/" }).prefix(while: { $0 != "?" }).contains("@") {
          throw Refusal("holds credentials: put the address into a file (mode 0600) and name that with 'url-file'")
        }
        return text
      }
      means = .webhook(url: url ?? "")
    }
    for key in ["secret-file", "ca-file"] where section.has("command") && section.has(key) {
      section.refuse(key, "belongs to a webhook")
    }
    if section.has("arguments"), !section.has("command") { section.refuse("arguments", "belongs to a 'command'") }
    secretFile = section.absolutePath("secret-file")
    caFile = section.absolutePath("ca-file")
    events = []
    for element in section.texts("events") {
      if let event = NotificationEvent(rawValue: element.text) {
        events.insert(event)
      } else {
        let known = NotificationEvent.allCases.map(\.rawValue)
        section.problems.add(
          element.path, line: element.line,
          "is no event: the nearest is '\(NearestKey.find(element.text, in: known) ?? "")'")
      }
    }
    timeout = section.positiveDuration("timeout") ?? .seconds(10)
    retryFor = section.positiveDuration("retry-for") ?? .seconds(60)
    repeatAfter = section.positiveDuration("repeat-after") ?? .seconds(4 * 3600)
  }
}
