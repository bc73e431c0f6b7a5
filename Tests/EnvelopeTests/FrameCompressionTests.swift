// Compression of single frames: what comes back, what is stored instead, and what is refused.
import Diagnostics
import TestSupport
import Testing

@testable import Envelope

@Suite("Frame compression")
struct FrameCompressionTests {
  private func compress(_ plaintext: [UInt8], level: Int = 3) throws -> (codec: FrameCodec, content: [UInt8]) {
    var compressor = try FrameCompressor()
    var output = [UInt8](repeating: 0, count: FrameCompressor.outputByteCountMax(plaintext.count))
    let (codec, count) = try plaintext.withUnsafeBytes { input in
      try output.withUnsafeMutableBytes { try compressor.compress(input, into: $0, level: level) }
    }
    return (codec, codec == .stored ? plaintext : Array(output.prefix(count)))
  }

  private func decompress(_ content: [UInt8], _ count: Int) throws -> [UInt8] {
    var decompressor = try FrameDecompressor()
    var output = [UInt8](repeating: 0, count: count)
    try content.withUnsafeBytes { input in
      try output.withUnsafeMutableBytes { try decompressor.decompress(input, into: $0) }
    }
    return output
  }

  @Test("what compresses comes back, at every level that is used", arguments: [1, 3, 6, 19])
  func compressible(level: Int) throws {
    let plaintext = Array(String(repeating: "customer 42 ordered ", count: 5000).utf8)
    let (codec, content) = try compress(plaintext, level: level)
    #expect(codec == .zstd)
    #expect(content.count < plaintext.count / 10)
    #expect(try decompress(content, plaintext.count) == plaintext)
  }

  @Test("what doesn't compress is stored", arguments: [1, 2, 31, 32, 4096, 1 << 20])
  func incompressible(count: Int) throws {
    var numbers = SeededNumbers(1)
    #expect(try compress(numbers.bytes(count)).codec == .stored)
  }

  @Test("a gain of less than a thirty-second part isn't worth the decompression")
  func smallGain() throws {
    var numbers = SeededNumbers(2)
    let random = numbers.bytes(100_000)
    #expect(try compress(random + [UInt8](repeating: 0, count: 2000)).codec == .stored)
    #expect(try compress(random + [UInt8](repeating: 0, count: 5000)).codec == .zstd)
  }

  @Test("after a frame that doesn't compress the next one is judged by a sample, which costs no frame that compresses")
  func probe() throws {
    var numbers = SeededNumbers(4)
    let (count, piece) = (1 << 20, FrameCompressor.probePieceByteCount)
    let random = numbers.bytes(count)
    let text = Array(String(repeating: "customer 42 ordered ", count: count / 20 + 1).utf8.prefix(count))
    // Random just where the sample is taken.
    var disguised = text
    let step = (count - piece) / (FrameCompressor.probePieceCount - 1)
    for index in 0..<FrameCompressor.probePieceCount {
      disguised.replaceSubrange(index * step..<index * step + piece, with: random[index * piece..<(index + 1) * piece])
    }
    // A half that compresses is seen, whichever it is.
    let halves = [random[..<(count / 2)] + text[..<(count / 2)], text[..<(count / 2)] + random[..<(count / 2)]]

    var compressor = try FrameCompressor()
    #expect(try codec(&compressor, disguised) == .zstd)
    #expect(try codec(&compressor, random) == .stored)
    #expect(try codec(&compressor, disguised) == .stored)
    for half in halves {
      #expect(try codec(&compressor, half) == .zstd)
      #expect(try codec(&compressor, random) == .stored)
    }
    // Short frames are always tried, and one that compresses ends the suspicion.
    #expect(try codec(&compressor, disguised[step / 2..<step / 2 + 100_000]) == .zstd)
    #expect(try codec(&compressor, disguised) == .zstd)
  }

  /// The codec that `compressor` chooses; what it compressed must come back.
  private func codec(
    _ compressor: inout FrameCompressor, _ plaintext: some Collection<UInt8>
  ) throws -> FrameCodec {
    let plaintext = Array(plaintext)
    var output = [UInt8](repeating: 0, count: FrameCompressor.outputByteCountMax(plaintext.count))
    let (codec, count) = try plaintext.withUnsafeBytes { input in
      try output.withUnsafeMutableBytes { try compressor.compress(input, into: $0, level: 3) }
    }
    if codec == .zstd { #expect(try decompress(Array(output.prefix(count)), plaintext.count) == plaintext) }
    return codec
  }

  @Test("a frame that is longer or shorter than it should be is refused, and nothing is written beyond the output")
  func wrongLength() throws {
    let plaintext = [UInt8](repeating: 7, count: 1000)
    let content = try compress(plaintext).content
    for count in [0, 1, 999, 1001, 1 << 20] {
      #expect(code { _ = try decompress(content, count) } == .objectDamaged)
    }
  }

  @Test("bytes that aren't zstd's are refused")
  func garbage() throws {
    var numbers = SeededNumbers(3)
    for count in [1, 4, 100, 5000] {
      #expect(code { _ = try decompress(numbers.bytes(count), 1000) } == .objectDamaged)
    }
    let content = try compress([UInt8](repeating: 7, count: 1000)).content
    for length in 0..<content.count {
      #expect(code { _ = try decompress(Array(content.prefix(length)), 1000) } == .objectDamaged)
    }
  }
}
