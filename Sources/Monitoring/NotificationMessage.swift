// What somebody is told, and to whom it goes. The document is the same for webhooks and programs.
import Configuration
import Diagnostics
import Foundation
import SystemSupport

package struct NotificationMessage: Sendable, Codable, Equatable {
  package enum State: String, Sendable, Codable {
    case firing, resolved
  }
  package struct Failure: Sendable, Codable, Equatable {
    package var code: String
    package var summary: String
    package var object: String?
    package var cause: String?
    package var kept: String?
    package var next: String?

    package init(_ error: TidemarkError) {
      code = error.code.rawValue
      summary = error.summary
      object = error.object
      cause = error.cause
      kept = error.kept
      next = error.next
    }
  }

  package var format = 1
  package var event: NotificationEvent
  package var state: State
  package var cluster: String
  package var command: String
  package var host: String
  /// ISO 8601, UTC.
  package var time: String
  package var summary: String
  package var exitStatus: Int32
  package var error: Failure?
  package var findings: [String]

  package init(
    _ event: NotificationEvent, _ state: State, cluster: String, command: String, time: String, summary: String,
    exitStatus: Int32, error: TidemarkError? = nil, findings: [String] = []
  ) {
    self.event = event
    self.state = state
    self.cluster = cluster
    self.command = command
    self.time = time
    self.summary = summary
    self.exitStatus = exitStatus
    self.error = error.map(Failure.init)
    self.findings = findings
    host = ProcessInfo.processInfo.hostName
  }

  package func encoded() throws(TidemarkError) -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    do { return [UInt8](try encoder.encode(self)) } catch {
      throw TidemarkError(.internalFault, "cannot encode a notification", cause: "\(error)")
    }
  }
}

/// One receiver.
package struct NotificationTarget: Sendable, Equatable {
  package enum Means: Sendable, Equatable {
    /// The address may be a secret: it is never logged.
    case webhook(url: String, secret: [UInt8]?, certificateAuthorityFile: String?)
    case program(path: String, arguments: [String])
  }
  package var name: String
  package var means: Means
  /// Empty: all.
  package var events: Set<NotificationEvent>
  /// One attempt.
  package var timeout: Duration
  /// All attempts together.
  package var retryFor: Duration
  /// What goes on isn't said again within this.
  package var repeatAfter: Duration

  package init(
    name: String, means: Means, events: Set<NotificationEvent>, timeout: Duration, retryFor: Duration,
    repeatAfter: Duration
  ) {
    self.name = name
    self.means = means
    self.events = events
    self.timeout = timeout
    self.retryFor = retryFor
    self.repeatAfter = repeatAfter
  }

  package func wants(_ event: NotificationEvent) -> Bool {
    events.isEmpty || events.contains(event) || event == .message
  }
}
