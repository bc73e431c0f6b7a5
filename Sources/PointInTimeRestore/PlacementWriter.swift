// Writes parts of frames to their places in files, one file open at a time. Zeros that a new file has by itself aren't
// written: their space is allocated, so that PostgreSQL finds every page backed by the disk, and nothing else.
import Diagnostics
import Glibc
import SystemSupport

struct PlacementWriter: ~Copyable {
  private let paths: [String]
  private let created: CreatedFiles
  private let meter: StageMeter
  private let turns: WriteTurns
  private let ranges: FlushedRanges
  /// Whether nothing was ever written into these files, so that they read as zeros.
  private let isFresh: Bool
  private var file: Int32 = -1
  private var descriptor: Int32 = -1

  /// Below it a page of zeros is written like any other.
  private static let zerosByteCountMin = 64 << 10

  init(
    _ paths: [String], _ created: CreatedFiles, _ ranges: FlushedRanges, _ restorer: FileRestorer, isFresh: Bool = false
  ) {
    self.paths = paths
    self.created = created
    self.ranges = ranges
    meter = restorer.meter
    turns = restorer.turns
    self.isFresh = isFresh
  }

  deinit { if descriptor >= 0 { close(descriptor) } }

  /// - Parameter frame: the whole plaintext of the frame that `placement` names, in the object `name`.
  mutating func write(
    _ placement: FileRestorer.Placement, of frame: UnsafeRawBufferPointer, _ name: String
  ) throws(TidemarkError) {
    let (offset, count) = (Int(placement.offset), Int(placement.byteCount))
    guard offset + count <= frame.count else {
      throw TidemarkError(.objectDamaged, "the file table names bytes that the frame doesn't have", object: name)
    }
    let path = paths[Int(placement.file)]
    if placement.file != file {
      if descriptor >= 0 { close(descriptor) }
      descriptor = -1
      try meter.waitingForOutput { () throws(TidemarkError) in try created.wait(for: placement.file) }
      descriptor = try retryingInterrupts("cannot open the file", path) { () -> Int32 in
        open(path, O_WRONLY | O_NOFOLLOW | O_CLOEXEC)
      }
      file = placement.file
    }
    let opened = descriptor
    let mayBeZeros = isFresh && count >= Self.zerosByteCountMin
    var rest = UnsafeRawBufferPointer(rebasing: frame[offset..<offset + count])
    let isZeros = mayBeZeros && Self.isZero(rest)
    var position = Int(placement.fileOffset)
    try meter.waitingForOutput { () throws(TidemarkError) in
      try turns.take(placement.file) { () throws(TidemarkError) in
        if isZeros, try allocateSpace(opened, at: position, count: rest.count, path) { return }
        while !rest.isEmpty {
          let written = try retryingInterrupts("cannot write the file", path) { () -> Int in
            pwrite(opened, rest.baseAddress!, rest.count, position)  // not empty, so it has a base address
          }
          rest = UnsafeRawBufferPointer(rebasing: rest[written...])
          position += written
        }
      }
      ranges.written(placement, opened)
    }
  }

  /// Returns whether the bytes are zeros.
  private static func isZero(_ bytes: UnsafeRawBufferPointer) -> Bool {
    guard let base = bytes.baseAddress, bytes[0] == 0 else { return false }
    // Each byte is the one before it.
    return memcmp(base, base + 1, bytes.count - 1) == 0
  }
}
