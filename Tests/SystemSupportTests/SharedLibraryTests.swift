// A library that is loaded when it is needed hands out its functions, and what it lacks is named.
import Diagnostics
import Glibc
import SystemSupport
import Testing

@Suite("Shared libraries") struct SharedLibraryTests {
  private typealias Version = @convention(c) () -> UInt32

  private func load(_ library: String, _ function: String) throws(TidemarkError) -> Version? {
    try SharedLibrary.load(library, package: "libzstd1", into: nil as Version?) { library, version in
      guard let found = dlsym(library, function) else { return function }
      version = unsafeBitCast(found, to: Version.self)
      return nil
    }
  }

  @Test("its functions can be called")
  func functions() throws {
    let version = try #require(try load("libzstd.so.1", "ZSTD_versionNumber"))
    #expect(version() >= 1_05_00)
  }

  @Test("one that isn't there, and one that lacks a function, are refused and say what to install")
  func refusals() {
    for (library, function, cause) in [
      ("libnowhere.so.7", "any", "cannot open shared object file"),
      ("libzstd.so.1", "ZSTD_unheardOf", "it has no function ZSTD_unheardOf"),
    ] {
      do throws(TidemarkError) {
        _ = try load(library, function)
        Issue.record("\(library) was loaded")
      } catch {
        #expect(error.code == .localIO && error.object == library)
        #expect(error.cause?.contains(cause) == true && error.next?.contains("libzstd1") == true, "\(error)")
      }
    }
  }
}
