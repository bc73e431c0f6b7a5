// Fetches packs and writes their blocks. Of a pack that a delta restore needs little of, only that is fetched.
import BackupRepository
import Diagnostics
import Envelope
import Glibc
import ObjectStorage
import SystemSupport

extension FileRestorer {
  /// Fetches the packs of the window in parallel and writes their blocks.
  func write(
    _ window: inout Window, _ result: inout FileRestoreResult, _ written: Counter
  ) throws(TidemarkError) {
    try compare(&window, &result, written)
    let packs = Self.spread(
      window.placements.keys.sorted { ($0.label, $0.number) < ($1.label, $1.number) }, over: threadCount)
    result.packCount += packs.count
    let next = Counter()
    let hasFailed = Cancellation()
    let (paths, placements, creations) = (window.paths, window.placements, window.creations)
    window = Window()
    let created = CreatedFiles(count: paths.count - creations.count)
    let ranges = FlushedRanges(fileCount: paths.count, placements.values.joined())
    let fail: @Sendable (TidemarkError) -> Void = { error in
      hasFailed.cancel()
      created.fail(error)
    }
    try withThreads("restore", count: threadCount + (creations.isEmpty ? 0 : 1), onFailure: fail) { thread in
      if thread == threadCount {
        for (path, creation) in zip(paths, creations) where !hasFailed.isCancelled {
          try Termination.check()
          try create(path, creation)
          created.advance()
        }
        return
      }
      let scratch = UnsafeMutableRawBufferPointer.allocate(
        byteCount: SealedObject.framePlaintextByteCountMax, alignment: 4096)
      defer { scratch.deallocate() }
      let buffer = ReceiveBuffer()
      try meter.thread {
        while !hasFailed.isCancelled {
          try Termination.check()
          let index = next.add(1) - 1
          guard index < packs.count else { return }
          try self.write(packs[index], placements[packs[index]] ?? [], paths, created, ranges, scratch, buffer)
          CrashPoint.reach("restore.after-pack")
          self.progress(
            Int64(written.add((placements[packs[index]] ?? []).reduce(0) { $0 + Int($1.byteCount) })))
        }
      }
    }
  }

  /// Fewer packs than this hold files that are small enough for the threads not to meet in one.
  private static let spreadCountMin = 64

  /// The same packs in another order: those that stand beside each other, and are in work at the same time, come from
  /// `count` places far apart. Where there are many, neighbours hold the same file of 1 GB, and only one thread at a time
  /// writes into it. Where there are few, files that are written from one end to the other are cheaper.
  private static func spread(_ packs: [PackID], over count: Int) -> [PackID] {
    if packs.count < spreadCountMin { return packs }
    let step = (packs.count + count - 1) / count
    return (0..<step).flatMap { row in
      stride(from: row, to: packs.count, by: step).map { packs[$0] }
    }
  }

  private func write(
    _ pack: PackID, _ placements: [Placement], _ paths: [String], _ created: CreatedFiles, _ ranges: FlushedRanges,
    _ scratch: UnsafeMutableRawBufferPointer, _ buffer: ReceiveBuffer
  ) throws(TidemarkError) {
    guard pack.label < backup.manifest.labels.count else {
      throw TidemarkError(
        .objectDamaged, "the file table names a backup that the manifest doesn't", object: backup.label.text)
    }
    let label = try BackupLabelName(backup.manifest.labels[pack.label])
    let name = backup.layout.pack(label, pack.number)
    let ordered = placements.sorted { ($0.frame, $0.offset) < ($1.frame, $1.offset) }
    var suspects: Set<String> = []
    if target.deadCluster != nil {
      guard let damaged = try PackFrames(self, name, ordered, paths, created, ranges).write(scratch) else { return }
      suspects = damaged
    }
    // The frames are opened within the check, so that a damaged one sends the read to the next region. Blocks that were
    // written from a bad copy before are written again from the good one.
    var isFresh = target.deadCluster == nil
    try repository.regions.read(name, limits: Self.packLimits, meter: meter, first: suspects, buffer: buffer) {
      bytes, _ in
      let object = try repository.open(.pack, name, bytes)
      var reader = try OpenedObject.FrameReader(object)
      var writer = PlacementWriter(paths, created, ranges, self, isFresh: isFresh)
      isFresh = false
      var current: Int32 = -1
      for placement in ordered {
        guard object.footer.frames.indices.contains(Int(placement.frame)) else {
          throw TidemarkError(
            .objectDamaged, "the file table names a frame that the pack doesn't have", object: name.text)
        }
        let size = object.footer.frames[Int(placement.frame)].plaintextByteCount
        let frame = UnsafeMutableRawBufferPointer(rebasing: scratch[..<size])
        if placement.frame != current {
          try reader.read(Int(placement.frame), into: frame)
          current = placement.frame
        }
        try writer.write(placement, of: UnsafeRawBufferPointer(frame), name.text)
      }
    }
  }

  static var packLimits: ReadLimits {
    var limits = ReadLimits()
    limits.total = .seconds(300)
    return limits
  }
}
