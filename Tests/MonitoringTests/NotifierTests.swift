// Notifications over a real listener and by a real program: signed, repeated while a receiver fails, said once while
// what they are about goes on, and never with an address in what is logged.
import Configuration
import Crypto
import Diagnostics
import Foundation
import SystemSupport
import TestSupport
import Testing

@testable import Monitoring

@Suite("Notifications")
struct NotifierTests {
  private let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  private func notification(_ state: NotificationMessage.State = .firing) -> NotificationMessage {
    NotificationMessage(
      .backupFailed, state, cluster: "crm", command: "backup", time: "2026-11-25T03:00:00Z", summary: "it failed",
      exitStatus: 69, error: TidemarkError(.serverUnreachable, "no connection", next: "look"), findings: ["one"])
  }

  private func notifier(
    _ means: NotificationTarget.Means, retryFor: Duration = .seconds(5), repeatAfter: Duration = .seconds(3600),
    events: Set<NotificationEvent> = []
  ) -> Notifier {
    Notifier(
      [
        NotificationTarget(
          name: "ops", means: means, events: events, timeout: .seconds(2), retryFor: retryFor, repeatAfter: repeatAfter)
      ], stateDirectory: directory.path, version: "1")
  }

  private func webhook(_ listener: HTTPListener, secret: String? = nil) -> NotificationTarget.Means {
    .webhook(url: listener.url, secret: secret.map { Array($0.utf8) }, certificateAuthorityFile: nil)
  }

  @Test("a webhook gets the document, and a signature that its secret verifies") func signed() throws {
    let listener = try HTTPListener()
    defer { listener.stop() }
    #expect(notifier(webhook(listener, secret: "the key")).deliver(notification()).isEmpty)
    let request = try #require(listener.requests.first)
    #expect(request.head.hasPrefix("POST /hooks/a-secret-path HTTP/1.1"))
    #expect(request.header("Content-Type") == "application/json")
    #expect(request.header("X-Tidemark-Event") == "backup-failed")
    let document = try #require(try JSONSerialization.jsonObject(with: Data(request.body)) as? [String: Any])
    #expect(document["state"] as? String == "firing")
    #expect(document["exitStatus"] as? Int == 69)
    #expect((document["error"] as? [String: Any])?["code"] as? String == "server-unreachable")
    let time = try #require(request.header("X-Tidemark-Timestamp"))
    let code = HMAC<SHA256>.authenticationCode(
      for: Array("\(time).".utf8) + request.body, using: SymmetricKey(data: Array("the key".utf8)))
    let expected = code.map { String(format: "%02x", $0) }.joined()
    #expect(request.header("X-Tidemark-Signature") == "sha256=\(expected)")
  }

  @Test("a receiver that fails for a while is tried again; one that refuses isn't") func retries() throws {
    let failing = try HTTPListener(statuses: [503, 0, 429, 200])
    defer { failing.stop() }
    #expect(notifier(webhook(failing), retryFor: .seconds(20)).deliver(notification()).isEmpty)
    #expect(failing.requests.count == 4)
    let refusing = try HTTPListener(statuses: [403])
    defer { refusing.stop() }
    let fresh = try TemporaryDirectory()
    let notifier = Notifier(
      [
        NotificationTarget(
          name: "ops", means: webhook(refusing), events: [], timeout: .seconds(2), retryFor: .seconds(20),
          repeatAfter: .seconds(3600))
      ], stateDirectory: fresh.path, version: "1")
    let undelivered = notifier.deliver(notification())
    #expect(undelivered.map(\.cause) == ["the receiver answered 403"])
    #expect(refusing.requests.count == 1)
  }

  @Test("what goes on is said once, its end once, and what comes again is said again") func once() throws {
    let listener = try HTTPListener()
    defer { listener.stop() }
    let notifier = notifier(webhook(listener))
    for state in [.resolved, .firing, .firing, .resolved, .resolved, .firing] as [NotificationMessage.State] {
      #expect(notifier.deliver(notification(state)).isEmpty)
    }
    let states = listener.requests.map { String(decoding: $0.body, as: UTF8.self) }
      .map { $0.contains("\"state\":\"firing\"") ? "firing" : "resolved" }
    #expect(states == ["firing", "resolved", "firing"])
  }

  @Test("a receiver that can't be reached is named without its address, within the limit, and not asked again at once")
  func unreachable() throws {
    let port = try LoopbackPort.free()
    let notifier = notifier(
      .webhook(url: "http://127.0.0.1:\(port)/a-secret-path", secret: nil, certificateAuthorityFile: nil),
      retryFor: .seconds(600))
    let begin = ContinuousClock.now
    let undelivered = notifier.deliver(notification(), limit: .seconds(1))
    #expect(ContinuousClock.now - begin < .seconds(10))
    #expect(undelivered.count == 1)
    #expect(undelivered.first.map { !$0.cause.contains("a-secret-path") } == true)
    // The next command has better things to do than to wait for the same receiver.
    #expect(notifier.deliver(notification(), limit: .seconds(1)).isEmpty)
  }

  @Test("a program gets the document on its standard input; one that fails is tried again and its words are kept")
  func program() throws {
    let script = "\(directory.path)/page"
    let text = """
      #!/bin/sh
      cat > "$1/document"
      echo run >> "$1/runs"
      [ "$(wc -l < "$1/runs")" -ge 2 ] || { echo "line busy" >&2; exit 3; }

      """
    try DurableFile.write(Array(text.utf8), to: script, mode: 0o755)
    #expect(notifier(.program(path: script, arguments: [directory.path])).deliver(notification()).isEmpty)
    let document = try String(contentsOfFile: "\(directory.path)/document", encoding: .utf8)
    #expect(document.contains("\"event\":\"backup-failed\""))
    #expect(try String(contentsOfFile: "\(directory.path)/runs", encoding: .utf8) == "run\nrun\n")
    let failing = Notifier(
      [
        NotificationTarget(
          name: "other", means: .program(path: "/bin/sh", arguments: ["-c", "echo no such pager >&2; exit 1"]),
          events: [], timeout: .seconds(2), retryFor: .milliseconds(100), repeatAfter: .seconds(60))
      ], stateDirectory: directory.path, version: "1")
    #expect(failing.deliver(notification()).first?.cause.contains("no such pager") == true)
  }

  @Test("a receiver gets the events that it asked for") func filters() throws {
    let listener = try HTTPListener()
    defer { listener.stop() }
    #expect(notifier(webhook(listener), events: [.drillFailed]).deliver(notification()).isEmpty)
    #expect(listener.requests.isEmpty)
  }
}
