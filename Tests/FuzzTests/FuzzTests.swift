// Bytes from outside, fuzzed for a fixed number of runs from a fixed seed; scripts/fuzz goes on for as long as one wants.
import Diagnostics
import FuzzTargets
import Glibc
import Testing

@Suite("Fuzzed input", .serialized)
struct FuzzTests {
  private static let runCount = 3000
  /// The same in every run, unless scripts/fuzz gives another.
  private static let seed = getenv("TIDEMARK_FUZZ_SEED").flatMap { UInt64(String(cString: $0)) } ?? 1

  @Test("what the fuzzers start from is taken", arguments: FuzzTarget.allCases)
  func seeds(_ target: FuzzTarget) throws {
    // The server's manifest ends with a checksum of itself that isn't right here: every line before it is read.
    for seed in try FuzzSeeds.seeds(target) { #expect(target.run(seed) == (target != .serverManifest)) }
  }

  @Test(
    "changed input never does more than throw, and takes no memory that it doesn't bring",
    arguments: FuzzTarget.allCases)
  func changed(_ target: FuzzTarget) throws {
    let before = Self.peakKiB
    var fuzzer = try SeededFuzzer(target, seed: Self.seed)
    for _ in 0..<Self.runCount { fuzzer.step() }
    #expect(Self.peakKiB - before < 256 << 10, "\(target) took \((Self.peakKiB - before) >> 10) MiB")
    // A sealed object has no byte that may change.
    if target == .sealedObject { #expect(fuzzer.acceptedCount < 20) }
  }

  /// The most memory that this process ever had.
  private static var peakKiB: Int {
    var usage = rusage()
    getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
    return usage.ru_maxrss
  }
}
