// Libraries that are loaded when they are first needed. PostgreSQL starts a process for each segment of WAL, and libcurl
// and libpq with all that they bring cost such a process half of its start.
import Diagnostics
import Glibc

package enum SharedLibrary {
  /// Loads the library `name`, as dlopen(3) finds it, and keeps it for good.
  /// - Parameters:
  ///   - package: Debian's, named to whoever lacks it.
  ///   - find: takes what it needs from the library, and returns the name of a function that the library lacks.
  /// - Throws: `local-io`.
  package static func load<Functions>(
    _ name: String, package: String, into functions: Functions,
    _ find: (UnsafeMutableRawPointer, inout Functions) -> String?
  ) throws(TidemarkError) -> Functions {
    // Functions are bound when they are first called: only few of those that the libraries among themselves need are.
    guard let library = dlopen(name, RTLD_LAZY | RTLD_LOCAL) else {
      throw failure(name, package, dlerror().map { String(cString: $0) })
    }
    var functions = functions
    if let missing = find(library, &functions) { throw failure(name, package, "it has no function \(missing)") }
    return functions
  }

  private static func failure(_ name: String, _ package: String, _ cause: String?) -> TidemarkError {
    TidemarkError(
      .localIO, "a library that this needs can't be loaded", object: name, cause: cause,
      next: "install it: Debian's package is \(package)")
  }
}
