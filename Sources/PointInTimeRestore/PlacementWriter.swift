// Writes parts of frames to their places in files, one file open at a time. Zeros that a new file has by itself aren't
// written: their space is allocated, so that PostgreSQL finds every page backed by the disk, and nothing else.
import Diagnostics
import Glibc
import SystemSupport

struct PlacementWriter: ~Copyable {
  private let paths: [String]
  private let meter: StageMeter
  private let turns: WriteTurns
  /// Whether nothing was ever written into these files, so that they read as zeros.
  private let isFresh: Bool
  private var file: Int32 = -1
  private var descriptor: Int32 = -1
  /// Bytes written since the file was opened.
  private var writtenByteCount = 0

  /// So much of a file goes to the disk at once, while others are fetched: less is left for the flush at the end.
  /// Smaller files are left to the kernel, which writes many of them together.
  private static let flushedByteCountMin = 1 << 20
  /// Below it a page of zeros is written like any other.
  private static let zerosByteCountMin = 64 << 10

  init(_ paths: [String], _ restorer: FileRestorer, isFresh: Bool = false) {
    self.paths = paths
    meter = restorer.meter
    turns = restorer.turns
    self.isFresh = isFresh
  }

  deinit { Self.finish(descriptor, writtenByteCount) }

  private static func finish(_ descriptor: Int32, _ writtenByteCount: Int) {
    guard descriptor >= 0 else { return }
    if writtenByteCount >= flushedByteCountMin { beginFlush(descriptor) }
    close(descriptor)
  }

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
      Self.finish(descriptor, writtenByteCount)
      descriptor = -1
      writtenByteCount = 0
      descriptor = try retryingInterrupts("cannot open the file", path) { () -> Int32 in
        open(path, O_WRONLY | O_NOFOLLOW | O_CLOEXEC)
      }
      file = placement.file
    }
    let opened = descriptor
    writtenByteCount += count
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
    }
  }

  /// Returns whether the bytes are zeros.
  private static func isZero(_ bytes: UnsafeRawBufferPointer) -> Bool {
    guard let base = bytes.baseAddress, bytes[0] == 0 else { return false }
    // Each byte is the one before it.
    return memcmp(base, base + 1, bytes.count - 1) == 0
  }
}
