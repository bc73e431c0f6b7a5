// The small numbers that name things of a cluster. Each is a type of its own, so that none stands for another.
import Diagnostics

/// A timeline of a cluster (PostgreSQL's `TimeLineID`). Zero is no timeline.
package struct TimelineID: RawRepresentable, Hashable, Comparable, Sendable, CustomStringConvertible {
  package var rawValue: UInt32

  package init(rawValue: UInt32) { self.rawValue = rawValue }
  package init(_ value: UInt32) { rawValue = value }

  package var description: String { String(rawValue) }

  /// Eight hexadecimal digits, as file names have it.
  package var nameText: String { hexadecimalText(rawValue, width: 8) }

  /// The name of this timeline's history file, "00000002.history".
  package var historyFileName: String { nameText + ".history" }

  package static func < (left: TimelineID, right: TimelineID) -> Bool { left.rawValue < right.rawValue }
}

/// A transaction's number (PostgreSQL's `TransactionId`, without its epoch): it wraps around, so it has no order.
package struct TransactionID: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
  package var rawValue: UInt32

  package init(rawValue: UInt32) { self.rawValue = rawValue }
  package init(_ value: UInt32) { rawValue = value }

  package var description: String { String(rawValue) }
}

/// What makes a cluster's WAL its own: chosen by initdb, kept by all its standbys and restores.
package struct SystemIdentifier: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
  package var rawValue: UInt64

  package init(rawValue: UInt64) { self.rawValue = rawValue }

  /// Reads the decimal form that `pg_controldata` and `IDENTIFY_SYSTEM` print.
  package init?(text: some StringProtocol) {
    guard let value: UInt64 = decimalNumber(text.utf8), value != 0 else { return nil }
    rawValue = value
  }

  package var description: String { String(rawValue) }
}
