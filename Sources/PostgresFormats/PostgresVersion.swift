// The major versions of PostgreSQL whose files Tidemark reads, and how each names itself in them.

/// A supported major version of PostgreSQL.
package enum PostgresVersion: Int, Sendable, Comparable, CaseIterable, CustomStringConvertible {
  case v15 = 15
  case v16 = 16
  case v17 = 17
  case v18 = 18

  /// The version whose WAL pages begin with `magic` (`XLOG_PAGE_MAGIC`, xlog_internal.h of each release branch).
  package init?(pageMagic magic: UInt16) {
    switch magic {
    case 0xD110: self = .v15
    case 0xD113: self = .v16
    case 0xD116: self = .v17
    case 0xD118: self = .v18
    default: return nil
    }
  }

  package var pageMagic: UInt16 {
    switch self {
    case .v15: 0xD110
    case .v16: 0xD113
    case .v17: 0xD116
    case .v18: 0xD118
    }
  }

  package var description: String { String(rawValue) }

  package static func < (left: PostgresVersion, right: PostgresVersion) -> Bool { left.rawValue < right.rawValue }
}
