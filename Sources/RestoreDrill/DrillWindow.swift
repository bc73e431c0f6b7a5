// A random moment within the recoverable window: the moments at which nobody looked are what a drill should try.
import BackupRepository
import Diagnostics
import PointInTimeRestore
import PostgresFormats

struct DrillWindow {
  /// Unix microseconds: from the end of the earliest backup to just before the last commit.
  let from: Int64
  let to: Int64

  init(_ repository: Repository, _ request: DrillRequest) throws(TidemarkError) {
    var latest = RestoreRequest(targetDirectory: request.directory)
    latest.systemIdentifier = request.systemIdentifier
    latest.timeline = request.timeline
    let plan = try RestorePlanner(repository, latest).plan()
    let backups = try repository.catalog(plan.backup.layout).backups
    let sound = backups.filter { $0.manifest.suspect == nil }
    let earliest = (sound.isEmpty ? backups : sound).map(\.manifest.stopTime).min() ?? plan.backup.manifest.stopTime
    from = Int64(earliest * 1_000_000) + 1
    to = (try repository.lastCommit(plan.backup.layout, plan.segments) ?? 0) - 1
    guard from < to else {
      throw TidemarkError(
        .targetUnreachable, "there is no moment to choose from: nothing was committed after the earliest backup",
        object: RecoveryTime(microseconds: from).description, next: "drill to the latest moment: leave --random out")
    }
  }

  /// The moment that `seed` chooses.
  func moment(seed: UInt64) -> Int64 {
    var generator = SplitMix64(state: seed)
    return Int64.random(in: from..<to, using: &generator)
  }
}

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014): the same numbers for the same seed on
/// every host, which Swift's own generator doesn't promise.
struct SplitMix64: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    return mixed ^ (mixed >> 31)
  }
}
