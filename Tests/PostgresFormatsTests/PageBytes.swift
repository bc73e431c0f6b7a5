// Pages of WAL made by hand, from xlog_internal.h, so that a test can spoil any field.
import SystemSupport

@testable import PostgresFormats

/// A segment of zeros but for its pages' headers.
struct PageBytes {
  var magic: UInt16 = 0xD110
  var flags: UInt16 = 0x0002
  var timeline: UInt32 = 1
  var address: UInt64 = 0x300_0000
  var remaining: UInt32 = 0
  var system: UInt64 = 7_301_234_567_890_123_456
  var segmentSize: UInt32 = 1 << 20
  var blockSize: UInt32 = 8192

  /// The long header, 40 bytes.
  var header: [UInt8] {
    little(magic) + little(flags) + little(timeline) + little(address) + little(remaining) + little(UInt32(0))
      + little(system) + little(segmentSize) + little(blockSize)
  }

  /// The whole segment; the first page's address decides the others'.
  var segment: [UInt8] {
    var bytes = [UInt8](repeating: 0, count: Int(segmentSize))
    bytes.replaceSubrange(0..<40, with: header)
    for position in stride(from: Int(blockSize), to: bytes.count, by: Int(blockSize)) {
      let short =
        little(magic) + little(UInt16(0)) + little(timeline) + little(address &+ UInt64(position)) + little(UInt32(0))
        + little(UInt32(0))
      bytes.replaceSubrange(position..<position + 24, with: short)
    }
    return bytes
  }
}

func little<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
  withUnsafeBytes(of: value.littleEndian) { Array($0) }
}

/// A WAL record without blocks, whose main data are `data`; the checksum is left zero.
func record(manager: UInt8, info: UInt8, xid: UInt32 = 0, previous: UInt64, _ data: [UInt8]) -> [UInt8] {
  let main = data.count < 256 ? [255, UInt8(data.count)] : [254] + little(UInt32(data.count))
  let length = UInt32(24 + main.count + data.count)
  return little(length) + little(xid) + little(previous) + [info, manager, 0, 0] + little(UInt32(0)) + main + data
}
