// Compression of one object's frames on all cores: PostgreSQL waits while a segment is archived. Frames don't depend on each
// other, so the result is the same with any number of threads.
import Diagnostics
import SystemSupport

/// A frame's content, ready to be sealed.
struct CompressedFrame: Sendable {
  /// Where its plaintext lies.
  var range: Range<Int>
  var codec: FrameCodec
  /// Empty when the plaintext itself is stored.
  var bytes: [UInt8]

  func withContent(
    of plaintext: UnsafeRawBufferPointer, _ body: (UnsafeRawBufferPointer) throws(TidemarkError) -> Void
  ) throws(TidemarkError) {
    switch codec {
    case .stored: try body(UnsafeRawBufferPointer(rebasing: plaintext[range]))
    case .zstd:
      try bytes.withUnsafeBufferPointer { buffer throws(TidemarkError) in try body(UnsafeRawBufferPointer(buffer)) }
    }
  }
}

/// The frames of one plaintext, in order. Threads compress them ahead of the one who takes them, so that what the caller
/// does meanwhile, and the sealing of a frame, cost no time of their own. The threads end with this value.
struct FramesAhead: ~Copyable {
  private static let threadCountMax = 4
  /// Frames that may be ready and not yet taken: what bounds the memory.
  private static let aheadCountMax = 32

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
    self.plaintext = plaintext
    self.level = level
    self.work = work
    // A thread for less than two frames costs more than it gains.
    let threadCount = min(processorCount(), Self.threadCountMax, work.count / 2)
    threads = (0..<(threadCount > 1 ? threadCount : 0)).map { number in
      WorkerThread("compress-\(number)") {
        do throws(TidemarkError) {
          var worker = try FrameWorker()
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

  /// The next frame; `nil` behind the last.
  mutating func take() throws(TidemarkError) -> CompressedFrame? {
    guard next < work.count else { return nil }
    defer { next += 1 }
    if !threads.isEmpty { return try work.take(next) }
    var worker = if let worker = self.worker.take() { worker } else { try FrameWorker() }
    let frame = try worker.compress(plaintext.bytes, Self.range(next, of: plaintext), level: level)
    self.worker = consume worker
    return frame
  }

  private static func range(_ index: Int, of plaintext: Plaintext) -> Range<Int> {
    let start = index * SealedObject.framePlaintextByteCountMax
    return start..<min(start + SealedObject.framePlaintextByteCountMax, plaintext.bytes.count)
  }
}

/// One thread's compressor with its output buffer.
private struct FrameWorker: ~Copyable {
  private var compressor: FrameCompressor
  private let output: UnsafeMutableRawBufferPointer

  init() throws(TidemarkError) {
    let compressor = try FrameCompressor()
    self.compressor = compressor
    output = .allocate(
      byteCount: FrameCompressor.outputByteCountMax(SealedObject.framePlaintextByteCountMax), alignment: 64)
  }

  deinit { output.deallocate() }

  mutating func compress(
    _ plaintext: UnsafeRawBufferPointer, _ range: Range<Int>, level: Int
  ) throws(TidemarkError) -> CompressedFrame {
    let (codec, count) = try compressor.compress(
      UnsafeRawBufferPointer(rebasing: plaintext[range]), into: output, level: level)
    return CompressedFrame(range: range, codec: codec, bytes: codec == .stored ? [] : Array(output[..<count]))
  }
}
