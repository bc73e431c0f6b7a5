// Which limit a restore met: what to buy or change when it takes too long. Every second of the RTO goes to one cause.
import SystemSupport

package struct RestoreLimit: Sendable, Codable, Equatable {
  package enum Cause: String, Sendable, Codable, CaseIterable {
    /// Waiting for a region's bytes.
    case region
    /// Decryption, decompression and digests on this host.
    case cpu
    /// Writing and synchronizing files.
    case disk
    /// PostgreSQL's replay of WAL that lay ready.
    case replay
    /// Planning, PostgreSQL's start, the first query.
    case overhead
  }
  package var by: Cause
  package var regionSeconds = 0.0
  package var cpuSeconds = 0.0
  package var diskSeconds = 0.0
  package var replaySeconds = 0.0
  package var overheadSeconds = 0.0

  /// - Parameters:
  ///   - files: of the threads that restored the files: they wait for input from the regions, for output to the disk.
  ///   - wal: of the threads that filled the spool.
  ///   - starvedSeconds: how long the replay waited for a segment that was still on its way.
  init(phases: [RestorePhase], files: StageProfile, wal: StageProfile, starvedSeconds: Double) {
    by = .overhead
    for phase in phases {
      switch phase.name {
      case "files":
        let total = files.workedSeconds + files.waitedForInputSeconds + files.waitedForOutputSeconds
        guard total > 0 else {
          diskSeconds += phase.seconds
          continue
        }
        regionSeconds += phase.seconds * files.waitedForInputSeconds / total
        cpuSeconds += phase.seconds * files.workedSeconds / total
        diskSeconds += phase.seconds * files.waitedForOutputSeconds / total
      case "sync": diskSeconds += phase.seconds
      case "replay":
        // What the spool's threads wait for a full spool says nothing: the replay starved while they did something else.
        let starved = min(starvedSeconds, phase.seconds)
        let busy = wal.workedSeconds + wal.waitedForInputSeconds
        let regionShare = busy > 0 ? wal.waitedForInputSeconds / busy : 1
        regionSeconds += starved * regionShare
        cpuSeconds += starved * (1 - regionShare)
        replaySeconds += phase.seconds - starved
      default: overheadSeconds += phase.seconds
      }
    }
    by = Cause.allCases.max { seconds($0) < seconds($1) } ?? .overhead
  }

  package func seconds(_ cause: Cause) -> Double {
    switch cause {
    case .region: regionSeconds
    case .cpu: cpuSeconds
    case .disk: diskSeconds
    case .replay: replaySeconds
    case .overhead: overheadSeconds
    }
  }
}
