// What a restore's buffers may take, divided between the files and the WAL that is fetched beside them.

struct RestoreMemory: Equatable {
  /// A pack with its frame and the zstd context.
  private static let packByteCount = 18 << 20
  /// The runs of blocks of one window and their paths.
  private static let windowByteCount = 32 << 20
  private static let walByteCountMax = 64 << 20

  private let walByteCount: Int
  /// Packs that are in memory at once, one for each thread; one at least.
  let packCount: Int

  init(byteCount: Int) {
    walByteCount = min(Self.walByteCountMax, byteCount / 4)
    packCount = max(1, (byteCount - walByteCount - Self.windowByteCount) / Self.packByteCount)
  }

  /// Segments of `segmentByteCount` that are fetched at once, one for each thread: each is in memory as it is stored and
  /// as it was.
  func segmentCount(_ segmentByteCount: Int) -> Int { max(1, walByteCount / (2 * segmentByteCount)) }
}
