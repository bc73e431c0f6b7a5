// Metrics in the text format that node_exporter's textfile collector reads, one file for each cluster and command. A
// file is replaced whole, by rename, and holds what earlier runs said too: a failed backup must not hide when the last
// good one was. It isn't flushed: after a crash of the host the next run writes it again.
// Format: https://prometheus.io/docs/instrumenting/exposition_formats/ (version 0.0.4). docs/metrics.md lists the names.
import Diagnostics
import Foundation
import Glibc
import SystemSupport

package struct MetricsTextfile: Sendable {
  /// Files beyond this are somebody else's.
  private static let byteCountMax = 4 << 20
  /// How often the lock is tried: whoever holds it is done within a millisecond.
  private static let lockAttempts = 20

  package let path: String
  private let lockPath: String

  /// The file of `cluster` and `command` in `directory`. Both are made of letters, digits, `.`, `_` and `-`.
  package init(directory: String, cluster: String, command: String) {
    path = "\(directory)/tidemark_\(cluster)_\(command).prom"
    lockPath = "\(directory)/.tidemark_\(cluster)_\(command).lock"
  }

  /// Adds `samples` to what the file says: a gauge replaces the one of the same name and labels, a counter is added to it.
  /// - Parameter keeps: whether an older sample that isn't replaced stays.
  package func merge(_ samples: [MetricSample], keeps: (MetricSample) -> Bool) throws(TidemarkError) {
    let lock = try takeLock()
    var merged: [MetricSample] = []
    if fileExists(path) {
      let text = String(decoding: try readFile(path, limit: Self.byteCountMax), as: UTF8.self)
      merged = text.split(separator: "\n").compactMap { MetricSample(parsing: $0) }
    }
    var new = samples
    for index in new.indices where new[index].metric.kind == .counter {
      let before = merged.first { $0.metric == new[index].metric && $0.labels == new[index].labels }
      new[index].value += before?.value ?? 0
    }
    merged.removeAll { old in
      new.contains { $0.metric == old.metric && $0.labels == old.labels } || !keeps(old)
    }
    try replace(Self.text(merged + new))
    withExtendedLifetime(lock) {}
  }

  /// Replaces everything.
  package func write(_ samples: [MetricSample]) throws(TidemarkError) { try replace(Self.text(samples)) }

  private func takeLock() throws(TidemarkError) -> FileLock {
    for _ in 1..<Self.lockAttempts {
      do throws(TidemarkError) { return try FileLock(lockPath, purpose: "the metrics") } catch {
        if error.code != .locked { throw error }
        usleep(2_000)
      }
    }
    return try FileLock(lockPath, purpose: "the metrics")
  }

  /// The name that it has before the rename doesn't end with `.prom`, so nobody reads it.
  private func replace(_ text: String) throws(TidemarkError) {
    let temporary = "\(path).\(getpid())"
    // Readable for the exporter, whoever runs it.
    let file = try OpenFile(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, mode: 0o644)
    do {
      try file.write(Array(text.utf8))
      try file.close()
    } catch {
      unlink(temporary)
      throw error
    }
    if rename(temporary, path) != 0 {
      let error = systemError("cannot rename the file", path)
      unlink(temporary)
      throw error
    }
  }

  /// Samples of one metric stand together below its help and type.
  static func text(_ samples: [MetricSample]) -> String {
    var text = ""
    for metric in Metric.allCases {
      let own = samples.filter { $0.metric == metric }.sorted { $0.labelText < $1.labelText }
      if own.isEmpty { continue }
      text += "# HELP \(metric.rawValue) \(metric.help)\n# TYPE \(metric.rawValue) \(metric.kind.rawValue)\n"
      for sample in own { text += sample.line + "\n" }
    }
    return text
  }
}

/// One value of a metric.
package struct MetricSample: Sendable, Equatable {
  package var metric: Metric
  package var labels: [String: String]
  package var value: Double

  package init(_ metric: Metric, _ value: Double, _ labels: [String: String]) {
    self.metric = metric
    self.labels = labels
    self.value = value
  }

  var labelText: String {
    labels.sorted { $0.key < $1.key }.map { "\($0.key)=\"\(Self.escaped($0.value))\"" }.joined(separator: ",")
  }

  var line: String {
    let number = Int64(exactly: value).map { "\($0)" } ?? "\(value)"
    return "\(metric.rawValue){\(labelText)} \(number)"
  }

  private static func escaped(_ text: String) -> String {
    text.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"").replacing("\n", with: "\\n")
  }

  /// Reads a line that ``line`` wrote; `nil` for comments and for metrics that this version doesn't know.
  init?(parsing line: Substring) {
    guard !line.hasPrefix("#"), let open = line.firstIndex(of: "{"), let close = line.lastIndex(of: "}"), open < close,
      let metric = Metric(rawValue: String(line[..<open])),
      let value = Double(line[line.index(after: close)...].drop { $0 == " " }),
      let labels = Self.labels(line[line.index(after: open)..<close])
    else { return nil }
    self.init(metric, value, labels)
  }

  private static func labels(_ text: Substring) -> [String: String]? {
    var labels: [String: String] = [:]
    var rest = text
    while !rest.isEmpty {
      guard let equals = rest.firstRange(of: "=\"") else { return nil }
      let name = String(rest[..<equals.lowerBound])
      rest = rest[equals.upperBound...]
      var value = ""
      while let character = rest.popFirst(), character != "\"" {
        guard character == "\\", let escaped = rest.popFirst() else {
          value.append(character)
          continue
        }
        value.append(escaped == "n" ? "\n" : escaped)
      }
      labels[name] = value
      if rest.first == "," { rest.removeFirst() }
    }
    return labels
  }
}
