// A position in the write-ahead log. It refuses text that PostgreSQL's pg_lsn type refuses.
import Diagnostics

/// A log sequence number: a byte position in the WAL of a cluster (PostgreSQL's `XLogRecPtr`).
package struct LSN: RawRepresentable, Hashable, Comparable, Sendable, CustomStringConvertible {
  package var rawValue: UInt64

  package init(rawValue: UInt64) { self.rawValue = rawValue }

  /// The value that PostgreSQL uses for "no position" (`InvalidXLogRecPtr`).
  package static let invalid = LSN(rawValue: 0)

  /// Reads "16/B374D848": two numbers of one to eight hexadecimal digits (pg_lsn.c, `pg_lsn_in_internal`).
  /// - Throws: `usage` for anything else.
  package init(text: some StringProtocol) throws(TidemarkError) {
    guard let lsn = LSN(utf8: text.utf8) else {
      throw TidemarkError(
        .usage, "not an LSN", object: "\"\(text)\"", next: "give it as PostgreSQL prints it, such as 16/B374D848")
    }
    self = lsn
  }

  init?(utf8: some Collection<UInt8>) {
    let parts = utf8.split(separator: UInt8(ascii: "/"), maxSplits: 2, omittingEmptySubsequences: false)
    guard parts.count == 2, let high = hexadecimalNumber(parts[0]), let low = hexadecimalNumber(parts[1]) else {
      return nil
    }
    rawValue = UInt64(high) << 32 | UInt64(low)
  }

  package var isValid: Bool { rawValue != 0 }

  /// PostgreSQL's form, "16/B374D848".
  package var description: String {
    hexadecimalText(rawValue >> 32) + "/" + hexadecimalText(rawValue & 0xFFFF_FFFF)
  }

  package static func < (left: LSN, right: LSN) -> Bool { left.rawValue < right.rawValue }

  /// The number of bytes from `start` to this position; negative where `start` is later.
  package func distance(from start: LSN) -> Int64 { Int64(bitPattern: rawValue &- start.rawValue) }
}
