// Walks the records of one WAL segment for what recovery targets need: commit times, restore points, the end of the
// valid records. Garbage ends the walk; it never reads out of bounds. Sources: xlogrecord.h, xlog_internal.h, xact.h.
import Diagnostics

/// A record that matters to recovery targets.
package enum WALRecordEvent: Sendable, Equatable {
  /// Unix microseconds. The number is the record's own, which is zero for a prepared transaction's end.
  case commit(TransactionID, time: Int64, LSN)
  case abort(TransactionID, time: Int64, LSN)
  case restorePoint(String, time: Int64, LSN)
  /// The location; a long one is cut off.
  case tablespaceCreation(String, LSN)
}

package struct WALSegmentSummary: Sendable, Equatable {
  /// Behind the last valid record; the segment's end when a record goes on in the next one.
  package var end: LSN
  /// Where the last record begins that is in this segment whole: recovery stops at a position only when a record begins
  /// there or later (`recoveryStopsAfter`, xlogrecovery.c).
  package var lastRecord: LSN?
  /// Unix microseconds of the latest and earliest commit or abort.
  package var latestCommit: Int64?
  package var earliestCommit: Int64?
  /// The first bytes of a record that goes on in the next segment, as far as they are in this one: see
  /// ``WALRecordJoint``. Empty when more of it is here than is read of any record.
  package var cutRecord: [UInt8] = []
}

package enum WALSegmentScanner {
  private static let recordHeaderByteCount = 24
  /// Enough for the fields that are read of any record.
  static let prefixByteCount = 128
  private static let recordByteCountMax = 1 << 30

  /// Walks the records that begin in the segment.
  /// - Parameter bytes: the whole segment; its first page's header was checked.
  package static func scan(
    _ bytes: UnsafeRawBufferPointer, name: WALSegmentName, _ visit: (WALRecordEvent) -> Void = { _ in }
  ) throws(TidemarkError) -> WALSegmentSummary {
    let first = try WALPageHeader(parsing: bytes)
    guard let identity = first.identity, bytes.count == identity.segmentSize.byteCount else {
      throw TidemarkError(
        .walFileInvalid, "the segment has another size than its header says", object: name.description)
    }
    let start = first.pageAddress
    // Behind the last segment of all there is no position that could be its end.
    let (segmentEnd, overflowed) = start.rawValue.addingReportingOverflow(UInt64(bytes.count))
    if overflowed { throw TidemarkError(.walFileInvalid, "no WAL follows this segment", object: name.description) }
    var cursor = Cursor(bytes: bytes, pageByteCount: identity.blockByteCount, start: start)
    var summary = WALSegmentSummary(end: start)
    guard cursor.skip(Int(first.remainingByteCount)) else {
      summary.end = LSN(rawValue: segmentEnd)
      return summary
    }
    var prefix = [UInt8](repeating: 0, count: prefixByteCount)
    var previous: UInt64?
    while true {
      cursor.align()
      // A record can end with its page, and so with the segment.
      summary.end = LSN(rawValue: start.rawValue + UInt64(cursor.position))
      guard cursor.enterPage() else { break }
      let position = cursor.position
      summary.end = LSN(rawValue: start.rawValue + UInt64(position))
      guard cursor.peekLength() >= recordHeaderByteCount, cursor.peekLength() <= recordByteCountMax else { break }
      let length = cursor.peekLength()
      let available = cursor.read(min(length, prefixByteCount), into: &prefix)
      let lsn = start.rawValue + UInt64(position)
      if available >= recordHeaderByteCount {
        let before = number(prefix, 8, UInt64.self)
        if let previous, before != previous { break }
        previous = lsn
        note(prefix, available, LSN(rawValue: lsn), &summary, visit)
        // XLOG_SWITCH: nothing follows in this segment.
        if prefix[17] == 0, prefix[16] & 0xF0 == 0x40 {
          summary.lastRecord = LSN(rawValue: lsn)
          summary.end = LSN(rawValue: lsn + UInt64(recordHeaderByteCount))
          break
        }
      }
      guard available == min(length, prefixByteCount), cursor.skip(length - available) else {
        if available < min(length, prefixByteCount) { summary.cutRecord = Array(prefix[..<available]) }
        summary.end = LSN(rawValue: segmentEnd)
        break
      }
      summary.lastRecord = LSN(rawValue: lsn)
    }
    return summary
  }

  private static func note(
    _ prefix: [UInt8], _ available: Int, _ lsn: LSN, _ summary: inout WALSegmentSummary,
    _ visit: (WALRecordEvent) -> Void
  ) {
    let (info, manager) = (prefix[16], prefix[17])
    if let location = tablespaceCreated(by: prefix, available) { visit(.tablespaceCreation(location, lsn)) }
    // RM_XLOG_ID 0 with XLOG_RESTORE_POINT 0x70, RM_XACT_ID 1 with an operation in bits 4–6.
    guard (manager == 0 && info & 0xF0 == 0x70) || manager == 1, let data = mainData(prefix, available) else { return }
    guard data + 8 <= available else { return }
    // PostgreSQL counts microseconds from 2000-01-01.
    let time = number(prefix, data, Int64.self) &+ 946_684_800_000_000
    if manager == 0 {
      let name = prefix[(data + 8)..<available].prefix(64).prefix { $0 != 0 }
      visit(.restorePoint(String(decoding: name, as: UTF8.self), time: time, lsn))
      return
    }
    let xid = TransactionID(number(prefix, 4, UInt32.self))
    switch info & 0x70 {
    case 0x00, 0x30: visit(.commit(xid, time: time, lsn))
    case 0x20, 0x40: visit(.abort(xid, time: time, lsn))
    default: return
    }
    summary.latestCommit = max(summary.latestCommit ?? time, time)
    summary.earliestCommit = min(summary.earliestCommit ?? time, time)
  }

  /// Where the main data of a record without blocks begins.
  static func mainData(_ prefix: [UInt8], _ available: Int) -> Int? {
    var offset = recordHeaderByteCount
    while offset < available {
      switch prefix[offset] {
      case 255: return offset + 2
      case 254: return offset + 5
      case 253: offset += 3
      case 252: offset += 5
      default: return nil
      }
    }
    return nil
  }

  private static func number<Value: FixedWidthInteger>(_ bytes: [UInt8], _ offset: Int, _: Value.Type) -> Value {
    bytes[offset..<offset + MemoryLayout<Value>.size].reversed().reduce(0) { $0 << 8 | Value(truncatingIfNeeded: $1) }
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
        for index in 0..<here { buffer[done + index] = bytes[position + index] }
        position += here
        done += here
      }
      return done
    }
  }
}
