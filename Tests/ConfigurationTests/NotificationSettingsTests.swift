// Receivers of notifications as the configuration may name them.
import Diagnostics
import Testing

@testable import Configuration

@Suite("Notifications in the configuration")
struct NotificationSettingsTests {
  private func configuration(_ lines: String) throws -> TidemarkConfiguration {
    let yaml = """
      cluster: crm
      repository: {regions: [{name: here, endpoint: "file:///srv/tidemark"}]}
      \(lines)

      """
    return try TidemarkConfiguration(yaml: yaml, file: "tidemark.yaml")
  }

  @Test("a webhook and a program with their defaults") func valid() throws {
    let read = try configuration(
      """
      metrics: {textfile-directory: /srv/metrics}
      notifications:
        - {name: ops, url: "https://hooks.example/x?y=1", secret-file: /etc/secret, events: [debts, drill-failed], timeout: 3s}
        - {name: pager, command: /usr/bin/page, arguments: [-s, high]}
      """)
    #expect(read.metricsDirectory == "/srv/metrics")
    #expect(read.notifications[0].means == .webhook(url: "https://hooks.example/x?y=1"))
    #expect(read.notifications[0].events == [.debts, .drillFailed])
    #expect(read.notifications[0].timeout == .seconds(3))
    #expect(read.notifications[1].means == .program(path: "/usr/bin/page", arguments: ["-s", "high"]))
    #expect(read.notifications[1].repeatAfter == .seconds(14400))
    #expect(try configuration("").metricsDirectory == nil)
  }

  @Test(
    "what can't be meant is refused",
    arguments: [
      ("{name: a}", "exactly one of"), ("{name: a, url: 'https://x', command: /bin/true}", "exactly one of"),
      ("{name: a, url: 'ftp://x'}", "is not an address"), ("{name: a, url: 'https://u:p@x/'}", "holds credentials"),
      ("{name: a, command: page}", "absolute path"),
      ("{name: a, command: /x, secret-file: /y}", "belongs to a webhook"),
      ("{name: a, url: 'https://x', events: [backup-fail]}", "nearest is 'backup-failed'"),
      ("{name: a, url: 'https://x', arguments: [b]}", "belongs to a 'command'"),
      ("{name: a, url: 'https://x', secret: b}", "no secrets"),
    ])
  func refusals(_ receiver: String, _ words: String) throws {
    let error = try #require(throws: TidemarkError.self) { try configuration("notifications: [\(receiver)]") }
    #expect(error.cause?.contains(words) == true, "\(error.cause ?? "")")
  }
}
