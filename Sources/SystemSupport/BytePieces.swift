// Bytes in pieces that follow one another: what was made piece by piece needn't be copied together to be sent or written.

extension [[UInt8]] {
  /// Of all pieces together.
  package var byteCount: Int { reduce(0) { $0 + $1.count } }

  /// A copy in one piece.
  package func inOnePiece() -> [UInt8] {
    if count == 1 { return self[0] }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(byteCount)
    for piece in self { bytes += piece }
    return bytes
  }
}
