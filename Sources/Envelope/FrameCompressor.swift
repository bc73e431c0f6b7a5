// zstd of single frames, with contexts that are reused. What doesn't compress is stored as it is, and after such a frame
// the next one is probed before time is spent on it.
import CZstd
import Diagnostics

/// How a frame's plaintext became its stored bytes.
package enum FrameCodec: UInt8, Sendable {
  case stored = 0
  case zstd = 1
}

/// A zstd compression context, reused for many frames. One for each thread.
package struct FrameCompressor: ~Copyable {
  /// Frames shorter than this aren't probed: compressing them costs hardly more.
  static let probedByteCountMin = 256 << 10
  /// A probe is so many pieces, evenly spread over the frame.
  static let probePieceCount = 8
  static let probePieceByteCount = 8 << 10
  private static let probeLevel = 1

  /// The level at which WAL is compressed has a table of 2^15 entries instead of 2^16: 12 % less CPU for 1.8 % more bytes
  /// (docs/decisions/2026-11-25-sizes-digest-level.md).
  package static let levelOfWAL = 2
  private static let hashLogOfWAL: Int32 = 15

  private let context: OpaquePointer
  /// The last frame didn't compress, so the next one is likely to be of the same relation and no better. Only then a
  /// probe pays: it costs 1/16 of a frame at level 1, which frames that compress would spend for nothing.
  private var expectsNoGain = false

  package init() throws(TidemarkError) {
    guard let context = ZSTD_createCCtx() else { throw TidemarkError(.internalFault, "cannot make a zstd context") }
    self.context = context
  }

  deinit { ZSTD_freeCCtx(context) }

  /// The bytes of output buffer that `count` bytes of input need.
  package static func outputByteCountMax(_ count: Int) -> Int { ZSTD_compressBound(count) }

  /// Compresses `input` into `output` as one zstd frame. When less than 1/32 is gained, or nothing, the codec is `stored`,
  /// the output is undefined and the input's bytes are to be used. After such a frame the same is decided by a probe of
  /// the next one.
  /// - Parameter output: at least ``outputByteCountMax(_:)`` bytes.
  package mutating func compress(
    _ input: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer, level: Int
  ) throws(TidemarkError) -> (codec: FrameCodec, byteCount: Int) {
    if expectsNoGain, input.count >= Self.probedByteCountMin, try !probeGains(input, output) {
      return (.stored, input.count)
    }
    let count = try compressAll(input, into: output, level: level)
    expectsNoGain = !Self.gains(count, input.count)
    return expectsNoGain ? (.stored, input.count) : (.zstd, count)
  }

  private static func gains(_ compressed: Int, _ plain: Int) -> Bool { compressed < plain - plain / 32 }

  /// Whether a sample of `input` compresses. `output` is room to work in: it has place for the sample at its end and for
  /// its compressed form at its beginning, since the input is four times as long.
  private mutating func probeGains(
    _ input: UnsafeRawBufferPointer, _ output: UnsafeMutableRawBufferPointer
  ) throws(TidemarkError) -> Bool {
    let byteCount = Self.probePieceCount * Self.probePieceByteCount
    let sample = UnsafeMutableRawBufferPointer(rebasing: output[(output.count - byteCount)...])
    let step = (input.count - Self.probePieceByteCount) / (Self.probePieceCount - 1)
    for piece in 0..<Self.probePieceCount {
      UnsafeMutableRawBufferPointer(rebasing: sample[(piece * Self.probePieceByteCount)...]).copyMemory(
        from: UnsafeRawBufferPointer(rebasing: input[(piece * step)..<(piece * step + Self.probePieceByteCount)]))
    }
    let room = UnsafeMutableRawBufferPointer(rebasing: output[..<(output.count - byteCount)])
    let count = try compressAll(UnsafeRawBufferPointer(sample), into: room, level: Self.probeLevel)
    return Self.gains(count, byteCount)
  }

  private mutating func compressAll(
    _ input: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer, level: Int
  ) throws(TidemarkError) -> Int {
    // They stand until they are set anew, and can't be refused: the configuration's levels are zstd's.
    ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, Int32(level))
    ZSTD_CCtx_setParameter(context, ZSTD_c_hashLog, level == Self.levelOfWAL ? Self.hashLogOfWAL : 0)
    let count = ZSTD_compress2(context, output.baseAddress, output.count, input.baseAddress, input.count)
    if ZSTD_isError(count) != 0 {
      throw TidemarkError(
        .internalFault, "cannot compress a frame", cause: String(cString: ZSTD_getErrorName(count)))
    }
    return count
  }
}

/// A zstd decompression context, reused for many frames. One for each thread.
package struct FrameDecompressor: ~Copyable {
  private let context: OpaquePointer

  package init() throws(TidemarkError) {
    guard let context = ZSTD_createDCtx() else { throw TidemarkError(.internalFault, "cannot make a zstd context") }
    self.context = context
  }

  deinit { ZSTD_freeDCtx(context) }

  /// Decompresses `input` into all of `output`. zstd allocates nothing by what the input claims: the output is the window.
  /// - Throws: `object-damaged` unless it fills `output` exactly.
  package mutating func decompress(
    _ input: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer
  ) throws(TidemarkError) {
    let count = ZSTD_decompressDCtx(context, output.baseAddress, output.count, input.baseAddress, input.count)
    if ZSTD_isError(count) != 0 {
      throw TidemarkError(
        .objectDamaged, "a frame can't be decompressed", cause: String(cString: ZSTD_getErrorName(count)))
    }
    guard count == output.count else {
      throw TidemarkError(.objectDamaged, "a frame has \(count) bytes instead of \(output.count)")
    }
  }
}
