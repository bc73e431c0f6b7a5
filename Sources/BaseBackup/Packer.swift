// The third stage, on one thread: takes the chunks in stream order, seals their frames into packs, and writes the file
// table. Full packs and parts go to the uploaders at once.
import BackupRepository
import Diagnostics
import Envelope
import ObjectStorage
import PostgresFormats
import SystemSupport

/// A sealed object on its way to the regions.
struct SealedUpload: Sendable {
  var name: ObjectName
  var body: ObjectBody
}

struct Packer: ~Copyable {
  /// Stored bytes at which a pack is closed.
  static let packByteCount = 16 << 20
  /// Packs after which the file table's part is closed though it isn't full: what an interrupted backup uploaded is of
  /// use to the next one only where a part describes it.
  static let packCountPerPart = 4

  private let repository: Repository
  private let layout: LineageLayout
  private let label: BackupLabelName
  private let blockSize: Int
  private let uploads: BoundedQueue<SealedUpload>
  private let meter: StageMeter

  private var writer: SealedObjectWriter?
  private(set) var packCount = 0
  private var part: FileTablePartWriter?
  private(set) var partCount = 0
  private var packCountAtPart = 0
  private(set) var newByteCount: Int64 = 0
  /// Of the new bytes those that were stored anew because their pack was given up.
  private(set) var rewrittenByteCount: Int64 = 0
  /// Bytes of the blocks in each of this backup's packs.
  private(set) var packPlaintextByteCounts: [Int64] = []
  private(set) var storedByteCount: Int64 = 0
  /// Packs that the table refers to: label index → numbers.
  private(set) var referenced: [Int: Set<Int>] = [:]

  // The file whose blocks are coming.
  private var file: SourceEntry?
  private var digests: [UInt8] = []
  private var runs: [BlockRun] = []

  init(
    _ repository: Repository, layout: LineageLayout, label: BackupLabelName, blockSize: Int,
    uploads: BoundedQueue<SealedUpload>, meter: StageMeter
  ) {
    self.repository = repository
    self.layout = layout
    self.label = label
    self.blockSize = blockSize
    self.uploads = uploads
    self.meter = meter
  }

  /// Takes the next chunk in stream order.
  mutating func add(_ chunk: ChunkBuffer) throws(TidemarkError) {
    let frame = chunk.keptCount > 0 ? try store(chunk) : 0
    var block = 0
    for item in chunk.items {
      switch item {
      case .beginFile(let entry, _):
        file = entry
        digests.removeAll(keepingCapacity: true)
        runs.removeAll(keepingCapacity: true)
      case .blocks(let count, _, _, _):
        let start = block * FileTable.digestByteCount
        digests.append(contentsOf: chunk.digests[start..<start + count * FileTable.digestByteCount])
        for placement in chunk.placements[block..<block + count] {
          switch placement {
          case .reused(let run): append(run)
          // Label 0 is this backup's own.
          case .stored(let offset):
            append(BlockRun(count: 1, label: 0, pack: packCount, frame: frame, offset: offset))
          }
        }
        block += count
      case .endFile(let byteCount, let crc32c):
        guard let file else { preconditionFailure("a file ends that didn't begin") }
        try append(
          FileTableEntry(
            path: file.path, mode: file.mode,
            content: .file(byteCount: byteCount, crc32c: crc32c, digests: digests, runs: runs)))
        self.file = nil
      case .entry(let entry): try append(entry)
      }
    }
  }

  /// Closes the last pack and the last part.
  mutating func finish() throws(TidemarkError) {
    try closePack()
    try closePart()
    uploads.close()
  }

  private mutating func append(_ run: BlockRun) {
    referenced[run.label, default: []].insert(run.pack)
    if let last = runs.last, last.label == run.label, last.pack == run.pack, last.frame == run.frame,
      last.offset + last.count * blockSize == run.offset
    {
      runs[runs.count - 1].count += run.count
    } else {
      runs.append(run)
    }
  }

  private mutating func append(_ entry: FileTableEntry) throws(TidemarkError) {
    if part?.isFull == nil {
      partCount += 1
      part = try FileTablePartWriter(repository, layout.fileTablePart(label, partCount), blockSize: blockSize)
    }
    // Opened just above.
    try part!.append(entry)
    if part?.isFull == true || packCount - packCountAtPart > Self.packCountPerPart { try closePart() }
  }

  /// Seals the chunk's frame into the open pack and returns the frame's number there.
  private mutating func store(_ chunk: ChunkBuffer) throws(TidemarkError) -> Int {
    let bytes: UnsafeRawBufferPointer
    switch chunk.codec {
    case .stored: bytes = UnsafeRawBufferPointer(rebasing: chunk.input[..<chunk.keptCount])
    case .zstd: bytes = UnsafeRawBufferPointer(rebasing: chunk.output[..<chunk.outputCount])
    }
    if let filled = writer?.storedByteCount, filled + bytes.count > Self.packByteCount { try closePack() }
    if writer?.frameCount == nil {
      packCount += 1
      packPlaintextByteCounts.append(0)
      writer = try repository.sealedObject(.pack, layout.pack(label, packCount))
    }
    newByteCount += Int64(chunk.keptCount)
    rewrittenByteCount += Int64(chunk.rewrittenCount)
    packPlaintextByteCounts[packCount - 1] += Int64(chunk.keptCount)
    // Opened just above.
    return try writer!.appendFrame(codec: chunk.codec, bytes, plaintextByteCount: chunk.keptCount)
  }

  private mutating func closePack() throws(TidemarkError) {
    guard let full = writer.take() else { return }
    try upload(layout.pack(label, packCount), ObjectBody(full.finish()))
  }

  private mutating func closePart() throws(TidemarkError) {
    guard let full = part.take() else { return }
    try upload(layout.fileTablePart(label, partCount), ObjectBody(full.finish()))
    packCountAtPart = packCount
  }

  private mutating func upload(_ name: ObjectName, _ body: ObjectBody) throws(TidemarkError) {
    storedByteCount += Int64(body.byteCount)
    try uploads.push(SealedUpload(name: name, body: body), meter)
  }
}
