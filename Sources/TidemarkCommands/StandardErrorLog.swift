// Log lines on standard error: time, level, message, and the metadata as key=value.
import Foundation
import Logging
import PostgresFormats

struct StandardErrorLog: LogHandler {
  var metadata: Logger.Metadata = [:]
  var logLevel: Logger.Level

  static func logger(_ level: Logger.Level) -> Logger {
    Logger(label: "tidemark") { _ in StandardErrorLog(logLevel: level) }
  }

  subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  func log(event: LogEvent) {
    let time = RecoveryTime(microseconds: Int64(Date().timeIntervalSince1970) * 1_000_000)
    let fields = metadata.merging(event.metadata ?? [:]) { $1 }.sorted { $0.key < $1.key }
      .map { " \($0.key)=\"\($0.value)\"" }.joined()
    Self.write("\(time) \(event.level) \(event.message)\(fields)\n")
  }

  /// A line that can't be written to standard error has no other place to go.
  static func write(_ text: String) { try? FileHandle.standardError.write(contentsOf: Data(text.utf8)) }
}
