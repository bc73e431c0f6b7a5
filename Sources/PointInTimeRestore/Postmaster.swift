// The server process of a data directory, found by its `postmaster.pid` and proven by the kernel: a number in a file may
// be another process's by now, and that one is never signalled.
import Diagnostics
import Glibc
import SystemSupport

/// A running postmaster (PostgreSQL, pidfile.h: its process id, then its data directory, each on a line).
package struct Postmaster: Sendable {
  package let pid: pid_t
  /// Its data directory, without symbolic links.
  package let directory: String

  /// How long an immediate shutdown may take before the process is killed.
  private static let endLimit = Duration.seconds(10)

  /// The process that `directory`'s file names, if it is PostgreSQL's and works in this directory (the postmaster
  /// changes into its data directory: postmaster.c, `ChangeToDataDir`).
  package init?(in directory: String) {
    // A server that can't be proven is never signalled.
    guard let bytes = try? readFile("\(directory)/postmaster.pid", limit: 4096),
      let line = String(decoding: bytes, as: UTF8.self).split(separator: "\n").first,
      let pid = pid_t(line.filter { $0 != " " }), pid > 1, let real = resolvedPath(directory)
    else { return nil }
    self.pid = pid
    self.directory = real
    guard isOurs else { return nil }
  }

  private var isOurs: Bool { Self.directory(of: pid) == directory }

  /// Where the process works, if it is PostgreSQL's and we may know.
  private static func directory(of pid: pid_t) -> String? {
    guard let program = linkTarget("/proc/\(pid)/exe"), baseName(program).hasPrefix("postgres") else { return nil }
    return linkTarget("/proc/\(pid)/cwd")
  }

  /// Whether `pid` is known to be something else than a server in `directory`: a number that was given anew.
  static func isElsewhere(_ pid: pid_t, _ directory: String) -> Bool {
    guard linkTarget("/proc/\(pid)/exe") != nil, let real = resolvedPath(directory) else { return false }
    return self.directory(of: pid) != real
  }

  /// Every process of PostgreSQL that we may see, with the directory in which it works. Backends outlive a postmaster
  /// that was killed, and a postmaster outlives its file.
  /// - Throws: `local-io`, `local-permission` when it isn't known which there are.
  static func processes() throws(TidemarkError) -> [(pid: pid_t, directory: String)] {
    try directoryEntries("/proc").compactMap { name in
      guard let pid = pid_t(name), let directory = directory(of: pid) else { return nil }
      return (pid, directory)
    }
  }

  /// Ends the server at once and returns when its process is gone. Its children go with it.
  package func end() {
    guard isOurs else { return }
    kill(pid, SIGQUIT)
    let limit = Deadline.after(Self.endLimit)
    while isOurs {
      if limit.hasPassed { kill(pid, SIGKILL) }
      usleep(20_000)
    }
  }
}

/// Where the symbolic link at `path` leads; `nil` when it is none, or may not be read.
func linkTarget(_ path: String) -> String? {
  var buffer = [CChar](repeating: 0, count: 4096)
  let count = readlink(path, &buffer, buffer.count)
  guard count > 0, count < buffer.count else { return nil }
  return String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

/// `path` without symbolic links; `nil` when it doesn't exist.
func resolvedPath(_ path: String) -> String? {
  guard let real = realpath(path, nil) else { return nil }
  defer { free(real) }
  return String(cString: real)
}
