// The server's version as a number that can be compared.

/// A version of PostgreSQL: `server_version_num`, 150020 for 15.20.
package struct ServerVersion: Sendable, Hashable, Comparable, CustomStringConvertible {
  package let number: Int

  /// The oldest major version whose replication protocol Tidemark speaks: BASE_BACKUP's options in parentheses and its
  /// single COPY stream came with PostgreSQL 15.
  package static let oldestMajor = 15

  package init(number: Int) { self.number = number }

  package var major: Int { number / 10000 }

  /// "15.20"; before PostgreSQL 10 versions had three parts.
  package var description: String {
    number >= 100_000
      ? "\(major).\(number % 10000)" : "\(number / 10000).\(number / 100 % 100).\(number % 100)"
  }

  package static func < (left: ServerVersion, right: ServerVersion) -> Bool { left.number < right.number }
}
