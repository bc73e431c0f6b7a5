// Compression of one object's frames on all cores: PostgreSQL waits while a segment is archived. Frames don't depend on each
// other, so the result is the same with any number of threads.
import Diagnostics
import Glibc
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

enum ParallelCompressor {
  /// Bytes that are compressed before they are sealed, which is what bounds the memory.
  static let batchByteCountMax = 32 << 20
  private static let threadCountMax = 4

  /// Compresses `range` of `plaintext` in frames of ``SealedObject/framePlaintextByteCountMax`` bytes, in order.
  static func compress(
    _ plaintext: [UInt8], _ range: Range<Int>, level: Int
  ) throws(TidemarkError) -> [CompressedFrame] {
    let size = SealedObject.framePlaintextByteCountMax
    let starts = Array(stride(from: range.lowerBound, to: range.upperBound, by: size))
    let frame = { @Sendable (index: Int) in starts[index]..<min(starts[index] + size, range.upperBound) }
    // A thread for less than two frames costs more than it gains.
    let threadCount = min(processorCount(), threadCountMax, starts.count / 2)
    guard threadCount > 1 else {
      var worker = try FrameWorker()
      return try starts.indices.map { (index) throws(TidemarkError) in
        try worker.compress(plaintext, frame(index), level: level)
      }
    }
    let next = Counter()
    let slots = ResultSlots<CompressedFrame>(starts.count)
    try withThreads("compress", count: threadCount) { _ in
      var worker = try FrameWorker()
      while true {
        let index = next.add(1) - 1
        guard index < starts.count else { return }
        slots.put(try worker.compress(plaintext, frame(index), level: level), at: index)
      }
    }
    return slots.all
  }

  static func processorCount() -> Int { max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN)))) }
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
