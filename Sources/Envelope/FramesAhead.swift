// Compression of one object's frames on all cores: PostgreSQL waits while a segment is archived. Frames don't depend on each
// other, so the result is the same with any number of threads.
import Diagnostics
import Synchronization
import SystemSupport

/// Memory for one frame's compressed form. Whoever has the reference writes or reads it, one after the other: that is why
/// it is `@unchecked Sendable`.
private final class FrameBuffer: @unchecked Sendable {
  let bytes = UnsafeMutableRawBufferPointer.allocate(
    byteCount: FrameCompressor.outputByteCountMax(SealedObject.framePlaintextByteCountMax), alignment: 64)

  deinit { bytes.deallocate() }
}

/// Memory that is used again: a page that is touched for the first time costs more than what is written into it.
private final class FrameBuffers: Sendable {
  private let idle = Mutex<[FrameBuffer]>([])

  func take() -> FrameBuffer { idle.withLock { $0.popLast() } ?? FrameBuffer() }
  func giveBack(_ buffer: FrameBuffer) { idle.withLock { $0.append(buffer) } }
}

/// A frame, ready to be sealed.
private struct CompressedFrame: Sendable {
  /// Where its plaintext lies.
  var range: Range<Int>
  /// Its compressed form; `nil` when the plaintext itself is stored.
  var compressed: (buffer: FrameBuffer, byteCount: Int)?
}

/// The frames of one plaintext, in order. Threads compress them ahead of the one who takes them, so that what the caller
/// does meanwhile, and the sealing of a frame, cost no time of their own. The threads end with this value.
struct FramesAhead: ~Copyable {
  private static let threadCountMax = 4
  /// Frames that may be ready and not yet taken: what bounds the memory. As many as two cores compress while a segment's
  /// digest is made: with fewer they stood still.
  private static let aheadCountMax = 12

  /// What the threads read.
  ///
  /// Invariant: nobody writes it, and who made this value keeps it until the value has gone, which waits for the threads.
  /// That is why it is `@unchecked Sendable`.
  private struct Plaintext: @unchecked Sendable {
    let bytes: UnsafeRawBufferPointer
  }

  private let plaintext: Plaintext
  private let level: Int
  private let work: OrderedWork<CompressedFrame>
  private let buffers: FrameBuffers
  private let threads: [WorkerThread<Void>]
  private var next = 0
  /// Where there are no threads.
  private var worker: FrameWorker?

  /// Begins to compress `bytes` in frames of ``SealedObject/framePlaintextByteCountMax`` bytes. They must outlive this
  /// value.
  init(_ bytes: UnsafeRawBufferPointer, level: Int) {
    let size = SealedObject.framePlaintextByteCountMax
    let work = OrderedWork<CompressedFrame>(
      count: (bytes.count + size - 1) / size, aheadCount: Self.aheadCountMax)
    let plaintext = Plaintext(bytes: bytes)
    let buffers = FrameBuffers()
    self.plaintext = plaintext
    self.buffers = buffers
    self.level = level
    self.work = work
    // A thread for less than two frames costs more than it gains.
    let threadCount = min(processorCount(), Self.threadCountMax, work.count / 2)
    threads = (0..<(threadCount > 1 ? threadCount : 0)).map { number in
      WorkerThread("compress-\(number)") {
        do throws(TidemarkError) {
          var worker = try FrameWorker(buffers)
          while let index = work.claim() {
            work.put(try worker.compress(plaintext.bytes, Self.range(index, of: plaintext), level: level), at: index)
          }
        } catch { work.fail(error) }
      }
    }
  }

  deinit {
    work.cancel()
    for thread in threads {
      // What failed was handed to whoever takes the frames.
      do throws(TidemarkError) { try thread.join() } catch { continue }
    }
  }

  /// Lends the next frame: its codec, its content as that made it, and the number of plaintext bytes. `false` behind the
  /// last.
  mutating func next(
    _ body: (FrameCodec, UnsafeRawBufferPointer, Int) throws(TidemarkError) -> Void
  ) throws(TidemarkError) -> Bool {
    guard next < work.count else { return false }
    defer { next += 1 }
    let frame = threads.isEmpty ? try compressNext() : try work.take(next)
    if let (buffer, byteCount) = frame.compressed {
      defer { buffers.giveBack(buffer) }
      try body(.zstd, UnsafeRawBufferPointer(rebasing: buffer.bytes[..<byteCount]), frame.range.count)
    } else {
      try body(.stored, UnsafeRawBufferPointer(rebasing: plaintext.bytes[frame.range]), frame.range.count)
    }
    return true
  }

  private mutating func compressNext() throws(TidemarkError) -> CompressedFrame {
    var worker = if let worker = self.worker.take() { worker } else { try FrameWorker(buffers) }
    let frame = try worker.compress(plaintext.bytes, Self.range(next, of: plaintext), level: level)
    self.worker = consume worker
    return frame
  }

  private static func range(_ index: Int, of plaintext: Plaintext) -> Range<Int> {
    let start = index * SealedObject.framePlaintextByteCountMax
    return start..<min(start + SealedObject.framePlaintextByteCountMax, plaintext.bytes.count)
  }
}

/// One thread's compressor.
private struct FrameWorker: ~Copyable {
  private var compressor: FrameCompressor
  private let buffers: FrameBuffers

  init(_ buffers: FrameBuffers) throws(TidemarkError) {
    compressor = try FrameCompressor()
    self.buffers = buffers
  }

  mutating func compress(
    _ plaintext: UnsafeRawBufferPointer, _ range: Range<Int>, level: Int
  ) throws(TidemarkError) -> CompressedFrame {
    let buffer = buffers.take()
    let (codec, byteCount) = try compressor.compress(
      UnsafeRawBufferPointer(rebasing: plaintext[range]), into: buffer.bytes, level: level)
    switch codec {
    case .zstd: return CompressedFrame(range: range, compressed: (buffer, byteCount))
    case .stored:
      buffers.giveBack(buffer)
      return CompressedFrame(range: range, compressed: nil)
    }
  }
}
