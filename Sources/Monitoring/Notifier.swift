// Delivers notifications, each once while what it is about goes on, and once more when it is over. What can't be
// delivered is returned, never thrown: a command's result is its own.
import Configuration
import Crypto
import Diagnostics
import Foundation
import Glibc
import S3Storage
import SystemSupport

package struct Notifier: Sendable {
  /// A receiver that couldn't be reached is tried again by the next command after this.
  private static let failureRest = Duration.seconds(60)
  private static let pauseMin = Duration.milliseconds(500)
  private static let pauseMax = Duration.seconds(10)
  private static let markByteCountMax = 4096

  let targets: [NotificationTarget]
  let directory: String
  let version: String

  /// Marks of what was said lie in `STATE/notifications`.
  package init(_ targets: [NotificationTarget], stateDirectory: String, version: String) {
    self.targets = targets
    directory = "\(stateDirectory)/notifications"
    self.version = version
  }

  /// A delivery that failed, for the command's own output.
  package struct Undelivered: Sendable {
    package var target: String
    package var event: NotificationEvent
    /// Without an address, which may be a secret.
    package var cause: String
  }

  /// - Parameter limit: what all attempts for one receiver may take, where less than its own; `archive_command` can't wait.
  package func deliver(_ notification: NotificationMessage, limit: Duration? = nil) -> [Undelivered] {
    var undelivered: [Undelivered] = []
    for target in targets where target.wants(notification.event) {
      do throws(TidemarkError) {
        let mark = try mark(target, notification.event)
        switch notification.state {
        case .firing:
          if let mark, mark.isFresh { continue }
          // Noted before: a command that is killed while it waits isn't followed by ten that wait.
          try note(target, notification.event, Mark(mark?.word ?? .unsaid, rest: Self.failureRest))
        case .resolved:
          guard let mark, mark.word != .unsaid else {
            try forget(target, notification.event)
            continue
          }
          if mark.word == .unresolved, mark.isFresh { continue }
          try note(target, notification.event, Mark(.unresolved, rest: Self.failureRest))
        }
        let cause = try attempt(target, notification, limit: min(limit ?? target.retryFor, target.retryFor))
        if let cause {
          undelivered.append(Undelivered(target: target.name, event: notification.event, cause: cause))
        } else if notification.state == .firing {
          try note(target, notification.event, Mark(.said, rest: target.repeatAfter))
        } else {
          try forget(target, notification.event)
        }
      } catch {
        undelivered.append(
          Undelivered(target: target.name, event: notification.event, cause: error.description))
      }
    }
    return undelivered
  }

  /// Tries until the limit. `nil` when it was delivered, else why not.
  private func attempt(
    _ target: NotificationTarget, _ notification: NotificationMessage, limit: Duration
  ) throws(TidemarkError) -> String? {
    let body = try notification.encoded()
    let deadline = Deadline.after(limit)
    var pause = Self.pauseMin
    while true {
      let timeout = min(target.timeout, max(.milliseconds(100), deadline.remaining ?? target.timeout))
      let outcome: (cause: String?, isFinal: Bool) =
        switch target.means {
        case .webhook(let url, let secret, let authority):
          post(body, notification.event, url, secret, authority, timeout)
        case .program(let path, let arguments): run(path, arguments, body, timeout)
        }
      guard let cause = outcome.cause else { return nil }
      let rest = Duration.seconds(pause.seconds * Double.random(in: 0.5...1))
      if outcome.isFinal || Termination.requested != nil || (deadline.remaining ?? .zero) <= rest { return cause }
      usleep(UInt32(rest.seconds * 1e6))
      pause = min(pause * 2, Self.pauseMax)
    }
  }

  private func post(
    _ body: [UInt8], _ event: NotificationEvent, _ url: String, _ secret: [UInt8]?, _ authority: String?,
    _ timeout: Duration
  ) -> (cause: String?, isFinal: Bool) {
    let time = String(Int64(Date().timeIntervalSince1970))
    var headers = [
      ("Content-Type", "application/json"), ("User-Agent", "tidemark/\(version)"), ("X-Tidemark-Event", event.rawValue),
      ("X-Tidemark-Timestamp", time),
    ]
    if let secret {
      // The time is signed with the body, so that a message that was recorded can be refused when it comes again.
      let code = HMAC<SHA256>.authenticationCode(for: Array("\(time).".utf8) + body, using: SymmetricKey(data: secret))
      let digits = code.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
      headers.append(("X-Tidemark-Signature", "sha256=\(digits)"))
    }
    let outcome = HTTPPost(url: url, headers: headers, body: body, certificateAuthorityFile: authority).send(
      timeout: timeout)
    switch outcome {
    case .answered(let status) where (200..<300).contains(status): return (nil, true)
    case .answered(let status):
      let isPassing = [408, 429].contains(status) || status >= 500
      return ("the receiver answered \(status)", !isPassing)
    case .failed(let text, let isRetryable):
      // libcurl may repeat the address in its words.
      return (text.contains(url) ? "the receiver can't be reached" : text, !isRetryable)
    }
  }

  private func run(
    _ path: String, _ arguments: [String], _ body: [UInt8], _ timeout: Duration
  ) -> (cause: String?, isFinal: Bool) {
    do throws(TidemarkError) {
      let outcome = try ChildProcess.run(
        path, arguments, workingDirectory: "/", input: body, deadline: .after(timeout), outputLimit: 1 << 20)
      if outcome.succeeded { return (nil, true) }
      let said = outcome.errorText.split(separator: "\n").last.map { ": \($0.prefix(200))" } ?? ""
      return ("the program ended with \(outcome.ending)\(said)", false)
    } catch { return (error.description, error.code == .interrupted) }
  }

  // MARK: Marks

  /// What was said, and until when nothing more is.
  private struct Mark {
    enum Word: String {
      /// It couldn't be delivered yet.
      case unsaid
      case said
      /// It was said and is over, which couldn't be delivered yet.
      case unresolved
    }
    var word: Word
    var until: Int64
    var isFresh: Bool { Int64(Date().timeIntervalSince1970) < until }

    init(_ word: Word, rest: Duration) {
      self.word = word
      until = Int64(Date().timeIntervalSince1970) + rest.components.seconds
    }

    init?(_ text: String) {
      let words = text.split(whereSeparator: \.isWhitespace)
      guard words.count == 2, let word = Word(rawValue: String(words[0])), let until = Int64(words[1]) else {
        return nil
      }
      self.word = word
      self.until = until
    }

    var text: String { "\(word.rawValue) \(until)\n" }
  }

  private func path(_ target: NotificationTarget, _ event: NotificationEvent) -> String {
    "\(directory)/\(target.name).\(event.rawValue)"
  }

  private func mark(_ target: NotificationTarget, _ event: NotificationEvent) throws(TidemarkError) -> Mark? {
    let path = path(target, event)
    guard event != .message, fileExists(path) else { return nil }
    return Mark(String(decoding: try readFile(path, limit: Self.markByteCountMax), as: UTF8.self))
  }

  private func note(_ target: NotificationTarget, _ event: NotificationEvent, _ mark: Mark) throws(TidemarkError) {
    if event == .message { return }
    try DurableFile.createDirectories(directory)
    try DurableFile.write(Array(mark.text.utf8), to: path(target, event))
  }

  private func forget(_ target: NotificationTarget, _ event: NotificationEvent) throws(TidemarkError) {
    if fileExists(path(target, event)) { try DurableFile.remove(path(target, event)) }
  }
}
