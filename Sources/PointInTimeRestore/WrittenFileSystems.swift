// The file systems that a restore writes into, opened before the first byte is written. syncfs(2) tells an error of
// writing back to everybody who had the file system open when it happened, and to one who comes later only while nobody
// else has asked (errseq_t in the kernel's documentation): another process's flush must not take our error away.
// There is no test for that: it takes a disk that fails.
import Diagnostics
import Glibc
import SystemSupport

final class WrittenFileSystems: Sendable {
  /// What an array can't hold by itself.
  private final class Opened: Sendable {
    let directory: OpenFile

    init(_ path: String) throws(TidemarkError) { directory = try OpenFile(path, O_RDONLY | O_DIRECTORY) }
  }
  private let opened: [Opened]

  /// Makes the directories that aren't there.
  init(_ target: RestoreTarget, _ tree: OwnedTree) throws(TidemarkError) {
    var opened: [Opened] = []
    for place in [target.directory, target.walDirectory].compactMap(\.self) + target.tablespaces.values {
      try tree.makeDirectories(place)
      opened.append(try Opened(place))
    }
    self.opened = opened
  }

  /// Makes everything durable that was written.
  func synchronize() throws(TidemarkError) {
    for each in opened { try each.directory.synchronizeFileSystem() }
  }
}
