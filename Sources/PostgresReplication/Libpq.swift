// libpq, loaded by the first connection string that is read.
import CLibpq
import Diagnostics
import SystemSupport

private let loading: (functions: clibpq, failure: TidemarkError?) = {
  do throws(TidemarkError) {
    let functions = try SharedLibrary.load("libpq.so.5", package: "libpq5", into: clibpq()) { library, functions in
      clibpq_find(library, &functions).map { String(cString: $0) }
    }
    return (functions, nil)
  } catch { return (clibpq(), error) }
}()

/// libpq's functions. Only who has a ``ConnectionInfo`` may call them: making it is what fails where there is no libpq.
var libpq: clibpq { loading.functions }

/// - Throws: `local-io` when libpq can't be loaded.
func requireLibpq() throws(TidemarkError) { if let failure = loading.failure { throw failure } }
