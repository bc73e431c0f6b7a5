// The file table of a backup: each file, directory and link of the cluster, and for each block of each file its digest
// and where it is stored. It is written and read as a stream of parts, each a sealed object of whole entries, so that
// neither side ever holds a large cluster's table in memory. docs/repository-format.md has the format.
import Diagnostics

/// Where consecutive blocks of a file lie: one after another in the plaintext of one frame.
package struct BlockRun: Sendable, Hashable {
  /// How many blocks; all have the table's block size, but for the last of the file.
  package var count: Int
  /// An index into the table's labels: which backup wrote the pack.
  package var label: Int
  /// The pack's number among that backup's, from 1.
  package var pack: Int
  package var frame: Int
  /// Where the first block begins in the frame's plaintext.
  package var offset: Int

  package init(count: Int, label: Int, pack: Int, frame: Int, offset: Int) {
    self.count = count
    self.label = label
    self.pack = pack
    self.frame = frame
    self.offset = offset
  }
}

/// One entry of the file table. Paths are relative to the data directory; those of a tablespace begin with
/// `pg_tblspc/OID/`.
package struct FileTableEntry: Sendable, Equatable {
  package enum Content: Sendable, Equatable {
    case directory
    case symbolicLink(target: String)
    /// `digests` holds ``FileTable/digestByteCount`` bytes for each block. `runs` cover the blocks in order.
    case file(byteCount: Int64, crc32c: UInt32, digests: [UInt8], runs: [BlockRun])
  }
  package var path: String
  package var mode: UInt32
  package var content: Content

  package init(path: String, mode: UInt32, content: Content) {
    self.path = path
    self.mode = mode
    self.content = content
  }
}

package enum FileTable {
  /// The first bytes of SHA-256: two different blocks agree by accident once in 2^128.
  package static let digestByteCount = 16
  /// Plaintext bytes after which a part is closed.
  package static let partByteCount = 8 << 20
  /// Plaintext bytes that a reader accepts for a part: one entry may exceed the limit above by its own size.
  package static let partByteCountMax = 64 << 20
  static let formatVersion: UInt8 = 1
  static let pathByteCountMax = 4096

  /// How many blocks a file of `byteCount` bytes has.
  package static func blockCount(_ byteCount: Int64, blockSize: Int) -> Int {
    Int((byteCount + Int64(blockSize) - 1) / Int64(blockSize))
  }
}

