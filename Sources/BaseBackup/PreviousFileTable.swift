// What earlier backups stored, ready for look-ups by path: the plaintext of their file tables lies in an unlinked
// temporary file of the state directory, and memory holds 24 bytes for each file.
import BackupRepository
import Diagnostics
import Envelope
import SystemSupport

/// One file as one earlier backup has it.
final class PreviousFile: Sendable {
  private let digests: [UInt8]
  private let runs: [(first: Int, place: Place)]

  /// Where blocks are.
  enum Place {
    /// Labels are those of the new table.
    case usable(BlockRun)
    /// In a pack that is given up: see ``SparsePacks``.
    case sparse
    /// They can't be referred to, since their pack is missing or its label unknown.
    case lost
  }

  /// - Parameter runs: each run with the index of its first block, ascending.
  init(digests: [UInt8], runs: [(first: Int, place: Place)]) {
    self.digests = digests
    self.runs = runs
  }

  /// Where block `index` is, if its digest is `digest`; `nil` when it changed.
  func place(of index: Int, digest: ArraySlice<UInt8>, blockSize: Int) -> Place? {
    let start = index * FileTable.digestByteCount
    guard start + FileTable.digestByteCount <= digests.count,
      digests[start..<start + FileTable.digestByteCount] == digest
    else { return nil }
    // The last run that begins at or before the block.
    var low = 0
    var high = runs.count
    while low < high {
      let middle = (low + high) / 2
      if runs[middle].first <= index { low = middle + 1 } else { high = middle }
    }
    guard low > 0 else { return nil }
    guard case .usable(var run) = runs[low - 1].place else { return runs[low - 1].place }
    guard index < runs[low - 1].first + run.count else { return nil }
    run.offset += (index - runs[low - 1].first) * blockSize
    run.count = 1
    return .usable(run)
  }
}

/// The packs that a new backup may refer to. Labels are indexes of its table.
struct UsablePacks: Sendable {
  var present: Set<PackID> = []
  /// Labels all of whose packs count as present.
  var trustedLabels: Set<Int> = []
  /// Those of the present ones that are given up.
  var sparse: Set<PackID> = []

  func contains(label: Int, number: Int) -> Bool {
    trustedLabels.contains(label) || present.contains(PackID(label: label, number: number))
  }
}

/// Look-ups in the file tables of earlier backups.
final class PreviousFileTable: Sendable {
  /// One backup's table.
  struct Source {
    /// The names of its parts, in order.
    var parts: [ObjectName]
    /// The new table's index for each of its label indexes; `nil`, or beyond the end, for one that can't be referred to.
    var labels: [Int?]
    var expectedFileCount: Int
  }

  private struct Place {
    var offset: Int64
    var byteCount: Int32
    /// Which source it is from: decides the labels.
    var source: Int32
  }

  private static let spoolWriteByteCount = 1 << 20

  private let spool: SpoolFile
  /// Hash of the path → where its entries lie in the spool.
  private let indexes: [[UInt64: Place]]
  private let labels: [[Int?]]
  private let packs: UsablePacks
  /// How many packs are given up.
  var sparsePackCount: Int { packs.sparse.count }

  /// Reads all parts of `sources`. A block outside of `packs` counts as changed, so that the backup heals what was lost.
  /// A source whose blocks have another size than `blockSize` is passed over.
  /// - Parameter giveUp: says which packs are given up, from the bytes of blocks that the first source refers to in each.
  init(
    _ repository: Repository, _ sources: [Source], blockSize: Int, packs: UsablePacks,
    giveUp: (_ aliveByteCounts: [PackID: Int64]) -> Set<PackID>
  ) throws(TidemarkError) {
    labels = sources.map(\.labels)
    var alive: [PackID: Int64] = [:]
    spool = try SpoolFile(directory: repository.stateDirectory)
    var indexes: [[UInt64: Place]] = []
    var written: Int64 = 0
    // Entries gathered for one write: there may be a million of small ones.
    var pending: [UInt8] = []
    for (number, source) in sources.enumerated() {
      var index: [UInt64: Place] = [:]
      index.reserveCapacity(min(source.expectedFileCount, 1 << 24))
      for part in source.parts {
        try Termination.check()
        let (plaintext, _) = try repository.readSealed(.fileTable, part, limit: FileTable.partByteCountMax)
        var decoder = try FileTablePartDecoder(plaintext)
        guard decoder.blockSize == blockSize else { break }
        var start = decoder.position
        // The spool holds each entry behind a part's head, so that one entry reads as a part of its own.
        let head = Array(plaintext[..<start])
        while let entry = try decoder.next() {
          defer { start = decoder.position }
          guard case .file(let size, _, _, let runs) = entry.content else { continue }
          if number == 0 { Self.count(runs, size: size, blockSize: blockSize, labels: source.labels, in: &alive) }
          let byteCount = head.count + decoder.position - start
          index[Self.hash(entry.path)] = Place(
            offset: written + Int64(pending.count), byteCount: Int32(byteCount), source: Int32(number))
          pending += head
          pending += plaintext[start..<decoder.position]
          if pending.count < Self.spoolWriteByteCount { continue }
          try spool.append(pending, at: written)
          written += Int64(pending.count)
          pending.removeAll(keepingCapacity: true)
        }
      }
      indexes.append(index)
    }
    try spool.append(pending, at: written)
    self.indexes = indexes
    var packs = packs
    packs.sparse = giveUp(alive)
    self.packs = packs
  }

  /// Adds the bytes of a file's blocks to those of the packs in which they are.
  private static func count(
    _ runs: [BlockRun], size: Int64, blockSize: Int, labels: [Int?], in alive: inout [PackID: Int64]
  ) {
    var rest = size
    for run in runs {
      // Only a file's last block is shorter.
      let byteCount = min(rest, Int64(run.count) * Int64(blockSize))
      rest -= byteCount
      guard run.label < labels.count, let label = labels[run.label] else { continue }
      alive[PackID(label: label, number: run.pack), default: 0] += byteCount
    }
  }

  /// The file at `path` in each earlier backup that has it.
  func files(at path: String) throws(TidemarkError) -> [PreviousFile] {
    let hash = Self.hash(path)
    var found: [PreviousFile] = []
    for index in indexes {
      guard let place = index[hash], let file = try read(place, path) else { continue }
      found.append(file)
    }
    return found
  }

  private func read(_ place: Place, _ path: String) throws(TidemarkError) -> PreviousFile? {
    var decoder = try FileTablePartDecoder(try spool.read(Int(place.byteCount), at: place.offset))
    // Another path of the same hash: as good as unknown.
    guard let entry = try decoder.next(), entry.path == path,
      case .file(_, _, let digests, let runs) = entry.content
    else { return nil }
    let labels = labels[Int(place.source)]
    var mapped: [(first: Int, place: PreviousFile.Place)] = []
    mapped.reserveCapacity(runs.count)
    var first = 0
    for var run in runs {
      let count = run.count
      if run.label < labels.count, let label = labels[run.label],
        packs.contains(label: label, number: run.pack)
      {
        let isSparse = packs.sparse.contains(PackID(label: label, number: run.pack))
        run.label = label
        mapped.append((first, isSparse ? .sparse : .usable(run)))
      } else {
        mapped.append((first, .lost))
      }
      first += count
    }
    return PreviousFile(digests: digests, runs: mapped)
  }

  /// FNV-1a, 64 bits.
  private static func hash(_ path: String) -> UInt64 {
    path.utf8.reduce(0xcbf2_9ce4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
  }
}
