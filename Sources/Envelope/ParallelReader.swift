// Opens all frames of one object on all cores, while the digest of the whole follows behind them: a recovery waits for
// each segment, and either takes as long as the other.
import Diagnostics
import SystemSupport

struct ParallelReader {
  private static let threadCountMax = 4
  /// Objects with fewer frames are read on the calling thread.
  private static let parallelFrameCountMin = 4

  private let object: OpenedObject
  private let output: Output
  /// Where each frame's plaintext lies.
  private let ranges: [Range<Int>]

  /// The buffer that the frames are opened into.
  ///
  /// Invariant: each frame's bytes are written by the one thread that took the frame, and read by the one that digests
  /// only after ``Progress`` says that they are there, under whose lock both meet. That is why it is `@unchecked Sendable`.
  private struct Output: @unchecked Sendable {
    let bytes: UnsafeMutableRawBufferPointer
  }

  init(_ object: OpenedObject, into output: UnsafeMutableRawBufferPointer) {
    self.object = object
    self.output = Output(bytes: output)
    var end = 0
    ranges = object.footer.frames.map { frame in
      defer { end += frame.plaintextByteCount }
      return end..<end + frame.plaintextByteCount
    }
  }

  /// Fills the buffer. Returns the digest of all of it when it is asked for.
  /// - Throws: `object-damaged`.
  func run(digests: Bool) throws(TidemarkError) -> SHA256Digest? {
    let openers = min(processorCount(), Self.threadCountMax, ranges.count)
    guard ranges.count >= Self.parallelFrameCountMin, openers > 1 else {
      var reader = try OpenedObject.FrameReader(object)
      for index in ranges.indices { try open(index, &reader) }
      return digests
        ? SHA256Digest.of(UnsafeRawBufferPointer(rebasing: output.bytes[..<(ranges.last?.upperBound ?? 0)])) : nil
    }
    let next = Counter()
    let opened = Progress(count: ranges.count)
    let digest = ResultSlots<SHA256Digest>(1)
    try withThreads("open", count: openers + (digests ? 1 : 0), onFailure: { opened.fail($0) }) { thread in
      if thread == openers {
        digest.put(try follow(opened), at: 0)
        return
      }
      var reader = try OpenedObject.FrameReader(object)
      while true {
        let index = next.add(1) - 1
        guard index < ranges.count else { return }
        try open(index, &reader)
        opened.mark(index)
      }
    }
    return digests ? digest.all[0] : nil
  }

  private func open(_ index: Int, _ reader: inout OpenedObject.FrameReader) throws(TidemarkError) {
    try reader.read(index, into: UnsafeMutableRawBufferPointer(rebasing: output.bytes[ranges[index]]))
  }

  private func follow(_ opened: Progress) throws(TidemarkError) -> SHA256Digest {
    var hasher = try SHA256Hasher()
    try hasher.begin()
    for index in ranges.indices {
      try opened.wait(for: index)
      try hasher.update(UnsafeRawBufferPointer(rebasing: output.bytes[ranges[index]]))
    }
    return try hasher.finish()
  }
}
