// Reading big-endian fields from bytes that nobody vouches for: every read is checked against what is there.
import Diagnostics

struct ByteReader {
  private let bytes: ArraySlice<UInt8>
  private(set) var position: Int
  private let what: String

  init(_ bytes: ArraySlice<UInt8>, what: String) {
    self.bytes = bytes
    self.what = what
    position = bytes.startIndex
  }

  var remaining: Int { bytes.endIndex - position }

  mutating func take(_ count: Int) throws(TidemarkError) -> ArraySlice<UInt8> {
    guard count >= 0, count <= remaining else { throw TidemarkError(.objectDamaged, "\(what) is cut short") }
    position += count
    return bytes[(position - count)..<position]
  }

  mutating func integer<Value: FixedWidthInteger>(_: Value.Type) throws(TidemarkError) -> Value {
    try take(MemoryLayout<Value>.size).reduce(0) { $0 << 8 | Value(truncatingIfNeeded: $1) }
  }
}

extension [UInt8] {
  mutating func append(bigEndian value: some FixedWidthInteger) {
    Swift.withUnsafeBytes(of: value.bigEndian) { append(contentsOf: $0) }
  }
}
