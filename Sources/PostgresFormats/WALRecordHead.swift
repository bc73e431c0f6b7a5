// One WAL record that matters to a recovery: what it is, and the few fields of it that are read. A record that is cut
// off or makes no sense is none. Sources: xlogrecord.h, xact.h (`ParseCommitRecord`, `ParseAbortRecord` in xactdesc.c),
// tablespace.h.

/// `XLogRecord`: the fixed header of a record.
struct WALRecordHead {
  static let byteCount = 24

  private let transaction: UInt32
  private let info: UInt8
  private let manager: UInt8
  let previous: UInt64

  /// `nil` when fewer bytes are there than the header has.
  init?(_ bytes: ArraySlice<UInt8>) {
    guard bytes.count >= Self.byteCount else { return nil }
    let start = bytes.startIndex
    transaction = Self.number(bytes, start + 4, UInt32.self)
    previous = Self.number(bytes, start + 8, UInt64.self)
    info = bytes[start + 16]
    manager = bytes[start + 17]
  }

  // RM_XLOG_ID 0, RM_XACT_ID 1, RM_TBLSPC_ID 5.
  /// `XLOG_SWITCH`.
  var isSwitch: Bool { manager == 0 && info & 0xF0 == 0x40 }
  private var isRestorePoint: Bool { manager == 0 && info & 0xF0 == 0x70 }
  private var isCreateTablespace: Bool { manager == 5 && info & 0xF0 == 0 }
  /// `XLOG_XACT_COMMIT` 0x00 and `XLOG_XACT_COMMIT_PREPARED` 0x30, whose operation is bits 4 to 6.
  private var isCommit: Bool { manager == 1 && (info & 0x70 == 0x00 || info & 0x70 == 0x30) }
  /// `XLOG_XACT_ABORT` 0x20 and `XLOG_XACT_ABORT_PREPARED` 0x40.
  private var isAbort: Bool { manager == 1 && (info & 0x70 == 0x20 || info & 0x70 == 0x40) }
  /// The end of a prepared transaction, whose number stands deep in the record.
  var isPrepared: Bool { manager == 1 && (info & 0x70 == 0x30 || info & 0x70 == 0x40) }
  var matters: Bool { isRestorePoint || isCommit || isAbort || isCreateTablespace }

  /// What the record says; `nil` for one that can't be read.
  func event(_ record: ArraySlice<UInt8>, _ lsn: LSN, _ version: PostgresVersion) -> WALRecordEvent? {
    guard let data = Self.mainData(record), data + 8 <= record.endIndex else { return nil }
    if isCreateTablespace {
      let path = record[(data + 4)...].prefix { $0 != 0 }
      return .createTablespace(
        oid: Self.number(record, data, UInt32.self), location: String(decoding: path, as: UTF8.self), lsn)
    }
    // PostgreSQL counts microseconds from 2000-01-01.
    let time = Self.number(record, data, Int64.self) &+ 946_684_800_000_000
    if isRestorePoint {
      // MAXFNAMELEN
      let name = record[(data + 8)...].prefix(64).prefix { $0 != 0 }
      return .restorePoint(String(decoding: name, as: UTF8.self), time: time, lsn)
    }
    var number = transaction
    if isPrepared {
      guard let prepared = prepared(record, data, version) else { return nil }
      number = prepared
    }
    return isCommit
      ? .commit(TransactionID(number), time: time, lsn) : .abort(TransactionID(number), time: time, lsn)
  }

  /// The number of the prepared transaction: `XACT_XINFO_HAS_TWOPHASE`, behind everything that may stand before it.
  private func prepared(_ record: ArraySlice<UInt8>, _ data: Int, _ version: PostgresVersion) -> UInt32? {
    var offset = data + 8
    func word() -> UInt32? {
      guard offset >= 0, offset + 4 <= record.endIndex else { return nil }
      defer { offset += 4 }
      return Self.number(record, offset, UInt32.self)
    }
    // XLOG_XACT_HAS_INFO
    guard info & 0x80 != 0, let flags = word() else { return nil }
    if flags & 1 << 0 != 0 { offset += 8 }  // database and tablespace
    /// Steps over an array that begins with its count.
    func skip(_ itemByteCount: Int) -> Bool {
      guard let count = word() else { return false }
      offset += Int(count) * itemByteCount
      return offset <= record.endIndex
    }
    if flags & 1 << 1 != 0, !skip(4) { return nil }  // subtransactions
    if flags & 1 << 2 != 0, !skip(12) { return nil }  // relations' files
    // Statistics: `xl_xact_stats_item`, whose object number has 64 bits since 18.
    if flags & 1 << 8 != 0, !skip(version >= .v18 ? 16 : 12) { return nil }
    if isCommit, flags & 1 << 3 != 0, !skip(16) { return nil }  // invalidation messages
    return flags & 1 << 4 != 0 ? word() : nil
  }

  /// Where the main data of a record without blocks begins: XLR_BLOCK_ID_DATA_SHORT 255, _LONG 254, _ORIGIN 253,
  /// _TOPLEVEL_XID 252.
  private static func mainData(_ record: ArraySlice<UInt8>) -> Int? {
    var offset = record.startIndex + byteCount
    while offset < record.endIndex {
      switch record[offset] {
      case 255: return offset + 2
      case 254: return offset + 5
      case 253: offset += 3
      case 252: offset += 5
      default: return nil
      }
    }
    return nil
  }

  private static func number<Value: FixedWidthInteger>(_ bytes: ArraySlice<UInt8>, _ offset: Int, _: Value.Type)
    -> Value
  {
    bytes[offset..<offset + MemoryLayout<Value>.size].withUnsafeBytes {
      Value(littleEndian: $0.loadUnaligned(as: Value.self))
    }
  }
}
