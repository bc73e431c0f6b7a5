// Walks the records of one WAL segment for what recovery targets need: commit times, restore points, the end of the
// valid records. Garbage ends the walk; it never reads out of bounds. Sources: xlogrecord.h, xlog_internal.h.
import Diagnostics

/// A record that matters to a recovery.
package enum WALRecordEvent: Sendable, Equatable {
  /// The transaction's own number, of a prepared one too; the time in Unix microseconds; where the record begins.
  case commit(TransactionID, time: Int64, LSN)
  case abort(TransactionID, time: Int64, LSN)
  case restorePoint(String, time: Int64, LSN)
  /// The replay needs the directory `location`.
  case createTablespace(oid: UInt32, location: String, LSN)

  package var lsn: LSN {
    switch self {
    case .commit(_, _, let lsn), .abort(_, _, let lsn), .restorePoint(_, _, let lsn), .createTablespace(_, _, let lsn):
      lsn
    }
  }
}

/// A record that goes on in the next segment, as far as this one has it.
package struct UnfinishedWALRecord: Sendable, Equatable {
  package var start: LSN
  package var byteCount: Int
  /// Empty when it is known to be none that matters.
  package var bytes: [UInt8]
  package var missingByteCount: Int { byteCount - bytes.count }
}

package struct WALSegmentSummary: Sendable, Equatable {
  /// Behind the last valid record; the segment's end when a record goes on in the next one.
  package var end: LSN
  /// Where the last record begins that ends in this segment.
  package var lastRecord: LSN?
  /// Unix microseconds of the latest and earliest commit or abort.
  package var latestCommit: Int64?
  package var earliestCommit: Int64?
  package var unfinished: UnfinishedWALRecord?
}

