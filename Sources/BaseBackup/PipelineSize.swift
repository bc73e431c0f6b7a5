// How large a backup's pipeline may be: threads and buffers that fit into the configured memory, whatever the host's cores.
import BackupRepository

struct PipelineSize: Equatable {
  let workerCount: Int
  /// Chunks between the stages.
  let bufferCount: Int
  /// Objects on their way to the regions at once, besides the one that is being filled.
  let uploadCount: Int

  /// What a worker brings: its zstd context, measured at level 3, and two chunks.
  private static let workerByteCount = (4 << 20) + 2 * ChunkBuffer.memoryByteCount
  /// From here on a second object is sent while the first is on its way.
  private static let twoUploadsByteCountMin = 128 << 20

  /// - Parameters:
  ///   - workers: as many as are wanted; fewer where the memory ends, but always one.
  ///   - memoryByteCount: for buffers. The program itself comes on top.
  init(workers: Int, memoryByteCount: Int) {
    uploadCount = memoryByteCount >= Self.twoUploadsByteCountMin ? 2 : 1
    let left = memoryByteCount - (uploadCount + 1) * Packer.packByteCount - 2 * ChunkBuffer.memoryByteCount
    workerCount = min(workers, max(1, left / Self.workerByteCount))
    bufferCount = workerCount * 2 + 2
  }
}
