// The plaintext of a re-wrap: the data keys of objects whose own headers have them wrapped for earlier recipients. What
// it lies in is sealed to the new ones, so a table opens what its reader may open, and nothing is written twice.
// docs/repository-format.md has the format.
import Diagnostics

/// Data keys by the digests of their objects' signed headers. A digest stands for one object alone: its name, kind, writer
/// and time are in what was digested.
package struct DataKeyTable: Sendable {
  private static let version: UInt8 = 1
  private static let rowByteCount = 32 + FrameCipher.keyByteCount
  /// Rows of one table: 4 MiB.
  package static let countMax = 65_536
  package static let byteCountMax = 1 + countMax * rowByteCount

  /// Rows of digest and key, ascending by digest. Kept as they came: a table for each object would cost many times that.
  private let rows: [UInt8]
  package var count: Int { rows.count / Self.rowByteCount }

  /// - Throws: `object-damaged`, `format-version-unknown`.
  package init(decoding plaintext: [UInt8]) throws(TidemarkError) {
    guard let version = plaintext.first else { throw TidemarkError(.objectDamaged, "a table of data keys is empty") }
    guard version == Self.version else {
      throw TidemarkError(
        .formatVersionUnknown, "the table of data keys has a format that this version doesn't know",
        cause: "version \(version)", next: "use a newer version of Tidemark")
    }
    rows = Array(plaintext.dropFirst())
    guard !rows.isEmpty, rows.count % Self.rowByteCount == 0, rows.count <= Self.byteCountMax else {
      throw TidemarkError(.objectDamaged, "the table of data keys has an impossible length")
    }
    for index in 1..<max(1, count) {
      guard digest(index - 1).lexicographicallyPrecedes(digest(index)) else {
        throw TidemarkError(.objectDamaged, "the rows of the table of data keys are out of order")
      }
    }
  }

  /// - Precondition: 1 to ``countMax`` keys.
  package static func encode(_ keys: [SHA256Digest: DataKey]) -> [UInt8] {
    precondition((1...countMax).contains(keys.count))
    var bytes = [version]
    bytes.reserveCapacity(1 + keys.count * rowByteCount)
    for (digest, key) in keys.sorted(by: { $0.key.bytes.lexicographicallyPrecedes($1.key.bytes) }) {
      bytes += digest.bytes
      key.withUnsafeBytes { bytes.append(contentsOf: $0) }
    }
    return bytes
  }

  private func digest(_ index: Int) -> ArraySlice<UInt8> {
    rows[(index * Self.rowByteCount)..<(index * Self.rowByteCount + 32)]
  }

  /// The key of the object whose signed header has this digest.
  package subscript(header: SHA256Digest) -> DataKey? {
    var (low, high) = (0, count)
    while low < high {
      let middle = (low + high) / 2
      if digest(middle).lexicographicallyPrecedes(header.bytes) { low = middle + 1 } else { high = middle }
    }
    guard low < count, digest(low).elementsEqual(header.bytes) else { return nil }
    let end = (low + 1) * Self.rowByteCount
    return DataKey(bytes: Array(rows[(end - FrameCipher.keyByteCount)..<end]))
  }
}
