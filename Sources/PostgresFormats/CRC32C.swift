// The checksum of WAL records, of pg_control and of the files in a backup manifest. It detects damage, not forgery.
import CLinux

/// CRC32C (Castagnoli; RFC 3720 appendix B.4, PostgreSQL's `pg_crc32c`), fed piece by piece.
package struct CRC32C: Sendable {
  private var state: UInt32 = ~0

  package init() {}

  package mutating func update(_ bytes: UnsafeRawBufferPointer) {
    guard let base = bytes.baseAddress else { return }
    state = clinux_crc32c(state, base.assumingMemoryBound(to: UInt8.self), bytes.count)
  }

  package mutating func update(_ bytes: some Sequence<UInt8>) {
    let done: Void? = bytes.withContiguousStorageIfAvailable { update(UnsafeRawBufferPointer($0)) }
    if done == nil { Array(bytes).withUnsafeBytes { update($0) } }
  }

  /// The checksum of what was fed so far.
  package var value: UInt32 { ~state }

  package static func of(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
    var checksum = CRC32C()
    checksum.update(bytes)
    return checksum.value
  }
}
