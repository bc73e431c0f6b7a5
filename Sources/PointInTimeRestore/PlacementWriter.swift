// Writes parts of frames to their places in files, one file open at a time.
import Diagnostics
import Glibc
import SystemSupport

struct PlacementWriter: ~Copyable {
  private let paths: [String]
  private let meter: StageMeter
  private var file: Int32 = -1
  private var descriptor: Int32 = -1

  init(_ paths: [String], _ meter: StageMeter) {
    self.paths = paths
    self.meter = meter
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
      descriptor = try retryingInterrupts("cannot open the file", path) { () -> Int32 in
        open(path, O_WRONLY | O_NOFOLLOW | O_CLOEXEC)
      }
      file = placement.file
    }
    let opened = descriptor
    try meter.waitingForOutput { () throws(TidemarkError) in
      var rest = UnsafeRawBufferPointer(rebasing: frame[offset..<offset + count])
      var position = Int(placement.fileOffset)
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
