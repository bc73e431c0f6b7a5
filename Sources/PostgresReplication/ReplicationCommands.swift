// The small commands of the replication protocol.
import Diagnostics
import PostgresFormats

/// What IDENTIFY_SYSTEM answers.
package struct SystemIdentity: Sendable, Equatable {
  package var systemIdentifier: SystemIdentifier
  package var timeline: TimelineID
  /// Flushed on a primary, replayed on a standby.
  package var position: LSN
}

/// A timeline's history file, as the server keeps it in `pg_wal`.
package struct TimelineHistoryFile: Sendable, Equatable {
  /// "00000002.history".
  package var name: String
  /// Taken as UTF-8.
  package var content: String
}

/// Commands on a replication connection with nothing running.
/// Source: PostgreSQL manual, "Streaming Replication Protocol".
extension PostgresConnection {
  /// IDENTIFY_SYSTEM.
  package func identifySystem() throws(TidemarkError) -> SystemIdentity {
    let row = try replicationRow("IDENTIFY_SYSTEM", columnsMin: 3)
    guard let identifier = row[0].flatMap({ UInt64($0) }), let timeline = row[1].flatMap({ UInt32($0) }), timeline > 0,
      // What isn't a position is refused below, with the whole row.
      let position = row[2].flatMap({ try? LSN(text: $0) })
    else { throw unreadable("IDENTIFY_SYSTEM") }
    return SystemIdentity(
      systemIdentifier: SystemIdentifier(rawValue: identifier), timeline: TimelineID(rawValue: timeline),
      position: position)
  }

  /// TIMELINE_HISTORY. Timeline 1 has none, which the server reports as a file that can't be opened.
  package func timelineHistory(_ timeline: TimelineID) throws(TidemarkError) -> TimelineHistoryFile {
    let row = try replicationRow("TIMELINE_HISTORY \(timeline.rawValue)", columnsMin: 2)
    guard let name = row[0], let content = row[1] else { throw unreadable("TIMELINE_HISTORY") }
    return TimelineHistoryFile(name: name, content: content)
  }

  /// SHOW of the WAL segment size, in bytes.
  package func showWALSegmentByteCount() throws(TidemarkError) -> Int {
    let text = try replicationRow("SHOW wal_segment_size", columnsMin: 1)[0] ?? ""
    let units: [(String, Int)] = [("GB", 1 << 30), ("MB", 1 << 20), ("kB", 1 << 10), ("B", 1)]
    for (unit, factor) in units where text.hasSuffix(unit) {
      if let number = Int(text.dropLast(unit.count)), (1...1024).contains(number) { return number * factor }
      break
    }
    throw unreadable("SHOW wal_segment_size")
  }

  /// SHOW of the mode that the data directory has, 0o700 or 0o750.
  package func showDataDirectoryMode() throws(TidemarkError) -> UInt32 {
    let text = try replicationRow("SHOW data_directory_mode", columnsMin: 1)[0] ?? ""
    guard let mode = UInt32(text, radix: 8), mode & ~0o777 == 0 else { throw unreadable("SHOW data_directory_mode") }
    return mode
  }

  private func replicationRow(_ command: String, columnsMin: Int) throws(TidemarkError) -> [String?] {
    precondition(purpose == .replication, "\(command) is a command of the replication protocol")
    let answer = try query(command)
    guard answer.rows.count == 1, answer.rows[0].count >= columnsMin else { throw unreadable(command) }
    return answer.rows[0]
  }

  private func unreadable(_ command: String) -> TidemarkError {
    TidemarkError(.streamInvalid, "the server's answer to \(command) can't be read", object: serverName)
  }
}
