// How a timeline came to be: which timelines it descends from, and where each was left. Recovery follows these files,
// not the names in the archive, so a file that can't be right is refused as a whole. A server that recovers towards a
// newer timeline and stops before its beginning writes a line for it all the same, with an earlier position than the
// lines above: what counts then is what PostgreSQL makes of it, which is that no record lies on those timelines.
import Diagnostics

/// A timeline with its ancestors (PostgreSQL's `0000000N.history`; src/backend/access/transam/timeline.c).
package struct TimelineHistory: Sendable, Hashable {
  /// An ancestor, and where the next timeline left it.
  package struct Entry: Sendable, Hashable {
    package var timeline: TimelineID
    /// The first position that no longer belongs to `timeline`.
    package var switchLSN: LSN
    /// Why, in the words of the server that switched.
    package var reason: String

    package init(timeline: TimelineID, switchLSN: LSN, reason: String) {
      self.timeline = timeline
      self.switchLSN = switchLSN
      self.reason = reason
    }
  }

  /// A timeline's part of the path, from `start` up to, not including, `end`; the newest one has no end.
  package struct Range: Sendable, Hashable {
    package var timeline: TimelineID
    package var start: LSN
    package var end: LSN?
  }

  /// A server writes one line per promotion.
  package static let byteCountMax = 1 << 20

  package let timeline: TimelineID
  /// Oldest first, as the file has them. Empty for a timeline without a history file, which is the first one.
  package let entries: [Entry]
  /// The ancestors on which records of this timeline's past lie, each with where it was really left.
  private let ancestors: [Entry]

  /// A timeline without ancestors.
  package init(root timeline: TimelineID) {
    self.timeline = timeline
    entries = []
    ancestors = []
  }

  /// - Throws: `wal-file-invalid` unless the timelines rise, below `timeline`.
  package init(timeline: TimelineID, entries: [Entry]) throws(TidemarkError) {
    var previous = Entry(timeline: TimelineID(0), switchLSN: .invalid, reason: "")
    for entry in entries {
      guard entry.timeline > previous.timeline, entry.timeline < timeline else {
        throw Self.invalid(timeline, "timeline \(entry.timeline) can't stand after timeline \(previous.timeline)")
      }
      previous = entry
    }
    self.timeline = timeline
    self.entries = entries
    ancestors = Self.ancestors(entries)
  }

  /// `tliOfPointInHistory` looks from the newest line to the oldest, so a later line's position cuts the earlier ones.
  private static func ancestors(_ entries: [Entry]) -> [Entry] {
    var limit = LSN(rawValue: .max)
    var cut: [Entry] = []
    for var entry in entries.reversed() {
      limit = min(limit, entry.switchLSN)
      entry.switchLSN = limit
      cut.append(entry)
    }
    var begin = LSN.invalid
    return cut.reversed().filter { entry in
      defer { begin = entry.switchLSN }
      return begin < entry.switchLSN
    }
  }

  /// Parses the history file of `timeline`: a line for each ancestor, of number, switch position and reason, and
  /// comments after `#` (`readTimeLineHistory`).
  /// - Throws: `wal-file-invalid` for anything else, an empty list and more than ``byteCountMax`` bytes too.
  package init(timeline: TimelineID, parsing bytes: some Collection<UInt8>) throws(TidemarkError) {
    guard bytes.count <= Self.byteCountMax else { throw Self.invalid(timeline, "it is too long") }
    guard let text = String(validating: bytes, as: UTF8.self), !text.utf8.contains(0) else {
      throw Self.invalid(timeline, "it isn't text")
    }
    var entries: [Entry] = []
    for line in text.utf8.split(whereSeparator: { $0 == UInt8(ascii: "\n") || $0 == UInt8(ascii: "\r") }) {
      let content = line.drop(while: Self.isBlank)
      if content.isEmpty || content.first == UInt8(ascii: "#") { continue }
      let fields = content.split(maxSplits: 2, whereSeparator: Self.isBlank)
      guard fields.count >= 2, let number: UInt32 = decimalNumber(fields[0]), number != 0,
        let switchLSN = LSN(utf8: fields[1])
      else { throw Self.invalid(timeline, "not a timeline and a position: \"\(Substring(content))\"") }
      let reason = fields.count == 3 ? String(Substring(fields[2].drop(while: Self.isBlank))) : ""
      entries.append(Entry(timeline: TimelineID(number), switchLSN: switchLSN, reason: reason))
    }
    guard !entries.isEmpty else { throw Self.invalid(timeline, "it names no timeline") }
    try self.init(timeline: timeline, entries: entries)
  }

  /// The file's text as a server writes it (`writeTimeLineHistory`).
  package var fileText: String {
    entries.map { "\($0.timeline)\t\($0.switchLSN)\t\($0.reason)\n" }.joined(separator: "\n")
  }

  /// The ancestors' parts and this timeline's own, oldest first. Without gaps, from position 0/0.
  package var ranges: [Range] {
    var start = LSN.invalid
    var ranges: [Range] = []
    for entry in ancestors {
      ranges.append(Range(timeline: entry.timeline, start: start, end: entry.switchLSN))
      start = entry.switchLSN
    }
    ranges.append(Range(timeline: timeline, start: start, end: nil))
    return ranges
  }

  /// The timeline on which a recovery towards this one replays the record at `lsn` (`tliOfPointInHistory`).
  package func timeline(of lsn: LSN) -> TimelineID {
    ancestors.first { lsn < $0.switchLSN }?.timeline ?? timeline
  }

  /// Where `ancestor` was left; nil for this timeline itself and for those it doesn't descend from.
  package func switchLSN(of ancestor: TimelineID) -> LSN? {
    ancestors.first { $0.timeline == ancestor }?.switchLSN
  }

  /// Whether a recovery towards this timeline can begin with what `other` held up to `lsn`: `other` is this timeline,
  /// or an ancestor that was left no earlier than at `lsn`.
  package func contains(_ other: TimelineID, upTo lsn: LSN) -> Bool {
    if other == timeline { return true }
    guard let end = switchLSN(of: other) else { return false }
    return lsn <= end
  }

  /// The parts of the path from `older` to this timeline; nil where it doesn't descend from `older`.
  package func path(from older: TimelineID) -> [Range]? {
    let all = ranges
    guard let first = all.firstIndex(where: { $0.timeline == older }) else { return nil }
    return Array(all[first...])
  }

  private static func isBlank(_ byte: UInt8) -> Bool { byte == UInt8(ascii: " ") || byte == UInt8(ascii: "\t") }

  private static func invalid(_ timeline: TimelineID, _ cause: String) -> TidemarkError {
    TidemarkError(.walFileInvalid, "not a timeline history", object: timeline.historyFileName, cause: cause)
  }
}
