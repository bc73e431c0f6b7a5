// The second stage, on all cores: digests each block, leaves out those that earlier backups have, and compresses
// the rest into one frame.
import BackupRepository
import Diagnostics
import Envelope

/// Processes chunks; one worker for each thread.
struct ChunkWorker: ~Copyable {
  private let blockSize: Int
  private let level: Int
  private var hasher: SHA256Hasher
  private var compressor: FrameCompressor

  init(blockSize: Int, level: Int) throws(TidemarkError) {
    // Both first: a value that can't be copied must be whole or not at all when this throws.
    let hasher = try SHA256Hasher()
    let compressor = try FrameCompressor()
    self.blockSize = blockSize
    self.level = level
    self.hasher = hasher
    self.compressor = compressor
  }

  /// Fills the chunk's digests, placements and compressed frame.
  mutating func process(_ chunk: ChunkBuffer) throws(TidemarkError) {
    var previous = chunk.continuedFiles
    var kept = 0
    for item in chunk.items {
      switch item {
      case .beginFile(_, let files): previous = files
      case .endFile: previous = []
      case .entry: break
      case .blocks(let count, let firstBlock, let offset, let byteCount):
        for index in 0..<count {
          let start = offset + index * blockSize
          let length = min(blockSize, offset + byteCount - start)
          let block = UnsafeRawBufferPointer(rebasing: chunk.input[start..<start + length])
          try hasher.appendDigest(of: block, prefix: FileTable.digestByteCount, to: &chunk.digests)
          let digest = chunk.digests.suffix(FileTable.digestByteCount)
          switch Self.place(firstBlock + index, digest, in: previous, blockSize: blockSize) {
          case .usable(let run):
            chunk.placements.append(.reused(run))
            continue
          case .sparse: chunk.rewrittenCount += length
          case .lost, nil: break
          }
          if kept != start {
            // Blocks are never empty, so both have base addresses.
            (chunk.input.baseAddress! + kept).copyMemory(from: block.baseAddress!, byteCount: length)
          }
          chunk.placements.append(.stored(offset: kept))
          kept += length
        }
      }
    }
    chunk.keptCount = kept
    guard kept > 0 else { return }
    let result = try compressor.compress(
      UnsafeRawBufferPointer(rebasing: chunk.input[..<kept]), into: chunk.output, level: level)
    chunk.codec = result.codec
    chunk.outputCount = result.byteCount
  }

  /// Where the earlier backups have the block: an interrupted one may have stored anew already what is in a sparse pack.
  private static func place(
    _ index: Int, _ digest: ArraySlice<UInt8>, in files: [PreviousFile], blockSize: Int
  ) -> PreviousFile.Place? {
    var found: PreviousFile.Place?
    for file in files {
      switch file.place(of: index, digest: digest, blockSize: blockSize) {
      case .usable(let run): return .usable(run)
      case .sparse: found = .sparse
      case .lost, nil: break
      }
    }
    return found
  }
}
