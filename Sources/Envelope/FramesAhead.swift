// Compression and sealing of one object's frames on all cores: PostgreSQL waits while a segment is archived. Frames don't
// depend on each other, so the result is the same with any number of threads.
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

/// A frame's content as its codec made it.
private struct CompressedFrame: Sendable {
  /// Its number and where its plaintext lies.
  var number: Int
  var range: Range<Int>
  /// Its compressed form; `nil` when the plaintext itself is stored.
  var compressed: (buffer: FrameBuffer, byteCount: Int)?
}

/// How far a frame is.
private enum FrameAhead: Sendable {
  case compressed(CompressedFrame)
  case sealed(SealedFrame)
}

/// What the threads share.
private final class FrameWork: Sendable {
  /// What they read.
  ///
  /// Invariant: nobody writes it, and who made ``FramesAhead`` keeps it until that has gone, which waits for the threads.
  /// That is why it is `nonisolated(unsafe)`.
  nonisolated(unsafe) let plaintext: UnsafeRawBufferPointer
  let level: Int
  let buffers = FrameBuffers()
  /// Until it is known, frames wait in their compressed form.
  let sealer = Mutex<FrameSealer?>(nil)

  init(_ plaintext: UnsafeRawBufferPointer, level: Int) {
    self.plaintext = plaintext
    self.level = level
  }

  var frameCount: Int {
    (plaintext.count + SealedObject.framePlaintextByteCountMax - 1) / SealedObject.framePlaintextByteCountMax
  }

  func range(_ number: Int) -> Range<Int> {
    let start = number * SealedObject.framePlaintextByteCountMax
    return start..<min(start + SealedObject.framePlaintextByteCountMax, plaintext.count)
  }
}

/// The frames of one plaintext, in order. Threads compress them ahead of the one who takes them, and seal them too once it
/// is known how, so that what the caller does meanwhile costs no time of its own. The threads end with this value.
struct FramesAhead: ~Copyable {
  private static let threadCountMax = 4
  /// Frames that may be ready and not yet taken: what bounds the memory. As many as two cores compress while a segment's
  /// digest is made: with fewer they stood still.
  private static let aheadCountMax = 12

  private let shared: FrameWork
  private let work: OrderedWork<FrameAhead>
  private let threads: [WorkerThread<Void>]
  private var takenCount = 0
  private var worker: FrameWorker

  /// Begins to compress `bytes` in frames of ``SealedObject/framePlaintextByteCountMax`` bytes. They must outlive this
  /// value.
  init(_ bytes: UnsafeRawBufferPointer, level: Int) throws(TidemarkError) {
    let shared = FrameWork(bytes, level: level)
    let work = OrderedWork<FrameAhead>(count: shared.frameCount, aheadCount: Self.aheadCountMax)
    self.shared = shared
    self.work = work
    worker = try FrameWorker(shared)
    // A thread for less than two frames costs more than it gains.
    let threadCount = min(processorCount(), Self.threadCountMax, work.count / 2)
    threads = (0..<(threadCount > 1 ? threadCount : 0)).map { number in
      WorkerThread("compress-\(number)") {
        do throws(TidemarkError) {
          var worker = try FrameWorker(shared)
          while let number = work.claim() {
            let frame = try worker.compress(number)
            if let sealer = shared.sealer.withLock(\.self) {
              work.put(.sealed(try worker.seal(frame, sealer)), at: number)
            } else {
              work.put(.compressed(frame), at: number)
            }
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

  /// Says how the frames are sealed: before the first is taken.
  func seal(with sealer: FrameSealer) { shared.sealer.withLock { $0 = sealer } }

  /// The next frame; `nil` behind the last.
  mutating func next() throws(TidemarkError) -> SealedFrame? {
    guard takenCount < work.count else { return nil }
    guard let sealer = shared.sealer.withLock(\.self) else { preconditionFailure("nobody said how frames are sealed") }
    defer { takenCount += 1 }
    let frame: FrameAhead =
      if threads.isEmpty { .compressed(try worker.compress(takenCount)) } else { try work.take(takenCount) }
    switch frame {
    case .sealed(let frame): return frame
    case .compressed(let frame): return try worker.seal(frame, sealer)
    }
  }
}

/// One thread's compressor and cipher.
private struct FrameWorker: ~Copyable {
  private let shared: FrameWork
  private var compressor: FrameCompressor
  private let cipher: FrameCipher

  init(_ shared: FrameWork) throws(TidemarkError) {
    let compressor = try FrameCompressor()
    let cipher = try FrameCipher()
    self.shared = shared
    self.compressor = compressor
    self.cipher = cipher
  }

  mutating func compress(_ number: Int) throws(TidemarkError) -> CompressedFrame {
    let range = shared.range(number)
    let buffer = shared.buffers.take()
    let (codec, byteCount) = try compressor.compress(
      UnsafeRawBufferPointer(rebasing: shared.plaintext[range]), into: buffer.bytes, level: shared.level)
    switch codec {
    case .zstd: return CompressedFrame(number: number, range: range, compressed: (buffer, byteCount))
    case .stored:
      shared.buffers.giveBack(buffer)
      return CompressedFrame(number: number, range: range, compressed: nil)
    }
  }

  func seal(_ frame: CompressedFrame, _ sealer: FrameSealer) throws(TidemarkError) -> SealedFrame {
    guard let (buffer, byteCount) = frame.compressed else {
      return try sealer.seal(
        frame.number, .stored, UnsafeRawBufferPointer(rebasing: shared.plaintext[frame.range]),
        plaintextByteCount: frame.range.count, with: cipher)
    }
    defer { shared.buffers.giveBack(buffer) }
    return try sealer.seal(
      frame.number, .zstd, UnsafeRawBufferPointer(rebasing: buffer.bytes[..<byteCount]),
      plaintextByteCount: frame.range.count, with: cipher)
  }
}
