// Compression of one object's frames on all cores: PostgreSQL waits while a segment is archived. Frames don't depend on each
// other, so the result is the same with any number of threads.
import Diagnostics
import Synchronization
import SystemSupport

/// A frame's content, ready to be sealed.
struct CompressedFrame: Sendable {
  /// Where its plaintext lies.
  var range: Range<Int>
  var codec: FrameCodec
  /// Empty when the plaintext itself is stored.
  var bytes: [UInt8]

  func withContent(
    of plaintext: [UInt8], _ body: (UnsafeRawBufferPointer) throws(TidemarkError) -> Void
  ) throws(TidemarkError) {
    switch codec {
    case .stored:
      try plaintext.withUnsafeBufferPointer { buffer throws(TidemarkError) in
        try body(UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(buffer)[range]))
      }
    case .zstd:
      try bytes.withUnsafeBufferPointer { buffer throws(TidemarkError) in try body(UnsafeRawBufferPointer(buffer)) }
    }
  }
}

/// The frames of one plaintext, in order. Threads compress them ahead of the one who takes them, so that what the caller
/// does meanwhile, and the sealing of a frame, cost no time of their own. The threads end with this value.
struct FramesAhead: ~Copyable {
  private static let threadCountMax = 4

  private let plaintext: [UInt8]
  private let level: Int
  private let work: Work
  private let threads: [WorkerThread<Void>]
  private var next = 0
  /// Where there are no threads.
  private var worker: FrameWorker?

  /// Begins to compress `plaintext` in frames of ``SealedObject/framePlaintextByteCountMax`` bytes.
  init(_ plaintext: [UInt8], level: Int) {
    let size = SealedObject.framePlaintextByteCountMax
    let work = Work(frameCount: (plaintext.count + size - 1) / size)
    self.plaintext = plaintext
    self.level = level
    self.work = work
    // A thread for less than two frames costs more than it gains.
    let threadCount = min(processorCount(), Self.threadCountMax, work.frameCount / 2)
    threads = (0..<(threadCount > 1 ? threadCount : 0)).map { number in
      WorkerThread("compress-\(number)") {
        do throws(TidemarkError) {
          var worker = try FrameWorker()
          while let index = work.claim() {
            work.put(try worker.compress(plaintext, Self.range(index, of: plaintext), level: level), at: index)
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
    guard next < work.frameCount else { return nil }
    defer { next += 1 }
    if !threads.isEmpty { return try work.take(next) }
    var worker = if let worker = self.worker.take() { worker } else { try FrameWorker() }
    let frame = try worker.compress(plaintext, Self.range(next, of: plaintext), level: level)
    self.worker = consume worker
    return frame
  }

  private static func range(_ index: Int, of plaintext: [UInt8]) -> Range<Int> {
    let start = index * SealedObject.framePlaintextByteCountMax
    return start..<min(start + SealedObject.framePlaintextByteCountMax, plaintext.count)
  }

  /// What the threads and the taker share.
  private final class Work: Sendable {
    /// Frames that may be ready and not yet taken: what bounds the memory.
    private static let aheadCountMax = 32

    private struct State {
      var ready: [Int: CompressedFrame] = [:]
      var claimed = 0
      var taken = 0
      var isCancelled = false
      var failure: TidemarkError?
    }
    let frameCount: Int
    private let state = Mutex(State())
    private let changed = Condition()

    init(frameCount: Int) { self.frameCount = frameCount }

    /// The number of a frame that nobody else compresses; `nil` when nothing is left to do.
    func claim() -> Int? {
      while true {
        let ticket = changed.ticket()
        let (index, isOver) = state.withLock { state -> (Int?, Bool) in
          if state.isCancelled || state.failure != nil || state.claimed == frameCount { return (nil, true) }
          guard state.claimed < state.taken + Self.aheadCountMax else { return (nil, false) }
          defer { state.claimed += 1 }
          return (state.claimed, false)
        }
        if index != nil || isOver { return index }
        changed.wait(ticket)
      }
    }

    func put(_ frame: CompressedFrame, at index: Int) {
      state.withLock { $0.ready[index] = frame }
      changed.signal()
    }

    func fail(_ error: TidemarkError) {
      state.withLock { if $0.failure == nil { $0.failure = error } }
      changed.signal()
    }

    func cancel() {
      state.withLock { $0.isCancelled = true }
      changed.signal()
    }

    func take(_ index: Int) throws(TidemarkError) -> CompressedFrame {
      while true {
        let ticket = changed.ticket()
        let frame = try state.withLock { (state) throws(TidemarkError) -> CompressedFrame? in
          if let failure = state.failure { throw failure }
          guard let frame = state.ready.removeValue(forKey: index) else { return nil }
          state.taken = index + 1
          return frame
        }
        if let frame {
          changed.signal()
          return frame
        }
        changed.wait(ticket)
      }
    }
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
    _ plaintext: [UInt8], _ range: Range<Int>, level: Int
  ) throws(TidemarkError) -> CompressedFrame {
    let (codec, count) = try plaintext.withUnsafeBufferPointer { buffer throws(TidemarkError) in
      try compressor.compress(
        UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(buffer)[range]), into: output, level: level)
    }
    return CompressedFrame(range: range, codec: codec, bytes: codec == .stored ? [] : Array(output[..<count]))
  }
}