package enum WALSegmentScanner {
  /// Enough for the fields that are read of any record but those of prepared transactions.
  private static let prefixByteCount = 128
  private static let recordByteCountMax = 1 << 30
  /// A record of a prepared transaction is read whole up to this: some 250 000 subtransactions.
  package static let wholeRecordByteCountMax = 1 << 20

  /// Walks the records that begin in the segment.
  /// - Parameter bytes: the whole segment; its first page's header was checked.
  package static func scan(
    _ bytes: UnsafeRawBufferPointer, name: WALSegmentName, _ visit: (WALRecordEvent) -> Void = { _ in }
  ) throws(TidemarkError) -> WALSegmentSummary {
    let (first, identity) = try header(bytes, name)
    let start = first.pageAddress
    // Behind the last segment of all there is no position that could be its end.
    let (end, overflowed) = start.rawValue.addingReportingOverflow(UInt64(bytes.count))
    if overflowed { throw TidemarkError(.walFileInvalid, "no WAL follows this segment", object: name.description) }
    let segmentEnd = LSN(rawValue: end)
    var cursor = Cursor(bytes: bytes, pageByteCount: identity.blockByteCount, start: start)
    var summary = WALSegmentSummary(end: start)
    guard cursor.skip(Int(first.remainingByteCount)) else {
      summary.end = segmentEnd
      return summary
    }
    var buffer = [UInt8](repeating: 0, count: prefixByteCount)
    var previous: UInt64?
    while true {
      cursor.align()
      // A record can end with its page, and so with the segment.
      summary.end = LSN(rawValue: start.rawValue + UInt64(cursor.position))
      guard cursor.enterPage() else { break }
      let position = cursor.position
      let lsn = LSN(rawValue: start.rawValue + UInt64(position))
      summary.end = lsn
      let length = cursor.peekLength()
      guard length >= WALRecordHead.byteCount, length <= recordByteCountMax else { break }
      let beginning = cursor
      let available = cursor.read(min(length, prefixByteCount), into: &buffer)
      let head = WALRecordHead(buffer[..<available])
      if let head {
        if let previous, head.previous != previous { break }
        previous = lsn.rawValue
      }
      let isWhole = available == min(length, prefixByteCount) && cursor.skip(length - available)
      guard isWhole else {
        // Too few bytes to know what it is count as one that matters.
        let matters = head?.matters ?? true
        var rest = beginning
        var known = matters ? [UInt8](repeating: 0, count: min(length, wholeRecordByteCountMax)) : []
        if matters { known.removeLast(known.count - rest.read(known.count, into: &known)) }
        summary.unfinished = UnfinishedWALRecord(start: lsn, byteCount: length, bytes: known)
        summary.end = segmentEnd
        break
      }
      summary.lastRecord = lsn
      guard let head else { continue }
      if head.isSwitch {
        // Nothing follows in this segment.
        summary.end = LSN(rawValue: lsn.rawValue + UInt64(WALRecordHead.byteCount))
        break
      }
      guard head.matters else { continue }
      var record = buffer[..<available]
      if head.isPrepared, length > available {
        var whole = [UInt8](repeating: 0, count: min(length, wholeRecordByteCountMax))
        var again = beginning
        whole.removeLast(whole.count - again.read(whole.count, into: &whole))
        record = whole[...]
      }
      guard let event = head.event(record, lsn, first.version) else { continue }
      summary.note(event)
      visit(event)
    }
    return summary
  }

  /// The bytes at the segment's beginning that belong to a record of the segment before, `limit` at most.
  package static func continuation(
    _ bytes: UnsafeRawBufferPointer, name: WALSegmentName, limit: Int
  ) throws(TidemarkError) -> [UInt8] {
    let (first, identity) = try header(bytes, name)
    var cursor = Cursor(bytes: bytes, pageByteCount: identity.blockByteCount, start: first.pageAddress)
    var result = [UInt8](repeating: 0, count: min(limit, Int(min(first.remainingByteCount, UInt32(1 << 30)))))
    result.removeLast(result.count - cursor.read(result.count, into: &result))
    return result
  }

  /// What `record` is together with its continuation in the next segment.
  package static func event(
    _ record: UnfinishedWALRecord, continuation: [UInt8], version: PostgresVersion
  ) -> WALRecordEvent? {
    let bytes = record.bytes + continuation.prefix(max(0, record.missingByteCount))
    guard let head = WALRecordHead(bytes[...]), head.matters else { return nil }
    return head.event(bytes[...], record.start, version)
  }

  /// The version that wrote the segment.
  package static func version(_ bytes: UnsafeRawBufferPointer) throws(TidemarkError) -> PostgresVersion {
    try WALPageHeader(parsing: bytes).version
  }

  private static func header(
    _ bytes: UnsafeRawBufferPointer, _ name: WALSegmentName
  ) throws(TidemarkError) -> (WALPageHeader, WALPageHeader.Identity) {
    let first = try WALPageHeader(parsing: bytes)
    guard let identity = first.identity, bytes.count == identity.segmentSize.byteCount else {
      throw TidemarkError(
        .walFileInvalid, "the segment has another size than its header says", object: name.description)
    }
    return (first, identity)
  }

  /// A position among the bytes of records, which skips the pages' headers.
  private struct Cursor {
    let bytes: UnsafeRawBufferPointer
    let pageByteCount: Int
    let start: LSN
    private(set) var position = WALPageHeader.longByteCount

    init(bytes: UnsafeRawBufferPointer, pageByteCount: Int, start: LSN) {
      self.bytes = bytes
      self.pageByteCount = pageByteCount
      self.start = start
    }

    mutating func align() { position = (position + 7) & ~7 }

    /// At a page's beginning steps over its header; `false` at the end or where no valid page follows.
    mutating func enterPage() -> Bool {
      guard position % pageByteCount == 0 else { return position < bytes.count }
      guard position < bytes.count,
        let header = try? WALPageHeader(
          parsing: UnsafeRawBufferPointer(rebasing: bytes[position..<position + pageByteCount])),
        header.pageAddress.rawValue == start.rawValue + UInt64(position)
      else { return false }
      position += header.byteCount
      return true
    }

    /// `xl_tot_len` at the position, zero where there is none. Records begin at multiples of 8, so it never spans pages.
    func peekLength() -> Int {
      guard position + 4 <= bytes.count else { return 0 }
      return Int(UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: position, as: UInt32.self)))
    }

    mutating func skip(_ count: Int) -> Bool {
      var left = count
      while left > 0 {
        guard enterPage() else { return false }
        let here = min(left, pageByteCount - position % pageByteCount)
        position += here
        left -= here
      }
      return true
    }

    mutating func read(_ count: Int, into buffer: inout [UInt8]) -> Int {
      var done = 0
      while done < count {
        guard enterPage() else { return done }
        let here = min(count - done, pageByteCount - position % pageByteCount)
        buffer.withUnsafeMutableBytes { output in
          UnsafeMutableRawBufferPointer(rebasing: output[done..<done + here]).copyMemory(
            from: UnsafeRawBufferPointer(rebasing: bytes[position..<position + here]))
        }
        position += here
        done += here
      }
      return done
    }
  }
}

extension WALSegmentSummary {
  fileprivate mutating func note(_ event: WALRecordEvent) {
    switch event {
    case .commit(_, let time, _), .abort(_, let time, _):
      latestCommit = max(latestCommit ?? time, time)
      earliestCommit = min(earliestCommit ?? time, time)
    case .restorePoint, .createTablespace: return
    }
  }
}
