// When what was written goes to the disk: range after range of a file, as each becomes whole. The blocks that changed
// since a full backup come first, scattered over the files, and the rest comes around them. Flushed piece by piece, each
// piece would get its place on the disk alone, in as many writes, and the file would stay in as many pieces.
import Synchronization
import SystemSupport

/// Counts for each range of each file what is still to be written. A hint to the kernel and no more: nothing is durable
/// before ``WrittenFileSystems/synchronize()``.
final class FlushedRanges: Sendable {
  /// Large enough for a disk, small enough for the flush to go on beside the fetching.
  private static let rangeByteCount: Int64 = 32 << 20
  /// Smaller ones are left to the kernel, which writes many files together.
  private static let flushedByteCountMin = 1 << 20

  private struct Pending {
    var placementCount = 0
    var byteCount = 0
  }
  /// The ranges of all files, one file behind the other.
  private let pending: Mutex<[Pending]>
  /// Where each file's ranges begin.
  private let starts: [Int]

  /// - Parameter placements: all that will be written.
  init(fileCount: Int, _ placements: some Sequence<FileRestorer.Placement>) {
    var counts = [Int](repeating: 0, count: fileCount)
    for placement in placements {
      counts[Int(placement.file)] = max(counts[Int(placement.file)], Self.range(of: placement) + 1)
    }
    var starts: [Int] = []
    starts.reserveCapacity(fileCount)
    var total = 0
    for count in counts {
      starts.append(total)
      total += count
    }
    var pending = [Pending](repeating: Pending(), count: total)
    for placement in placements {
      let index = starts[Int(placement.file)] + Self.range(of: placement)
      pending[index].placementCount += 1
      pending[index].byteCount += Int(placement.byteCount)
    }
    self.starts = starts
    self.pending = Mutex(pending)
  }

  /// The range that a placement counts for: that of its first byte.
  private static func range(of placement: FileRestorer.Placement) -> Int {
    Int(placement.fileOffset / rangeByteCount)
  }

  /// Says that `placement` is written, and begins to flush the range that it was the last of. One that is written again,
  /// since its pack was damaged, counts twice: the range is then flushed earlier, or by the last flush of all.
  func written(_ placement: FileRestorer.Placement, _ descriptor: Int32) {
    let range = Self.range(of: placement)
    let isWhole = pending.withLock { pending in
      let index = starts[Int(placement.file)] + range
      pending[index].placementCount -= 1
      return pending[index].placementCount == 0 && pending[index].byteCount >= Self.flushedByteCountMin
    }
    if isWhole { beginFlush(descriptor, at: Int64(range) * Self.rangeByteCount, count: Self.rangeByteCount) }
  }
}
