// Keeps a drill within its share of the disk: the replay may need far more than the backup. When it is over, the scratch
// server is ended, before it fills the file system that others use.
import PointInTimeRestore
import Synchronization
import SystemSupport

final class DrillDiskWatch: Sendable {
  /// A walk through the files takes its time, and the drill's time is measured: rests are this much longer.
  private static let restFactor = 20.0
  private static let restMin = Duration.seconds(1)

  private let stopped = Condition()
  private let ended = Cancellation()
  private let most = Counter()
  private let exceeded = Cancellation()
  private let thread = Mutex<WorkerThread<Void>?>(nil)

  /// Whether the limit was passed and the server ended for it.
  var hasExceeded: Bool { exceeded.isCancelled }
  /// The most that was seen.
  var byteCountSeen: Int64 { Int64(most.value) }

  init(_ directory: String, data: String, limit: Int64?) {
    let watch = WorkerThread<Void>("drill-disk") { [self] in
      while !ended.isCancelled {
        let begin = ContinuousClock.now
        let ticket = stopped.ticket()
        let bytes = DrillScratch.byteCount(directory)
        if bytes > Int64(most.value) { most.add(Int(bytes) - most.value) }
        if let limit, bytes > limit {
          exceeded.cancel()
          Postmaster(in: data)?.end()
          return
        }
        let rest = max(Self.restMin, (ContinuousClock.now - begin) * Self.restFactor)
        if !ended.isCancelled { stopped.wait(ticket, until: .after(rest)) }
      }
    }
    thread.withLock { $0 = watch }
  }

  /// It may be called again.
  func stop() {
    ended.cancel()
    stopped.signal()
    if let thread = thread.withLock({ $0.take() }) {
      // The watch throws nothing.
      _ = try? thread.join()
    }
  }
}
