// Records that begin at the end of one WAL segment and go on in the next: the scanner looks at each segment alone, and
// sees neither part of them whole. Sources: xlogrecord.h, tablespace.h (xl_tblspc_create_rec).
import Diagnostics

/// Puts the parts of such records together, whatever the order in which the segments come.
package struct WALRecordJoint: Sendable {
  /// The beginnings by the position at which their segment ends, the rests by the one at which theirs begins.
  private var beginnings: [UInt64: [UInt8]] = [:]
  private var rests: [UInt64: (remaining: Int, bytes: [UInt8])] = [:]

  package init() {}

  /// Takes one segment: its summary's `cutRecord`, its first page's header, and its bytes.
  /// - Returns: the locations of tablespaces that records created which are complete now.
  package mutating func tablespacesCreated(
    _ cutRecord: [UInt8], _ first: WALPageHeader, _ segment: UnsafeRawBufferPointer
  ) -> [String] {
    let start = first.pageAddress.rawValue
    let end = start &+ UInt64(segment.count)
    let remaining = Int(first.remainingByteCount)
    // The first page is larger than what is read of any record, so no further page's header comes between.
    rests[start] = (remaining, Array(segment.dropFirst(first.byteCount).prefix(min(remaining, Self.byteCount))))
    beginnings[end] = cutRecord
    return [start, end].compactMap { position in
      guard let beginning = beginnings[position], beginning.count >= 4, let rest = rests[position] else { return nil }
      // `xl_tot_len` tells whether these two belong together: where a timeline ends, they need not.
      let length = beginning.prefix(4).reversed().reduce(0) { $0 << 8 | Int($1) }
      guard length == beginning.count + rest.remaining else { return nil }
      let record = Array((beginning + rest.bytes).prefix(Self.byteCount))
      return WALSegmentScanner.tablespaceCreated(by: record, record.count)
    }
  }

  private static var byteCount: Int { WALSegmentScanner.prefixByteCount }
}

extension WALSegmentScanner {
  /// RM_TBLSPC_ID is 5 (rmgrlist.h), XLOG_TBLSPC_CREATE 0x00; the data are the OID and the path with a zero byte.
  static func tablespaceCreated(by record: [UInt8], _ available: Int) -> String? {
    guard available > 24, record[17] == 5, record[16] & 0xF0 == 0, let data = mainData(record, available),
      data + 4 <= available
    else { return nil }
    return String(decoding: record[(data + 4)..<available].prefix { $0 != 0 }, as: UTF8.self)
  }
}
