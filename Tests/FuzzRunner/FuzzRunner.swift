// The program behind scripts/fuzz. With libFuzzer it is the function that libFuzzer calls; TIDEMARK_FUZZ_TARGET says
// which target.
import Diagnostics
import FuzzTargets
import Glibc

private let chosen: FuzzTarget = {
  let name = getenv("TIDEMARK_FUZZ_TARGET").map { String(cString: $0) } ?? ""
  guard let target = FuzzTarget(rawValue: name) else {
    print("TIDEMARK_FUZZ_TARGET must be one of \(FuzzTarget.allCases.map(\.rawValue).joined(separator: ", "))")
    exit(64)
  }
  return target
}()

/// Once for each input (https://llvm.org/docs/LibFuzzer.html).
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  chosen.run(Array(UnsafeBufferPointer(start: bytes, count: count)))
  return 0
}

/// Writes the inputs that a target takes, as the first corpus.
@_cdecl("LLVMFuzzerInitialize")
public func writeSeeds(
  _ count: UnsafeMutablePointer<CInt>?,
  _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?>?
) -> CInt {
  guard let directory = getenv("TIDEMARK_FUZZ_SEEDS").map({ String(cString: $0) }) else { return 0 }
  for (number, seed) in ((try? FuzzSeeds.seeds(chosen)) ?? []).enumerated() {
    guard let file = fopen("\(directory)/seed-\(number)", "w") else { continue }
    fwrite(seed, 1, seed.count, file)
    fclose(file)
  }
  return 0
}