/// Builds the plaintext of one part. What the decoder would refuse is refused here: a table that can't be read would be
/// found out by a restore.
package struct FileTablePartEncoder {
  /// What was appended and wasn't taken.
  package private(set) var bytes: [UInt8]
  private var takenByteCount = 0
  private let blockSize: Int

  package init(blockSize: Int) {
    self.blockSize = blockSize
    bytes = [FileTable.formatVersion]
    append(UInt64(blockSize))
  }

  package var isFull: Bool { takenByteCount + bytes.count >= FileTable.partByteCount }

  /// Hands over the first `count` of ``bytes``.
  package mutating func take(_ count: Int) -> [UInt8] {
    defer {
      bytes.removeFirst(count)
      takenByteCount += count
    }
    return Array(bytes[..<count])
  }

  /// - Throws: `path-unsafe` for a path that a restore would refuse, `server-unsuitable` for a file with more blocks than
  ///   a part can hold (above 22 GiB in blocks of 16 KiB, if no two of them lie together).
  package mutating func append(_ entry: FileTableEntry) throws(TidemarkError) {
    try check(entry)
    switch entry.content {
    case .file: bytes.append(1)
    case .directory: bytes.append(2)
    case .symbolicLink: bytes.append(3)
    }
    append(entry.path)
    append(UInt64(entry.mode))
    switch entry.content {
    case .directory: break
    case .symbolicLink(let target): append(target)
    case .file(let byteCount, let crc32c, let digests, let runs):
      append(UInt64(byteCount))
      withUnsafeBytes(of: crc32c.bigEndian) { bytes.append(contentsOf: $0) }
      bytes.append(contentsOf: digests)
      for run in runs {
        append(UInt64(run.count))
        append(UInt64(run.label))
        append(UInt64(run.pack))
        append(UInt64(run.frame))
        append(UInt64(run.offset))
      }
    }
  }

  private func check(_ entry: FileTableEntry) throws(TidemarkError) {
    guard isSafeRelativePath(entry.path), entry.path.utf8.count <= FileTable.pathByteCountMax else {
      throw TidemarkError(.pathUnsafe, "a path can't stand in the file table", object: entry.path)
    }
    precondition(entry.mode <= 0o7777, "a mode without the file's type")
    switch entry.content {
    case .directory: break
    case .symbolicLink(let target):
      guard isPossibleTarget(target), target.utf8.count <= FileTable.pathByteCountMax else {
        throw TidemarkError(.pathUnsafe, "a link's target can't stand in the file table", object: entry.path)
      }
    case .file(let byteCount, _, let digests, let runs):
      let blockCount = FileTable.blockCount(byteCount, blockSize: blockSize)
      precondition(digests.count == blockCount * FileTable.digestByteCount, "one digest for each block")
      precondition(runs.reduce(0) { $0 + $1.count } == blockCount, "runs cover the blocks")
      // At most 23 bytes for a run's five numbers, within the decoder's limits.
      guard digests.count + runs.count * 23 <= FileTable.partByteCountMax - FileTable.partByteCount - (8 << 10) else {
        throw TidemarkError(
          .serverUnsuitable, "a file is larger than the file table can describe", object: entry.path,
          cause: "\(byteCount) bytes", kept: "the earlier backups",
          next: "move the file out of the data directory: no file of PostgreSQL's own is that large")
      }
    }
  }

  private mutating func append(_ text: String) {
    append(UInt64(text.utf8.count))
    bytes.append(contentsOf: text.utf8)
  }

  /// LEB128, as in Protocol Buffers and DWARF.
  private mutating func append(_ value: UInt64) {
    var rest = value
    while rest >= 0x80 {
      bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
      rest >>= 7
    }
    bytes.append(UInt8(rest))
  }
}

