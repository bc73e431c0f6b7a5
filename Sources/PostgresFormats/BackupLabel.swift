// The file that tells recovery where a base backup's redo begins. Tidemark reads it to check it against what the
// server said on the wire; it never writes or changes one.
import Diagnostics

/// `backup_label` of PostgreSQL 15 to 18 (`build_backup_content`, xlogbackup.c; `read_backup_label`, xlogrecovery.c).
package struct BackupLabel: Sendable, Hashable {
  /// Where redo starts.
  package var startLSN: LSN
  /// The segment that holds `startLSN`, as the server names it.
  package var startSegment: WALSegmentName
  package var checkpointLSN: LSN
  package var startTimeline: TimelineID
  /// "streamed" for a base backup over the replication protocol.
  package var method: String
  /// Whether a standby was the source.
  package var isFromStandby: Bool
  /// In the server's `log_timezone`, as text: for people.
  package var startTime: String
  package var label: String
  /// Where the backup is an incremental one (PostgreSQL 17 and later): the start of the one before.
  package var incrementalFromLSN: LSN?

  package static let byteCountMax = 64 << 10

  /// - Throws: `stream-invalid` where a line that recovery needs is missing or can't be read.
  package init(parsing bytes: some Collection<UInt8>) throws(TidemarkError) {
    guard bytes.count <= Self.byteCountMax, let text = String(validating: bytes, as: UTF8.self) else {
      throw Self.invalid("it isn't text, or is too long")
    }
    var fields: [Substring: Substring] = [:]
    for line in text.split(separator: "\n") {
      guard let colon = line.firstRange(of: ": ") else { continue }
      let key = line[..<colon.lowerBound]
      // Lines of later versions are ignored, and of a key that stands twice the first counts, as in recovery.
      if fields[key] == nil { fields[key] = line[colon.upperBound...] }
    }
    func field(_ key: Substring) throws(TidemarkError) -> Substring {
      guard let value = fields[key] else { throw Self.invalid("\(key) is missing") }
      return value
    }
    let start = try field("START WAL LOCATION")
    let parts = start.split(separator: " ")
    guard parts.count == 3, let lsn = LSN(utf8: parts[0].utf8), lsn.isValid, parts[1] == "(file",
      parts[2].last == ")", let segment = WALSegmentName(parts[2].dropLast())
    else { throw Self.invalid("START WAL LOCATION is \"\(start)\"") }
    guard let checkpoint = LSN(utf8: try field("CHECKPOINT LOCATION").utf8), checkpoint >= lsn else {
      throw Self.invalid("CHECKPOINT LOCATION is \"\(try field("CHECKPOINT LOCATION"))\"")
    }
    guard let number: UInt32 = decimalNumber(try field("START TIMELINE").utf8), number != 0,
      segment.timeline == TimelineID(number)
    else { throw Self.invalid("START TIMELINE is \"\(try field("START TIMELINE"))\"") }
    switch try field("BACKUP FROM") {
    case "primary": isFromStandby = false
    case "standby": isFromStandby = true
    case let source: throw Self.invalid("BACKUP FROM is \"\(source)\"")
    }
    if let text = fields["INCREMENTAL FROM LSN"] {
      guard let previous = LSN(utf8: text.utf8) else { throw Self.invalid("INCREMENTAL FROM LSN is \"\(text)\"") }
      incrementalFromLSN = previous
    }
    startLSN = lsn
    startSegment = segment
    checkpointLSN = checkpoint
    startTimeline = TimelineID(number)
    method = String(try field("BACKUP METHOD"))
    startTime = String(try field("START TIME"))
    label = String(fields["LABEL"] ?? "")
  }

  private static func invalid(_ cause: String) -> TidemarkError {
    TidemarkError(.streamInvalid, "cannot read the backup label", object: "backup_label", cause: cause)
  }
}
