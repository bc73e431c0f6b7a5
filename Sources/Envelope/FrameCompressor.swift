// zstd of single frames, with contexts that are reused. What doesn't compress is stored as it is.
import CZstd
import Diagnostics

/// How a frame's plaintext became its stored bytes.
package enum FrameCodec: UInt8, Sendable {
  case stored = 0
  case zstd = 1
}

/// A zstd compression context, reused for many frames. One for each thread.
package struct FrameCompressor: ~Copyable {
  private let context: OpaquePointer

  package init() throws(TidemarkError) {
    guard let context = ZSTD_createCCtx() else { throw TidemarkError(.internalFault, "cannot make a zstd context") }
    self.context = context
  }

  deinit { ZSTD_freeCCtx(context) }

  /// The bytes of output buffer that `count` bytes of input need.
  package static func outputByteCountMax(_ count: Int) -> Int { ZSTD_compressBound(count) }

  /// Compresses `input` into `output` as one zstd frame. When less than 1/32 is gained, or nothing, the codec is `stored`,
  /// the output is undefined and the input's bytes are to be used.
  /// - Parameter output: at least ``outputByteCountMax(_:)`` bytes.
  package mutating func compress(
    _ input: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer, level: Int
  ) throws(TidemarkError) -> (codec: FrameCodec, byteCount: Int) {
    let count = ZSTD_compressCCtx(
      context, output.baseAddress, output.count, input.baseAddress, input.count, Int32(level))
    if ZSTD_isError(count) != 0 {
      throw TidemarkError(
        .internalFault, "cannot compress a frame", cause: String(cString: ZSTD_getErrorName(count)))
    }
    return count >= input.count - input.count / 32 ? (.stored, input.count) : (.zstd, count)
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
