// Where the programs are that tests need and that Debian doesn't have: a Python virtual environment (scripts/ makes it).
import Diagnostics
import Glibc
import Synchronization
import SystemSupport

package enum TestTools {
  /// `TIDEMARK_TEST_TOOLS`, or `.build/test-tools` below the package's root.
  package static let directory: String = {
    if let named = getenv("TIDEMARK_TEST_TOOLS").map({ String(cString: $0) }), !named.isEmpty { return named }
    return "\(packageRoot)/.build/test-tools"
  }()

  /// The package's root, found from this file's own place.
  package static let packageRoot = directoryName(directoryName(directoryName("\(#filePath)")))

  /// The program `name` of the tools.
  /// - Throws: `local-io` when it isn't installed.
  package static func program(_ name: String) throws(TidemarkError) -> String {
    let path = "\(directory)/bin/\(name)"
    guard access(path, X_OK) == 0 else {
      throw TidemarkError(
        .localIO, "a program that the tests need is missing", object: path,
        next: "make the virtual environment and name it in TIDEMARK_TEST_TOOLS")
    }
    return path
  }
}

/// A private directory, removed with all it holds when the value goes away.
package final class TemporaryDirectory: Sendable {
  package let path: String
  private static let existing = Mutex<Set<String>>([])
  /// What a suite's tests share lives as long as the process: some GB in all, so it goes with it.
  private static let removesAtExit: Void = {
    atexit {
      let left = TemporaryDirectory.existing.withLock { $0 }
      // A server of theirs may still be at work there.
      for _ in 0..<3 where left.contains(where: fileExists) {
        _ = try? ChildProcess.run("rm", ["-rf", "--one-file-system", "--"] + left.sorted())
      }
    }
  }()

  package init() throws(TidemarkError) {
    _ = Self.removesAtExit
    let base = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
    var template = Array("\(base)/tidemark-test-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw systemError("cannot make a temporary directory", base) }
    path = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }  // never empty
    Self.existing.withLock { _ = $0.insert(path) }
  }

  deinit {
    _ = try? ChildProcess.run("rm", ["-rf", "--", path])
    Self.existing.withLock { _ = $0.remove(path) }
  }
}
