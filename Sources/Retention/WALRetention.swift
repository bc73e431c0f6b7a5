// Decides which WAL is kept, along the timelines' history: pure. A backup's own WAL always stays; from the backups that
// promise continuity on, all WAL of their timeline and of every timeline that branched off behind them stays too.
// Whatever can't be judged stays.
import PostgresFormats

package struct WALRetention: Sendable {
  private struct Span: Sendable {
    var label: String
    var first: WALSegmentName
    var last: WALSegmentName
    var isContinuous: Bool
    var timeline: TimelineID
    var stop: LSN
  }

  private let spans: [Span]
  private let histories: [TimelineID: TimelineHistory]

  /// - Parameter kept: the decisions that keep a backup; those that don't are passed over.
  package init(
    _ kept: [BackupDecision], histories: [TimelineID: TimelineHistory], segmentSize: (String) -> WALSegmentSize
  ) {
    spans = kept.filter { !$0.expires }.map { decision in
      let backup = decision.candidate
      let size = segmentSize(backup.label)
      return Span(
        label: backup.label, first: WALSegmentName(timeline: backup.timeline, containing: backup.start, size: size),
        last: WALSegmentName(timeline: backup.timeline, endingAt: backup.stop, size: size),
        isContinuous: decision.isContinuous, timeline: backup.timeline, stop: backup.stop)
    }
    self.histories = histories
  }

  /// Why `file` stays; `nil` when nothing needs it.
  package func reason(_ file: WALFileName) -> String? {
    switch file {
    case .history: "a timeline's history always stays"
    case .segment(let name), .partial(let name), .backupHistory(let name, _): reason(name)
    }
  }

  private func reason(_ name: WALSegmentName) -> String? {
    // Without a backup that promises continuity there is nothing to judge by.
    guard spans.contains(where: \.isContinuous) else { return "no backup says from where on WAL is needed" }
    if let span = spans.first(where: { $0.timeline == name.timeline && $0.first <= name && name <= $0.last }) {
      return "the backup \(span.label) needs it"
    }
    for span in spans where span.isContinuous {
      if span.timeline == name.timeline {
        if span.first <= name { return "it continues the backup \(span.label)" }
      } else if let history = histories[name.timeline] {
        if history.contains(span.timeline, upTo: span.stop) { return "its timeline continues the backup \(span.label)" }
      } else if name.timeline > span.timeline {
        return "the history of its timeline isn't here"
      }
    }
    return nil
  }

  /// The first segment of each timeline from which on all WAL is kept.
  package var continuousFrom: [WALSegmentName] {
    Dictionary(grouping: spans.filter(\.isContinuous), by: \.timeline).values.compactMap { $0.map(\.first).min() }
      .sorted()
  }
}
