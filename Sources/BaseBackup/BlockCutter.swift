// The first stage: cuts the stream into blocks at fixed positions of each file, gathers consecutive blocks into
// chunks.
import BackupRepository
import Diagnostics
import PostgresFormats
import SystemSupport

/// Cuts what a source delivers into chunks.
struct BlockCutter {
  private let blockSize: Int
  private let pool: BoundedQueue<ChunkBuffer>
  private let output: BoundedQueue<ChunkBuffer>
  private let previous: PreviousFileTable?
  private let meter: StageMeter
  private var chunk: ChunkBuffer?
  private var sequence = 0

  // The current file.
  private var fileByteCount: Int64 = 0
  private var blockStart = 0
  private var blockIndex = 0
  private var previousFiles: [PreviousFile] = []

  private(set) var databaseByteCount: Int64 = 0
  private(set) var fileCount = 0

  init(
    blockSize: Int, pool: BoundedQueue<ChunkBuffer>, output: BoundedQueue<ChunkBuffer>, previous: PreviousFileTable?,
    meter: StageMeter
  ) {
    self.blockSize = blockSize
    self.pool = pool
    self.output = output
    self.previous = previous
    self.meter = meter
  }

  mutating func add(_ entry: FileTableEntry) throws(TidemarkError) { try current().items.append(.entry(entry)) }

  mutating func beginFile(_ entry: SourceEntry) throws(TidemarkError) {
    fileByteCount = 0
    blockIndex = 0
    let chunk = try current()
    previousFiles = try previous?.files(at: entry.path) ?? []
    chunk.items.append(.beginFile(entry, previousFiles))
    blockStart = chunk.inputCount
  }

  mutating func append(_ bytes: UnsafeRawBufferPointer) throws(TidemarkError) {
    fileByteCount += Int64(bytes.count)
    var rest = bytes
    while !rest.isEmpty {
      var chunk = try current()
      let filled = chunk.inputCount - blockStart
      if filled == 0, chunk.inputCount + blockSize > ChunkBuffer.byteCountMax {
        try flush()
        chunk = try current()
        blockStart = 0
      }
      let count = min(rest.count, blockSize - filled)
      // Both buffers are not empty, so they have base addresses.
      (chunk.input.baseAddress! + chunk.inputCount).copyMemory(from: rest.baseAddress!, byteCount: count)
      chunk.inputCount += count
      rest = UnsafeRawBufferPointer(rebasing: rest[count...])
      if chunk.inputCount - blockStart == blockSize { endBlock(chunk) }
    }
  }

  /// Ends the file.
  mutating func endFile(crc32c: UInt32) throws(TidemarkError) {
    let chunk = try current()
    if chunk.inputCount > blockStart { endBlock(chunk) }
    chunk.items.append(.endFile(byteCount: fileByteCount, crc32c: crc32c))
    previousFiles = []
    databaseByteCount += fileByteCount
    fileCount += 1
  }

  /// Hands over what is gathered; nothing comes after it.
  mutating func finish() throws(TidemarkError) {
    try flush()
    output.close()
  }

  private mutating func endBlock(_ chunk: ChunkBuffer) {
    let byteCount = chunk.inputCount - blockStart
    if case .blocks(let count, let first, let offset, let bytes) = chunk.items.last,
      first + count == blockIndex, offset + bytes == blockStart
    {
      chunk.items[chunk.items.count - 1] = .blocks(
        count: count + 1, firstBlock: first, offset: offset, byteCount: bytes + byteCount)
    } else {
      chunk.items.append(.blocks(count: 1, firstBlock: blockIndex, offset: blockStart, byteCount: byteCount))
    }
    blockIndex += 1
    blockStart = chunk.inputCount
  }

  /// The chunk being filled. One that has gathered very many entries is handed over although there is room for data.
  private mutating func current() throws(TidemarkError) -> ChunkBuffer {
    if let chunk {
      if chunk.items.count < 4096 || chunk.inputCount > blockStart { return chunk }
      try flush()
      blockStart = 0
    }
    // The pool is never closed, only failed.
    let fresh = try meter.waitingForOutput { () throws(TidemarkError) in try pool.pop()! }
    fresh.reset()
    fresh.sequence = sequence
    fresh.continuedFiles = previousFiles
    sequence += 1
    chunk = fresh
    return fresh
  }

  private mutating func flush() throws(TidemarkError) {
    guard let full = chunk else { return }
    chunk = nil
    try output.push(full, meter)
  }
}
