// The frames of one object, opened on all cores ahead of the one who takes them in order: a recovery waits for each segment.
// The buffers are used again and again, so that a large object needs no more memory than a small one.
import Diagnostics
import SystemSupport

struct OpenedFrames: ~Copyable {
  private static let threadCountMax = 4
  /// Objects with fewer frames are opened on the calling thread.
  private static let parallelFrameCountMin = 4
  /// Frames ahead, for each thread.
  private static let aheadCount = 2

  private let object: OpenedObject
  private let buffers: Buffers
  private let work: OrderedWork<Void>
  private let threads: [WorkerThread<Void>]
  /// Where there are no threads.
  private var reader: OpenedObject.FrameReader?

  /// One buffer for each frame that is opened, ready or in use; frame `index` has buffer `index % count`.
  ///
  /// Invariant: a thread writes a frame's buffer after it claimed the frame, which it can't before the buffer's last frame
  /// was done with, and the taker reads it after the frame was put: ``OrderedWork`` has a lock for both. That is why it
  /// is `@unchecked Sendable`.
  private final class Buffers: @unchecked Sendable {
    private let bytes: UnsafeMutableRawBufferPointer
    private let count: Int

    init(_ count: Int) {
      self.count = count
      bytes = .allocate(byteCount: count * SealedObject.framePlaintextByteCountMax, alignment: 64)
    }

    deinit { bytes.deallocate() }

    func buffer(_ index: Int, byteCount: Int) -> UnsafeMutableRawBufferPointer {
      let start = index % count * SealedObject.framePlaintextByteCountMax
      return UnsafeMutableRawBufferPointer(rebasing: bytes[start..<start + byteCount])
    }
  }

  init(_ object: OpenedObject) {
    let frames = object.footer.frames
    let available = min(processorCount(), Self.threadCountMax)
    let threadCount = frames.count >= Self.parallelFrameCountMin && available > 1 ? available : 0
    let aheadCount = max(1, threadCount * Self.aheadCount)
    // One more than may be ahead: the one that is in use.
    let buffers = Buffers(min(frames.count, aheadCount + 1))
    let work = OrderedWork<Void>(count: frames.count, aheadCount: aheadCount)
    self.object = object
    self.buffers = buffers
    self.work = work
    threads = (0..<threadCount).map { number in
      WorkerThread("open-\(number)") {
        do throws(TidemarkError) {
          var reader = try OpenedObject.FrameReader(object)
          while let index = work.claim() {
            try reader.read(index, into: buffers.buffer(index, byteCount: frames[index].plaintextByteCount))
            work.put((), at: index)
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

  /// Calls `body` with the frame's plaintext. Frames are taken in their order, each once.
  /// - Throws: `object-damaged`, and what `body` throws.
  mutating func withFrame(
    _ index: Int, _ body: (UnsafeRawBufferPointer) throws(TidemarkError) -> Void
  ) throws(TidemarkError) {
    let buffer = buffers.buffer(index, byteCount: object.footer.frames[index].plaintextByteCount)
    if threads.isEmpty {
      var reader = if let reader = self.reader.take() { reader } else { try OpenedObject.FrameReader(object) }
      try reader.read(index, into: buffer)
      self.reader = consume reader
    } else {
      try work.take(index)
    }
    try body(UnsafeRawBufferPointer(buffer))
  }
}
