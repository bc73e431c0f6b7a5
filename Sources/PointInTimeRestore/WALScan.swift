// Looks for records in archived WAL: segments are read in parallel and by as many threads as memory allows, each once,
// whatever number of backups is considered. A record that spans two segments is put together.
import BackupRepository
import Diagnostics
import Envelope
import PostgresFormats
import Synchronization
import SystemSupport

final class WALScan: Sendable {
  /// A segment's plaintext, its sealed copy and what receiving them takes.
  private static let memoryByteCountMax = 120 << 20
  private static let threadCountMax = 3
  /// Bytes of a record's continuation that are kept of each segment, since most records that span two are short.
  private static let continuationByteCountKept = 512

  /// Of each segment: PostgreSQL takes the first, but a replay may begin in the midst of a segment.
  private static let matchCountKept = 64

  private struct Scanned: Sendable {
    var matches: [WALRecordEvent] = []
    var unfinished: UnfinishedWALRecord?
    var continuation: [UInt8] = []
    var version: PostgresVersion
  }

  private let repository: Repository
  private let layout: LineageLayout
  private let threadCount: Int
  private let isMatch: @Sendable (WALRecordEvent) -> Bool
  private let scanned = Mutex<[WALSegmentName: Scanned]>([:])

  init(
    _ repository: Repository, _ layout: LineageLayout, _ size: WALSegmentSize,
    isMatch: @escaping @Sendable (WALRecordEvent) -> Bool
  ) {
    self.repository = repository
    self.layout = layout
    self.isMatch = isMatch
    threadCount = max(1, min(Self.threadCountMax, Self.memoryByteCountMax / (size.byteCount * 5 / 2)))
  }

  /// The first record at or behind `start` in `segments`, which follow each other, that matches.
  func first(in segments: [WALSegmentName], from start: LSN) throws(TidemarkError) -> WALRecordEvent? {
    let next = Counter()
    // Behind a match nothing needs to be read.
    let end = Mutex(segments.count)
    let hasFailed = Cancellation()
    try withThreads("scan", count: threadCount, onFailure: { _ in hasFailed.cancel() }) { [self] _ in
      while !hasFailed.isCancelled {
        try Termination.check()
        let index = next.add(1) - 1
        guard index < end.withLock({ $0 }) else { return }
        let name = segments[index]
        if scanned.withLock({ $0[name] == nil }) {
          let result = try scan(name)
          scanned.withLock { $0[name] = result }
        }
        if scanned.withLock({ $0[name]?.matches.contains { $0.lsn >= start } == true }) {
          end.withLock { $0 = min($0, index) }
        }
      }
    }
    for (index, name) in segments.enumerated() {
      guard let here = scanned.withLock({ $0[name] }) else { return nil }
      if let match = here.matches.first(where: { $0.lsn >= start }) { return match }
      if let record = here.unfinished, index + 1 < segments.count,
        let event = try finished(record, in: segments[index + 1]), isMatch(event), event.lsn >= start
      {
        return event
      }
    }
    return nil
  }

  private func scan(_ name: WALSegmentName) throws(TidemarkError) -> Scanned {
    let bytes = try segment(name)
    return try bytes.withUnsafeBytes { buffer in
      Result { () throws(TidemarkError) in
        var result = Scanned(version: try WALSegmentScanner.version(buffer))
        let summary = try WALSegmentScanner.scan(buffer, name: name) { event in
          if result.matches.count < Self.matchCountKept, isMatch(event) { result.matches.append(event) }
        }
        if let record = summary.unfinished, !record.bytes.isEmpty { result.unfinished = record }
        result.continuation = try WALSegmentScanner.continuation(
          buffer, name: name, limit: Self.continuationByteCountKept)
        return result
      }
    }.get()
  }

  /// `record` with the rest of it from the segment that follows.
  private func finished(
    _ record: UnfinishedWALRecord, in next: WALSegmentName
  ) throws(TidemarkError) -> WALRecordEvent? {
    guard let there = scanned.withLock({ $0[next] }) else { return nil }
    var rest = there.continuation
    if record.missingByteCount > rest.count, rest.count == Self.continuationByteCountKept {
      let bytes = try segment(next)
      rest = try bytes.withUnsafeBytes { buffer in
        Result { () throws(TidemarkError) in
          try WALSegmentScanner.continuation(buffer, name: next, limit: WALSegmentScanner.wholeRecordByteCountMax)
        }
      }.get()
    }
    return WALSegmentScanner.event(record, continuation: rest, version: there.version)
  }

  private func segment(_ name: WALSegmentName) throws(TidemarkError) -> [UInt8] {
    try repository.readSealed(.walSegment, layout.wal(.segment(name)), limit: 1 << 30).plaintext
  }
}
