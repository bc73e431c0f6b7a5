// pg_control, as far as Tidemark reads it: whose cluster a directory is. Layout: src/include/catalog/pg_control.h,
// `ControlFileData`; its fields up to the segment size are the same in PostgreSQL 13 to 18.
import Diagnostics
import Glibc

package struct ControlFile: Sendable, Equatable {
  package var systemIdentifier: SystemIdentifier
  /// 1300 for PostgreSQL 13 to 17, 1800 for 18.
  package var controlVersion: UInt32
  package var catalogVersion: UInt32
  /// `DBState`: 1 shut down, 2 shut down in recovery, 6 in production.
  package var state: UInt32
  package var checkpoint: LSN
  package var timeline: TimelineID
  /// How far a standby has come, as of its last write of the file; 0/0 on a primary.
  package var minimumRecoveryEnd: LSN
  package var minimumRecoveryTimeline: TimelineID
  package var segmentSize: WALSegmentSize

  /// Where the CRC32C of everything before it lies.
  private static let checksumOffsets: [UInt32: Int] = [1300: 288, 1800: 292]

  /// - Throws: `wal-file-invalid` for anything but a whole control file of PostgreSQL 15 to 18.
  package init(_ bytes: [UInt8]) throws(TidemarkError) {
    func number<Value: FixedWidthInteger>(_ offset: Int, _: Value.Type) -> Value {
      bytes[offset..<offset + MemoryLayout<Value>.size].reversed().reduce(0) { $0 << 8 | Value(truncatingIfNeeded: $1) }
    }
    guard bytes.count >= 512 else { throw Self.invalid("it has \(bytes.count) bytes") }
    controlVersion = number(8, UInt32.self)
    guard let checksumOffset = Self.checksumOffsets[controlVersion] else {
      throw Self.invalid("its version is \(controlVersion)")
    }
    let checksum = bytes.withUnsafeBytes { CRC32C.of(UnsafeRawBufferPointer(rebasing: $0[..<checksumOffset])) }
    guard checksum == number(checksumOffset, UInt32.self) else { throw Self.invalid("its checksum is wrong") }
    systemIdentifier = SystemIdentifier(rawValue: number(0, UInt64.self))
    catalogVersion = number(12, UInt32.self)
    state = number(16, UInt32.self)
    checkpoint = LSN(rawValue: number(32, UInt64.self))
    timeline = TimelineID(number(48, UInt32.self))
    minimumRecoveryEnd = LSN(rawValue: number(136, UInt64.self))
    minimumRecoveryTimeline = TimelineID(number(144, UInt32.self))
    let segmentByteCount = Int(number(228, UInt32.self))
    guard let size = WALSegmentSize(byteCount: segmentByteCount) else {
      throw Self.invalid("its segment size is \(segmentByteCount)")
    }
    segmentSize = size
  }

  /// Attempts at a file that is being written, and the microseconds between them.
  private static let attempts = (count: 10, pause: UInt32(10_000))

  /// The control file of a cluster that may be running: PostgreSQL writes it in place, so one reading may find it half
  /// old and half new, and its own tools try again (controldata_utils.c, `get_controlfile`). A restore command that failed
  /// for it would end a standby.
  package init(rereading read: () throws(TidemarkError) -> [UInt8]) throws(TidemarkError) {
    for _ in 1..<Self.attempts.count {
      let bytes = try read()
      do throws(TidemarkError) {
        self = try ControlFile(bytes)
        return
      } catch { usleep(Self.attempts.pause) }
    }
    self = try ControlFile(try read())
  }

  private static func invalid(_ cause: String) -> TidemarkError {
    TidemarkError(.walFileInvalid, "pg_control can't be read", cause: cause)
  }
}
