// The previous backup's file table, ready for look-ups by path: its plaintext lies in an unlinked temporary file of the
// state directory, and memory holds 16 bytes for each file.
import BackupRepository
import Diagnostics
import Envelope
import SystemSupport

/// One file of the previous backup.
final class PreviousFile: Sendable {
  let digests: [UInt8]
  /// Each run with the index of its first block, ascending. Labels are those of the new table.
  private let runs: [(first: Int, run: BlockRun)]

  init(digests: [UInt8], runs: [BlockRun]) {
    self.digests = digests
    var first = 0
    self.runs = runs.map { run in
      defer { first += run.count }
      return (first, run)
    }
  }

  /// Where block `index` is, if its digest is `digest`.
  func location(of index: Int, digest: ArraySlice<UInt8>, blockSize: Int) -> BlockRun? {
    let start = index * FileTable.digestByteCount
    guard start + FileTable.digestByteCount <= digests.count,
      digests[start..<start + FileTable.digestByteCount] == digest
    else { return nil }
    var low = 0
    var high = runs.count
    while low < high {
      let middle = (low + high) / 2
      if runs[middle].first + runs[middle].run.count <= index { low = middle + 1 } else { high = middle }
    }
    guard low < runs.count else { return nil }
    var run = runs[low].run
    run.offset += (index - runs[low].first) * blockSize
    run.count = 1
    return run
  }
}

/// Look-ups in the previous backup's file table.
final class PreviousFileTable: Sendable {
  private let spool: SpoolFile
  /// Hash of the path → offset and length of the entry in the spool.
  private let index: [UInt64: (offset: Int64, byteCount: Int)]
  /// The new table's index for each of the old table's labels; `nil` for one that no pack needs any more.
  private let labels: [Int?]
  private let missingPacks: Set<PackID>
  let blockSize: Int

  struct PackID: Hashable, Sendable {
    var label: Int
    var number: Int
  }

  /// Reads all parts of `backup`'s table. `labels` maps the old table's label indexes to the new one's; a block in a
  /// pack of `missingPacks` (new indexes) counts as changed, so that the backup heals what was lost.
  init(
    _ repository: Repository, _ backup: CatalogedBackup, labels: [Int?], missingPacks: Set<PackID>
  ) throws(TidemarkError) {
    self.labels = labels
    self.missingPacks = missingPacks
    blockSize = backup.manifest.blockSize
    spool = try SpoolFile(directory: repository.stateDirectory)
    var index: [UInt64: (offset: Int64, byteCount: Int)] = [:]
    index.reserveCapacity(min(backup.manifest.fileCount, 1 << 24))
    var written: Int64 = 0
    for part in 1...backup.manifest.fileTableParts {
      try Termination.check()
      let name = backup.layout.fileTablePart(backup.label, part)
      let (plaintext, _) = try repository.readSealed(.fileTable, name, limit: FileTable.partByteCountMax)
      var decoder = try FileTablePartDecoder(plaintext)
      var start = decoder.position
      // The spool holds each entry behind a part's head, so that one entry reads as a part of its own.
      let head = Array(plaintext[..<start])
      while let entry = try decoder.next() {
        defer { start = decoder.position }
        guard case .file = entry.content else { continue }
        let bytes = head + plaintext[start..<decoder.position]
        try spool.append(bytes, at: written)
        index[Self.hash(entry.path)] = (written, bytes.count)
        written += Int64(bytes.count)
      }
    }
    self.index = index
  }

  /// The file at `path` in the previous backup.
  func file(at path: String) throws(TidemarkError) -> PreviousFile? {
    guard let place = index[Self.hash(path)] else { return nil }
    var decoder = try FileTablePartDecoder(try spool.read(place.byteCount, at: place.offset))
    // Another path of the same hash: as good as unknown.
    guard let entry = try decoder.next(), entry.path == path,
      case .file(_, _, let digests, let runs) = entry.content
    else { return nil }
    var mapped: [BlockRun] = []
    mapped.reserveCapacity(runs.count)
    for var run in runs {
      guard run.label < labels.count, let label = labels[run.label],
        missingPacks.isEmpty || !missingPacks.contains(PackID(label: label, number: run.pack))
      else { return nil }
      run.label = label
      mapped.append(run)
    }
    return PreviousFile(digests: digests, runs: mapped)
  }

  /// FNV-1a, 64 bits.
  private static func hash(_ path: String) -> UInt64 {
    path.utf8.reduce(0xcbf2_9ce4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
  }
}
