// The file table: what is written is read, and hostile bytes are refused without harm.
import Diagnostics
import Testing

@testable import BackupRepository

@Suite("The file table") struct FileTableTests {
  static let blockSize = 8192

  /// A file of `byteCount` bytes in runs of `runLength` blocks.
  static func file(_ path: String, _ byteCount: Int64, runLength: Int = 3) -> FileTableEntry {
    let count = FileTable.blockCount(byteCount, blockSize: blockSize)
    var runs: [BlockRun] = []
    var covered = 0
    while covered < count {
      let length = min(runLength, count - covered)
      runs.append(
        BlockRun(count: length, label: covered % 3, pack: covered + 1, frame: covered % 17, offset: covered % 999))
      covered += length
    }
    let digests = (0..<count * FileTable.digestByteCount).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ count) }
    return FileTableEntry(
      path: path, mode: 0o600, content: .file(byteCount: byteCount, crc32c: 0xDEAD_BEEF, digests: digests, runs: runs))
  }

  static let small: [FileTableEntry] = [
    FileTableEntry(path: "", mode: 0o700, content: .directory),
    FileTableEntry(path: "base/1", mode: 0o700, content: .directory),
    FileTableEntry(path: "pg_tblspc/16385", mode: 0o777, content: .symbolicLink(target: "/srv/fäst")),
    file("base/1/empty", 0), file("base/1/PG_VERSION", 3), file("base/1/2619", 8192), file("base/1/2620", 8193),
    file("base/1/1259", 5 * 8192),
  ]

  func encode(_ entries: [FileTableEntry]) throws -> [UInt8] {
    var encoder = FileTablePartEncoder(blockSize: Self.blockSize)
    for entry in entries { try encoder.append(entry) }
    return encoder.bytes
  }

  func decode(_ bytes: [UInt8]) throws -> [FileTableEntry] {
    var decoder = try FileTablePartDecoder(bytes)
    var entries: [FileTableEntry] = []
    while let entry = try decoder.next() { entries.append(entry) }
    return entries
  }

  /// A part with one entry, put together by hand: version, block size 8192, and then `entry`.
  func part(_ entry: [UInt8]) -> [UInt8] { [1, 0x80, 0x40] + entry }
  func directory(_ path: [UInt8]) -> [UInt8] { part([2, UInt8(path.count)] + path + [0xC0, 0x03]) }

  @Test("what is written is read: empty files, edges of blocks, links") func roundTrip() throws {
    let bytes = try encode(Self.small)
    #expect(try decode(bytes) == Self.small)
    #expect(try FileTablePartDecoder(bytes).blockSize == Self.blockSize)
    #expect(try decode(encode([])) == [])
  }

  @Test("a file of 16,384 blocks, in one run and in a run for each", arguments: [16384, 1])
  func large(_ runLength: Int) throws {
    let entry = Self.file("base/1/16384.1", 16384 * 8192, runLength: runLength)
    #expect(try decode(encode([entry])) == [entry])
  }

  @Test("the format is the documented one") func format() throws {
    let entry = FileTableEntry(
      path: "a", mode: 0o640,
      content: .file(
        byteCount: 5, crc32c: 0x0102_0304, digests: Array(repeating: 7, count: 16),
        runs: [BlockRun(count: 1, label: 2, pack: 300, frame: 4, offset: 65536)]))
    let expected: [UInt8] =
      [1, 0x80, 0x40, 1, 1, 0x61, 0xA0, 0x03, 5, 1, 2, 3, 4] + Array(repeating: 7, count: 16)
      + [1, 2, 0xAC, 0x02, 4, 0x80, 0x80, 0x04]
    #expect(try encode([entry]) == expected)
  }

  @Test("a part that is cut short anywhere but between entries is refused") func truncations() throws {
    let bytes = try encode(Self.small)
    var ends: Set<Int> = []
    var decoder = try FileTablePartDecoder(bytes)
    ends.insert(decoder.position)
    while try decoder.next() != nil { ends.insert(decoder.position) }
    for count in 0..<bytes.count where !ends.contains(count) {
      #expect(thrownCode { _ = try decode(Array(bytes[..<count])) } == .objectDamaged, "cut at \(count)")
    }
  }

  @Test("dots in names are no way out", arguments: ["", "a", "...", ".a", "a.", "..a", "a../.b/c..d", ".../...."])
  func safePaths(_ path: String) throws {
    let entry = FileTableEntry(path: path, mode: 0o700, content: .directory)
    #expect(try decode(encode([entry])) == [entry])
  }

  @Test(
    "paths that leave the data directory are refused",
    arguments: [
      "/etc/passwd", "..", "a/../b", "a/..", "./a", "a//b", "a/", "a\0b", ".", "a/.", "a/./b", "/",
    ])
  func unsafePaths(_ path: String) throws {
    #expect(thrownCode { _ = try decode(directory(Array(path.utf8))) } == .pathUnsafe)
    let entry = FileTableEntry(path: path, mode: 0o700, content: .directory)
    #expect(thrownCode { _ = try encode([entry]) } == .pathUnsafe)
  }

  @Test("names that merely look odd are taken", arguments: ["...", "..a", "a..", ".a", "ä b\n"])
  func oddPaths(_ path: String) throws {
    let entry = FileTableEntry(path: path, mode: 0o700, content: .directory)
    #expect(try decode(encode([entry])) == [entry])
    #expect(try decode(directory(Array(path.utf8))) == [entry])
  }

  @Test("a link without a possible target is refused", arguments: ["", "/srv\0/x"])
  func targets(_ target: String) throws {
    let bytes = part([3, 1, 0x61, 0xC0, 0x03, UInt8(target.utf8.count)] + target.utf8)
    #expect(thrownCode { _ = try decode(bytes) } == .pathUnsafe)
    let entry = FileTableEntry(path: "a", mode: 0o777, content: .symbolicLink(target: target))
    #expect(thrownCode { _ = try encode([entry]) } == .pathUnsafe)
  }

  @Test("impossible numbers are refused before anything is allocated for them") func numbers() throws {
    let huge: [UInt8] = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F]
    let tooLong: [UInt8] = Array(repeating: 0x80, count: 10) + [0]
    let head: [UInt8] = [1, 1, 0x61, 0x80, 0x03]
    let hostile: [[UInt8]] = [
      [], [1], [1, 0], [1, 0x81, 0x40], [1] + huge, [1] + tooLong,  // block sizes
      part([2] + huge), part([2, 2, 0xC3, 0x28, 0]), part([9, 1, 0x61, 0]), part([2, 1, 0x61] + huge),
      part(head + huge), part(head + [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02]),
      part(head + [1, 0, 0, 0, 0] + Array(repeating: 0, count: 16) + [0, 0, 1, 0, 0]),  // a run of no blocks
      part(head + [1, 0, 0, 0, 0] + Array(repeating: 0, count: 16) + [2, 0, 1, 0, 0]),  // a run beyond the file
      part(head + [1, 0, 0, 0, 0] + Array(repeating: 0, count: 16) + [1, 0, 0, 0, 0]),  // pack 0
    ]
    for bytes in hostile { #expect(thrownCode { _ = try decode(bytes) } == .objectDamaged, "\(bytes)") }
    #expect(thrownCode { _ = try decode([2, 0x80, 0x40]) } == .formatVersionUnknown)
  }

  @Test("a file that no part could hold is refused, not written") func tooLarge() throws {
    let count = 3 << 20
    let content = FileTableEntry.Content.file(
      byteCount: Int64(count) * Int64(Self.blockSize), crc32c: 0, digests: Array(repeating: 0, count: count * 16),
      runs: (0..<count).map { _ in BlockRun(count: 1, label: 0, pack: 1, frame: 0, offset: 0) })
    let entry = FileTableEntry(path: "log/huge", mode: 0o600, content: content)
    #expect(thrownCode { _ = try encode([entry]) } == .serverUnsuitable)
  }

  @Test("random damage never does more than throw", arguments: 0..<4) func fuzz(_ seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    let whole = try encode(Self.small)
    var refused = 0
    for _ in 0..<5000 {
      var bytes = whole
      for _ in 0..<Int.random(in: 1...4, using: &random) {
        bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
      }
      if Bool.random(using: &random) { bytes.removeLast(Int.random(in: 0..<bytes.count, using: &random)) }
      if let code = thrownCode({ for entry in try decode(bytes) { #expect(isSafeRelativePath(entry.path)) } }) {
        refused += 1
        #expect([.objectDamaged, .pathUnsafe, .formatVersionUnknown].contains(code))
      }
    }
    #expect(refused > 1000)
  }
}

/// SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014): the same numbers every time.
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64
  init(seed: UInt64) { state = seed }
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var value = state
    value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
    value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
    return value ^ value >> 31
  }
}
