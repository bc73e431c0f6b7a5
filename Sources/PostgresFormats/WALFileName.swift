// What PostgreSQL may hand to archive_command or ask restore_command for. Every other name is refused, so that a
// wrong path can never become an object of the archive, and a partial segment never passes for a whole one.
import Diagnostics

/// The name of a file that goes through `archive_command` or `restore_command` (xlog_internal.h).
package enum WALFileName: Hashable, Sendable, CustomStringConvertible {
  /// A whole segment: 24 hexadecimal digits.
  case segment(WALSegmentName)
  /// The last, incomplete segment of a timeline that a promotion left: `.partial` at its end.
  case partial(WALSegmentName)
  /// A timeline's history: `00000002.history`.
  case history(TimelineID)
  /// A backup's history: the segment and the offset in it at which the backup starts, and `.backup`.
  case backupHistory(WALSegmentName, offset: UInt32)

  /// - Throws: `wal-file-invalid` for any other name.
  package init(text: some StringProtocol) throws(TidemarkError) {
    guard let name = WALFileName(utf8: Array(text.utf8)) else {
      throw TidemarkError(
        .walFileInvalid, "not the name of a WAL segment, timeline history or backup history file",
        object: "\"\(text)\"", next: "check archive_command and restore_command: they pass %f or %p unchanged")
    }
    self = name
  }

  private init?(utf8: [UInt8]) {
    // TLI "00000001" has no history file in PostgreSQL, but a request for it must still be answered.
    if utf8.count == 16, utf8[8...].elementsEqual(".history".utf8) {
      guard let timeline = hexadecimalNumber(utf8[..<8], uppercaseOnly: true), timeline != 0 else { return nil }
      self = .history(TimelineID(timeline))
      return
    }
    guard let segment = WALSegmentName(utf8: utf8.prefix(24)) else { return nil }
    let rest = utf8.dropFirst(24)
    if rest.isEmpty {
      self = .segment(segment)
    } else if rest.elementsEqual(".partial".utf8) {
      self = .partial(segment)
    } else if rest.count == 16, rest.first == UInt8(ascii: "."), rest.suffix(7).elementsEqual(".backup".utf8),
      let offset = hexadecimalNumber(rest.dropFirst().prefix(8), uppercaseOnly: true)
    {
      self = .backupHistory(segment, offset: offset)
    } else {
      return nil
    }
  }

  package var description: String {
    switch self {
    case .segment(let name): name.description
    case .partial(let name): "\(name).partial"
    case .history(let timeline): timeline.historyFileName
    case .backupHistory(let name, let offset): "\(name).\(hexadecimalText(offset, width: 8)).backup"
    }
  }

  package var timeline: TimelineID {
    switch self {
    case .segment(let name), .partial(let name), .backupHistory(let name, _): name.timeline
    case .history(let timeline): timeline
    }
  }
}
