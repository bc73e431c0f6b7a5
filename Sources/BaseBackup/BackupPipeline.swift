// The pipeline: source → cut → digest, compare, compress (all cores) → seal and pack → all regions. Every joint is a
// bounded queue; when one stage fails, all queues fail with its error and every thread ends.
import BackupRepository
import Diagnostics
import Envelope
import PostgresFormats
import SystemSupport

/// What went through the pipeline.
struct PipelineResult: Sendable {
  var databaseByteCount: Int64 = 0
  var fileCount = 0
  var newByteCount: Int64 = 0
  /// Of these the bytes that didn't change, and whose packs were given up.
  var rewrittenByteCount: Int64 = 0
  var storedByteCount: Int64 = 0
  /// Bytes of the blocks in each pack.
  var packPlaintextByteCounts: [Int64] = []
  var partCount = 0
  var referenced: [Int: Set<Int>] = [:]
  var profile: [StageProfile] = []
}

/// The clocks of the stages.
struct PipelineMeters: Sendable {
  let receive = StageMeter("receive")
  let compress = StageMeter("compress")
  let pack = StageMeter("pack")
  let upload = StageMeter("upload")

  var profile: [StageProfile] { [receive, compress, pack, upload].map(\.profile) }
}

/// The joints between the stages.
private struct Joints: Sendable {
  let pool: BoundedQueue<ChunkBuffer>
  let chunks: BoundedQueue<ChunkBuffer>
  let processed: BoundedQueue<ChunkBuffer>
  let uploads: BoundedQueue<SealedUpload>
  /// Ends waits that aren't for a queue.
  let hasFailed = Cancellation()

  func fail(_ error: TidemarkError) {
    hasFailed.cancel()
    pool.fail(error)
    chunks.fail(error)
    processed.fail(error)
    uploads.fail(error)
  }
}

struct BackupPipeline {
  let repository: Repository
  let layout: LineageLayout
  let label: BackupLabelName
  let blockSize: Int
  let size: PipelineSize
  let previous: PreviousFileTable?
  /// Of all regions together.
  let uploadLimiter: RateLimiter
  let meters = PipelineMeters()

  /// Runs `produce` on this thread with a cutter that feeds the other stages.
  func run(_ produce: (inout BlockCutter) throws -> Void) throws(TidemarkError) -> PipelineResult {
    let bufferCount = size.bufferCount
    let joints = Joints(
      pool: BoundedQueue(limit: bufferCount), chunks: BoundedQueue(limit: bufferCount),
      processed: BoundedQueue(limit: bufferCount), uploads: BoundedQueue(limit: 0))
    for _ in 0..<bufferCount { try joints.pool.push(ChunkBuffer()) }

    let workers = WorkerThread<Void>("compress") { [self] in
      try withThreads("compress", count: size.workerCount, onFailure: joints.fail) { [self] _ in
        try meters.compress.thread {
          var worker = try ChunkWorker(blockSize: blockSize, level: repository.compressionLevel)
          while let chunk = try joints.chunks.pop(meters.compress) {
            try worker.process(chunk)
            try joints.processed.push(chunk, meters.compress)
          }
        }
      }
      joints.processed.close()
    }
    let packing = WorkerThread<PipelineResult>("pack") { [self] in
      do { return try meters.pack.thread { try pack(joints) } } catch {
        joints.fail(TidemarkError.wrapping(error))
        throw error
      }
    }
    let uploading = WorkerThread<Void>("upload") { [self] in
      try withThreads("upload", count: size.uploadCount, onFailure: joints.fail) { [self] _ in
        try meters.upload.thread {
          while let object = try joints.uploads.pop(meters.upload) {
            // Before the regions' own limits of time begin.
            try uploadLimiter.take(
              object.body.byteCount * repository.regions.regions.count, cancelledBy: joints.hasFailed)
            if joints.hasFailed.isCancelled { return }
            CrashPoint.reach("backup.before-upload")
            try repository.regions.create(object.name, object.body)
            CrashPoint.reach("backup.after-upload")
          }
        }
      }
    }

    var cutter = BlockCutter(
      blockSize: blockSize, pool: joints.pool, output: joints.chunks, previous: previous, meter: meters.receive)
    var failure: TidemarkError?
    do throws(TidemarkError) {
      try meters.receive.thread { () throws(TidemarkError) in
        try mapAny { try produce(&cutter) }
        try cutter.finish()
      }
    } catch {
      failure = error
      joints.fail(error)
    }
    var result = PipelineResult()
    do throws(TidemarkError) { try workers.join() } catch { failure = failure ?? error }
    do throws(TidemarkError) { result = try packing.join() } catch { failure = failure ?? error }
    do throws(TidemarkError) { try uploading.join() } catch { failure = failure ?? error }
    if let failure { throw failure }
    result.databaseByteCount = cutter.databaseByteCount
    result.fileCount = cutter.fileCount
    result.profile = meters.profile
    return result
  }

  private func pack(_ joints: Joints) throws(TidemarkError) -> PipelineResult {
    var packer = Packer(
      repository, layout: layout, label: label, blockSize: blockSize, uploads: joints.uploads, meter: meters.pack)
    // At most as many chunks as there are buffers can be ahead of the next in order.
    var early: [Int: ChunkBuffer] = [:]
    var next = 0
    while let chunk = try joints.processed.pop(meters.pack) {
      early[chunk.sequence] = chunk
      while let ready = early.removeValue(forKey: next) {
        try packer.add(ready)
        try joints.pool.push(ready)
        next += 1
      }
    }
    precondition(early.isEmpty, "a chunk is missing from the sequence")
    try packer.finish()
    return PipelineResult(
      newByteCount: packer.newByteCount, rewrittenByteCount: packer.rewrittenByteCount,
      storedByteCount: packer.storedByteCount, packPlaintextByteCounts: packer.packPlaintextByteCounts,
      partCount: packer.partCount, referenced: packer.referenced)
  }
}

/// Runs `body`; errors that aren't ours become ``ErrorCode/internalFault``.
func mapAny<Result>(_ body: () throws -> Result) throws(TidemarkError) -> Result {
  do { return try body() } catch { throw TidemarkError.wrapping(error) }
}
