// The unit of work between the pipeline's stages: up to one frame of consecutive blocks, with what is known of them.
// Buffers come from a fixed pool, which is what bounds the memory of the pipeline.
import BackupRepository
import Envelope

/// A buffer of one frame's plaintext and one of its compressed form.
///
/// Invariant: one stage owns it at a time; it moves from stage to stage through queues, whose locks order the
/// accesses. That is why it may be marked `@unchecked Sendable`.
final class ChunkBuffer: @unchecked Sendable {
  static let byteCountMax = SealedObject.framePlaintextByteCountMax
  /// Of both its buffers.
  static let memoryByteCount = byteCountMax + FrameCompressor.outputByteCountMax(byteCountMax)

  /// What the chunk consists of, in stream order.
  enum Item {
    case beginFile(SourceEntry, [PreviousFile])
    /// `count` consecutive blocks of the current file from `firstBlock`, lying at `offset` in the input.
    case blocks(count: Int, firstBlock: Int, offset: Int, byteCount: Int)
    case endFile(byteCount: Int64, crc32c: UInt32)
    case entry(FileTableEntry)
  }

  /// What became of one block.
  enum Placement {
    /// At this offset of the chunk's frame.
    case stored(offset: Int)
    /// Where an earlier backup has it: one block, with the label's index in the new table.
    case reused(BlockRun)
  }

  let input: UnsafeMutableRawBufferPointer
  let output: UnsafeMutableRawBufferPointer
  var sequence = 0
  var inputCount = 0
  var items: [Item] = []
  /// The earlier backups' forms of the file that an earlier chunk began and this one continues.
  var continuedFiles: [PreviousFile] = []

  // Filled by a worker.
  var digests: [UInt8] = []
  var placements: [Placement] = []
  /// Bytes of `input` after the unchanged blocks were left out: the frame's plaintext.
  var keptCount = 0
  /// Of these the bytes that didn't change: they are stored anew because their pack is given up.
  var rewrittenCount = 0
  var codec = FrameCodec.stored
  /// Bytes of `output` when it is compressed.
  var outputCount = 0

  init() {
    input = .allocate(byteCount: Self.byteCountMax, alignment: 64)
    output = .allocate(byteCount: FrameCompressor.outputByteCountMax(Self.byteCountMax), alignment: 64)
  }

  deinit {
    input.deallocate()
    output.deallocate()
  }

  func reset() {
    inputCount = 0
    continuedFiles = []
    items.removeAll(keepingCapacity: true)
    digests.removeAll(keepingCapacity: true)
    placements.removeAll(keepingCapacity: true)
    keptCount = 0
    rewrittenCount = 0
    outputCount = 0
    codec = .stored
  }
}
