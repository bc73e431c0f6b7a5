// Numbers in PostgreSQL's files, which are in the byte order of the server's machine: every machine that Tidemark
// runs on is little-endian, and a big-endian file fails its magic or version check.

extension UnsafeRawBufferPointer {
  /// The number at `offset`. The caller has checked that it lies within the buffer.
  @inline(__always)
  func number<Value: FixedWidthInteger>(_ offset: Int, as type: Value.Type = Value.self) -> Value {
    precondition(offset >= 0 && offset <= count - MemoryLayout<Value>.size, "a number outside its buffer")
    return Value(littleEndian: loadUnaligned(fromByteOffset: offset, as: type))
  }

  /// The number at `offset`, or nil where it would reach beyond the buffer.
  func numberIfPresent<Value: FixedWidthInteger>(_ offset: Int, as type: Value.Type = Value.self) -> Value? {
    guard offset >= 0, count - offset >= MemoryLayout<Value>.size else { return nil }
    return number(offset)
  }
}
