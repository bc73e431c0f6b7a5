// A file system of a test's own, which only root can mount: small, so that it can be filled, and apart from the one that
// it stands in.
import Diagnostics
import Foundation
import Glibc
import SystemSupport

/// A tmpfs at `path`.
package final class SmallFileSystem: Sendable {
  package let path: String

  /// - Parameter options: mount(8)'s, such as `size=8m`.
  package init(_ path: String, _ options: String) throws {
    self.path = path
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    let outcome = try ChildProcess.run("mount", ["-t", "tmpfs", "-o", "\(options),mode=0777", "tmpfs", path])
    guard outcome.succeeded else {
      throw TidemarkError(.localIO, "cannot mount a file system", object: path, cause: outcome.errorText)
    }
  }

  /// Takes all the room that is left.
  package func fill() throws {
    // It ends with an error when there is no room left.
    _ = try ChildProcess.run("dd", ["if=/dev/zero", "of=\(path)/filler", "bs=4k"])
  }

  package func makeRoom() throws { try FileManager.default.removeItem(atPath: "\(path)/filler") }

  /// Before its place is removed.
  package func unmount() { _ = try? ChildProcess.run("umount", ["-l", path]) }

  /// Whether tests of this process may mount.
  package static let canMount: Bool = {
    guard geteuid() == 0, let directory = try? TemporaryDirectory() else { return false }
    guard let mounted = try? SmallFileSystem(directory.path, "size=64k") else { return false }
    mounted.unmount()
    return true
  }()
}
