// Finds the blocks of a file that differ from the backup's, by their digests, so that only those are fetched.
import BackupRepository
import Diagnostics
import Envelope
import Glibc
import Synchronization
import SystemSupport

/// A file that has old content.
struct BlockComparison: Sendable {
  /// Its index among the window's paths.
  let file: Int32
  let byteCount: Int64
  /// What is behind it was cut off, or is missing.
  let oldByteCount: Int64
  let digests: [UInt8]
  let runs: [BlockRun]

  /// Hands each stretch of differing blocks to `differs`. Returns the bytes that are as they should be.
  func run(
    _ path: String, blockSize: Int, _ hasher: inout SHA256Hasher, _ buffer: UnsafeMutableRawBufferPointer,
    differs: (FileRestorer.PackID, FileRestorer.Placement) -> Void
  ) throws(TidemarkError) -> Int64 {
    let input = try OpenFile(path, O_RDONLY | O_NOFOLLOW)
    var kept: Int64 = 0
    var position: Int64 = 0
    var block = 0
    var digest: [UInt8] = []
    for run in runs {
      // A run lies in one frame, so it isn't larger than the buffer.
      let length = Int(min(Int64(run.count * blockSize), byteCount - position))
      let filled =
        position < oldByteCount
        ? try input.read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<length]), at: position) : 0
      var pending: Range<Int>?
      func flush() {
        guard let range = pending else { return }
        differs(
          FileRestorer.PackID(run),
          FileRestorer.Placement(
            run, offset: range.lowerBound, byteCount: range.count, file: file,
            fileOffset: position + Int64(range.lowerBound)))
        pending = nil
      }
      for index in 0..<run.count {
        let begin = index * blockSize
        let end = min(begin + blockSize, length)
        var isEqual = false
        if end <= filled, position + Int64(begin) < oldByteCount {
          digest.removeAll(keepingCapacity: true)
          try hasher.appendDigest(
            of: UnsafeRawBufferPointer(rebasing: buffer[begin..<end]), prefix: FileTable.digestByteCount, to: &digest)
          let wanted = (block + index) * FileTable.digestByteCount
          isEqual = digests[wanted..<wanted + FileTable.digestByteCount].elementsEqual(digest)
        }
        if isEqual {
          kept += Int64(end - begin)
          flush()
        } else {
          pending = (pending?.lowerBound ?? begin)..<end
        }
      }
      flush()
      block += run.count
      position += Int64(length)
    }
    return kept
  }
}

extension FileRestorer {
  /// Compares the window's files on all threads; what differs joins the window's placements.
  func compare(
    _ window: inout Window, _ result: inout FileRestoreResult, _ written: Counter
  ) throws(TidemarkError) {
    guard !window.comparisons.isEmpty else { return }
    let (comparisons, paths) = (window.comparisons, window.paths)
    let found = Mutex<[PackID: [Placement]]>([:])
    let (next, kept, hasFailed) = (Counter(), Counter(), Cancellation())
    let blockSize = backup.manifest.blockSize
    try withThreads("compare", count: threadCount, onFailure: { _ in hasFailed.cancel() }) { _ in
      let buffer = UnsafeMutableRawBufferPointer.allocate(
        byteCount: SealedObject.framePlaintextByteCountMax, alignment: 4096)
      defer { buffer.deallocate() }
      var hasher = try SHA256Hasher()
      while !hasFailed.isCancelled {
        try Termination.check()
        let index = next.add(1) - 1
        guard index < comparisons.count else { return }
        let comparison = comparisons[index]
        var differing: [(PackID, Placement)] = []
        let equal = try comparison.run(paths[Int(comparison.file)], blockSize: blockSize, &hasher, buffer) {
          differing.append(($0, $1))
        }
        found.withLock { found in for (pack, placement) in differing { found[pack, default: []].append(placement) } }
        kept.add(Int(equal))
        self.progress(Int64(written.add(Int(equal))))
      }
    }
    window.placements.merge(found.withLock { $0 }) { $0 + $1 }
    window.comparisons = []
    result.keptByteCount += Int64(kept.value)
  }
}

extension FileRestorer.PackID {
  init(_ run: BlockRun) { self.init(label: run.label, number: run.pack) }
}

extension FileRestorer.Placement {
  /// `byteCount` bytes that begin `offset` bytes behind the run's beginning.
  init(_ run: BlockRun, offset: Int, byteCount: Int, file: Int32, fileOffset: Int64) {
    self.init(
      frame: Int32(run.frame), offset: Int32(run.offset + offset), byteCount: Int32(byteCount), file: file,
      fileOffset: fileOffset)
  }
}