/// Reads the entries of one part's plaintext. Every length is checked against what is there.
package struct FileTablePartDecoder {
  private let bytes: [UInt8]
  package private(set) var position = 0
  package let blockSize: Int

  /// - Throws: `format-version-unknown`, `object-damaged`.
  package init(_ bytes: [UInt8]) throws(TidemarkError) {
    self.bytes = bytes
    guard let version = bytes.first else { throw Self.damaged("the part is empty") }
    guard version == FileTable.formatVersion else {
      throw TidemarkError(
        .formatVersionUnknown, "the file table has a format that this version doesn't know",
        cause: "version \(version)",
        next: "use the version of Tidemark that took the backup, or a newer one")
    }
    position = 1
    var reader = Reader(bytes: bytes, position: 1)
    let size = try reader.number(limit: 1 << 20)
    guard size >= 512, size & (size - 1) == 0 else { throw Self.damaged("block size \(size)") }
    blockSize = size
    position = reader.position
  }

  /// The next entry; `nil` at the end.
  package mutating func next() throws(TidemarkError) -> FileTableEntry? {
    if position == bytes.count { return nil }
    var reader = Reader(bytes: bytes, position: position)
    let kind = try reader.byte()
    let path = try reader.text(limit: FileTable.pathByteCountMax)
    guard isSafeRelativePath(path) else {
      throw TidemarkError(.pathUnsafe, "the file table names a path outside the data directory", object: path)
    }
    let mode = try reader.number(limit: 0o7777)
    let content: FileTableEntry.Content
    switch kind {
    case 2: content = .directory
    case 3:
      let target = try reader.text(limit: FileTable.pathByteCountMax)
      guard isPossibleTarget(target) else {
        throw TidemarkError(.pathUnsafe, "the file table has a link without a possible target", object: path)
      }
      content = .symbolicLink(target: target)
    case 1: content = try file(&reader)
    default: throw Self.damaged("entry kind \(kind)")
    }
    position = reader.position
    return FileTableEntry(path: path, mode: UInt32(mode), content: content)
  }

  private func file(_ reader: inout Reader) throws(TidemarkError) -> FileTableEntry.Content {
    let byteCount = Int64(try reader.number(limit: 1 << 50))
    let crc32c = try reader.bytes(4).reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
    let blockCount = FileTable.blockCount(byteCount, blockSize: blockSize)
    let digests = Array(try reader.bytes(blockCount * FileTable.digestByteCount))
    var runs: [BlockRun] = []
    var covered = 0
    while covered < blockCount {
      let run = BlockRun(
        count: try reader.number(limit: blockCount - covered), label: try reader.number(limit: 1 << 24),
        pack: try reader.number(limit: 1 << 40), frame: try reader.number(limit: 1 << 24),
        offset: try reader.number(limit: 1 << 24))
      guard run.count > 0, run.pack > 0 else { throw Self.damaged("an empty run of blocks") }
      covered += run.count
      runs.append(run)
    }
    return .file(byteCount: byteCount, crc32c: crc32c, digests: digests, runs: runs)
  }

  fileprivate static func damaged(_ cause: String) -> TidemarkError {
    TidemarkError(.objectDamaged, "the file table can't be read", cause: cause)
  }

  private struct Reader {
    let bytes: [UInt8]
    var position: Int

    mutating func byte() throws(TidemarkError) -> UInt8 {
      guard position < bytes.count else { throw damaged("it ends within an entry") }
      position += 1
      return bytes[position - 1]
    }

    mutating func bytes(_ count: Int) throws(TidemarkError) -> ArraySlice<UInt8> {
      guard count <= bytes.count - position else { throw damaged("it ends within an entry") }
      position += count
      return bytes[(position - count)..<position]
    }

    mutating func number(limit: Int) throws(TidemarkError) -> Int {
      var value: UInt64 = 0
      var shift: UInt64 = 0
      while true {
        let next = try byte()
        guard shift < 63 else { throw damaged("a number is too long") }
        value |= UInt64(next & 0x7F) << shift
        if next & 0x80 == 0 { break }
        shift += 7
      }
      guard value <= UInt64(limit) else { throw damaged("\(value) is more than \(limit)") }
      return Int(value)
    }

    mutating func text(limit: Int) throws(TidemarkError) -> String {
      let count = try number(limit: limit)
      guard let text = String(validating: try bytes(count), as: UTF8.self) else { throw damaged("a path isn't UTF-8") }
      return text
    }
  }
}

/// Whether `path` stays below the directory that it is relative to: no leading slash, no empty, "." or ".." component,
/// no NUL. The empty path is the directory itself.
package func isSafeRelativePath(_ path: String) -> Bool {
  if path.isEmpty { return true }
  // Of the current component. Called for every file of every backup and restore, so without a split.
  var byteCount = 0
  var dotCount = 0
  for byte in path.utf8 {
    switch byte {
    case 0: return false
    case UInt8(ascii: "/"):
      if byteCount == 0 || byteCount == dotCount && dotCount <= 2 { return false }
      byteCount = 0
      dotCount = 0
    default:
      byteCount += 1
      if byte == UInt8(ascii: ".") { dotCount += 1 }
    }
  }
  return byteCount > 0 && !(byteCount == dotCount && dotCount <= 2)
}

/// Whether a symbolic link can have this target. Where it leads is for the restore to judge.
private func isPossibleTarget(_ target: String) -> Bool { !target.isEmpty && !target.utf8.contains(0) }
