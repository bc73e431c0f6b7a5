// PostgreSQL's programs of the version that a backup is of, wherever this host has them. Another major version can't
// start the cluster, so it is refused before anything is written.
import Diagnostics
import Glibc
import SystemSupport

struct PostgresPrograms {
  let directory: String
  /// Said when the configured directory is passed over.
  private(set) var remark: String?

  /// Looks into the configured directory, the usual places of Debian and of PostgreSQL's own packages, where `pg_config`
  /// points, and on PATH.
  /// - Throws: `configuration-invalid` when none of them has PostgreSQL `major`.
  init(configured: String?, major: Int) throws(TidemarkError) {
    var seen: [(directory: String, version: Int)] = []
    for candidate in [configured] + Self.usualDirectories(major) {
      guard let candidate, !seen.contains(where: { $0.directory == candidate }), let version = Self.major(candidate)
      else { continue }
      if version == major {
        directory = candidate
        if let configured, configured != candidate {
          let found = Self.major(configured).map { "is PostgreSQL \($0)" } ?? "has no PostgreSQL"
          remark = "postgres.bin-directory \(configured) \(found), the backup is of \(major): \(candidate) is used"
        }
        return
      }
      seen.append((candidate, version))
    }
    throw TidemarkError(
      .configurationInvalid, "PostgreSQL \(major), of which the backup is, wasn't found on this host",
      object: configured,
      cause: seen.isEmpty
        ? "no PostgreSQL was found at all"
        : "found: \(seen.map { "\($0.version) in \($0.directory)" }.joined(separator: ", "))",
      kept: "everything: nothing was written",
      next: "install PostgreSQL \(major) or set postgres.bin-directory; --no-start restores the files alone")
  }

  private static func usualDirectories(_ major: Int) -> [String] {
    var directories = ["/usr/lib/postgresql/\(major)/bin", "/usr/pgsql-\(major)/bin"]
    let path = getenv("PATH").map { String(cString: $0) } ?? ""
    let onPath = path.split(separator: ":").map(String.init).filter { $0.hasPrefix("/") }
    // Debian's /usr/bin/pg_config belongs to another package than the server, so it is asked and not trusted.
    for directory in onPath where access("\(directory)/pg_config", X_OK) == 0 {
      // One that can't be run is passed over for the next.
      if let outcome = try? ChildProcess.run("\(directory)/pg_config", ["--bindir"], deadline: .after(.seconds(10))),
        outcome.succeeded
      {
        directories.append(String(outcome.outputText.prefix { $0 != "\n" }))
      }
    }
    return directories + onPath + ["/usr/local/pgsql/bin"]
  }

  /// The major version of the server in `directory`; `nil` when there is none that can be run.
  private static func major(_ directory: String) -> Int? {
    for program in ["postgres", "pg_ctl", "pg_controldata"] where access("\(directory)/\(program)", X_OK) != 0 {
      return nil
    }
    guard
      // Programs that can't be run aren't usable ones, whatever the reason.
      let outcome = try? ChildProcess.run("\(directory)/postgres", ["--version"], deadline: .after(.seconds(10))),
      outcome.succeeded
    else { return nil }
    // postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1), or 18beta1
    guard let text = outcome.outputText.split(separator: " ").dropFirst(2).first else { return nil }
    return Int(text.prefix { $0.isNumber })
  }
}
