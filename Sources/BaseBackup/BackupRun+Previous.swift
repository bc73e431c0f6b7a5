// Which earlier backups an incremental one builds on, and what of them can be used: the newest complete one, and what
// interrupted ones after it had already uploaded.
import BackupRepository
import Diagnostics
import Envelope
import PostgresFormats
import PostgresReplication

extension BackupRun {
  /// What this backup may refer to.
  struct Base {
    /// The newest complete backup; `nil` when there is none, or none that can be used.
    var predecessor: CatalogedBackup?
    /// The labels of the new table from index 1 on.
    var labels: [String] = []
    /// How many interrupted backups are used.
    var interruptedCount = 0
    var table: PreviousFileTable?
  }

  /// Interrupted backups whose uploads are looked at, newest first.
  private static let interruptedCountMax = 4

  /// What this backup builds on. What stands in the way is remarked, never fatal: a full backup is always right.
  func previousBackups(_ layout: LineageLayout, _ remarks: inout [String]) throws(TidemarkError) -> Base {
    if options.isFull { return Base() }
    do throws(TidemarkError) {
      let catalog = try repository.catalog(layout)
      if let finding = NewestBackupMemory(repository, layout).finding(catalog) { remarks.append(finding) }
      for backup in catalog.unusable {
        remarks.append("an earlier backup can't be used: \(backup.name): \(backup.error.description)")
      }
      let usable = catalog.backups.filter { $0.manifest.suspect == nil }
      let newest = usable.last { $0.manifest.blockSize == Self.blockSize }
      if let passed = usable.last, passed.label != newest?.label {
        remarks.append(Self.otherBlocks(passed, newest))
      }
      var base = Base(predecessor: newest)
      var sources: [PreviousFileTable.Source] = []
      if let newest {
        base.labels = newest.manifest.packs.map(\.label)
        sources.append(
          PreviousFileTable.Source(
            parts: (1...newest.manifest.fileTableParts).map { layout.fileTablePart(newest.label, $0) },
            labels: newest.manifest.labels.map { label in base.labels.firstIndex(of: label).map { $0 + 1 } },
            expectedFileCount: newest.manifest.fileCount))
      }
      for attempt in try interrupted(layout, after: newest) {
        base.labels.append(attempt.label.text)
        // Its label 0 is its own; what the others stand for, its manifest would have said.
        sources.append(.init(parts: attempt.parts, labels: [base.labels.count], expectedFileCount: 0))
        base.interruptedCount += 1
      }
      if sources.isEmpty { return base }
      let (packs, lostCount, candidates) = try usablePacks(layout, newest?.manifest, base)
      if lostCount > 0 {
        remarks.append("\(lostCount) packs of earlier backups are in no region; their blocks are stored again")
      }
      let budget = SparsePacks.budget(storedByteCount: candidates.reduce(0) { $0 + $1.storedByteCount })
      base.table = try PreviousFileTable(repository, sources, blockSize: Self.blockSize, packs: packs) { alive in
        SparsePacks.choose(
          candidates.map { candidate in
            var candidate = candidate
            candidate.aliveByteCount = alive[candidate.id] ?? 0
            return candidate
          }, budget: budget)
      }
      return base
    } catch {
      switch error.code {
      case .noKeyOpens, .writerNotTrusted, .objectDamaged, .signatureInvalid, .objectNotFound, .formatVersionUnknown:
        remarks.append("this backup is full, since the previous one can't be used: \(error.description)")
        return Base()
      default: throw error
      }
    }
  }

  /// Says that blocks of different sizes can't be compared. That is so after an update that changed the size, once.
  private static func otherBlocks(_ passed: CatalogedBackup, _ newest: CatalogedBackup?) -> String {
    let sizes = "blocks of \(passed.manifest.blockSize >> 10) KiB, and this version makes \(blockSize >> 10) KiB"
    guard let newest else { return "this backup is full, since \(passed.label) has \(sizes)" }
    return "this backup builds on \(newest.label), since the newer \(passed.label) has \(sizes)"
  }

  /// Backups without a manifest that began after `newest`, newest first, with the parts of their file tables: they were
  /// interrupted, or run now on another host. What they uploaded is as good as any other pack.
  private func interrupted(
    _ layout: LineageLayout, after newest: CatalogedBackup?
  ) throws(TidemarkError) -> [InterruptedBackup] {
    let listing = try repository.regions.list(prefix: layout.backupsPrefix)
    let all = InterruptedBackup.find(
      in: listing.entries.map(\.name), layout, after: newest?.label, known: newest?.manifest.packs.map(\.label) ?? [])
    return Array(all.prefix(Self.interruptedCountMax))
  }

  /// Which packs may be referred to, and which of them may be given up: those that a region lists. With a region that
  /// can't be asked, nothing that the predecessor's manifest names is known to be missing; what interrupted backups name
  /// must be seen.
  private func usablePacks(
    _ layout: LineageLayout, _ manifest: BackupManifest?, _ base: Base
  ) throws(TidemarkError) -> (packs: UsablePacks, lostCount: Int, candidates: [SparsePacks.Candidate]) {
    let listing = try repository.regions.list(prefix: layout.packsPrefix)
    let indexes = Dictionary(base.labels.enumerated().map { ($0.element, $0.offset + 1) }, uniquingKeysWith: { $1 })
    var packs = UsablePacks()
    var storedByteCounts: [PackID: Int64] = [:]
    let regions = repository.regions.regions.indices
    for entry in listing.entries {
      let components = entry.name.text.dropFirst(layout.packsPrefix.count).split(separator: "/")
      guard components.count == 2, let label = indexes[String(components[0])], let number = Int(components[1]) else {
        continue
      }
      // An interrupted backup may have ended between two regions' copies: what a region lacks must at least be owed.
      let isInterrupted = label > base.labels.count - base.interruptedCount
      if isInterrupted, !regions.allSatisfy({ isHeldOrOwed(entry, by: $0) }) { continue }
      packs.present.insert(PackID(label: label, number: number))
      storedByteCounts[PackID(label: label, number: number)] = entry.byteCount
    }
    guard let manifest else { return (packs, 0, []) }
    if !listing.isComplete {
      packs.trustedLabels = Set((0..<base.labels.count - base.interruptedCount).map { $0 + 1 })
    }
    var lostCount = 0
    var candidates: [SparsePacks.Candidate] = []
    for reference in manifest.packs {
      let sizes = reference.plaintextBytesByNumber
      let label = indexes[reference.label] ?? 0
      for number in reference.numbers {
        let id = PackID(label: label, number: number)
        if !packs.contains(label: label, number: number) { lostCount += 1 }
        // What the previous backup stored itself is alive. An outage is no time to store more than must be.
        guard reference.label != manifest.label, listing.isComplete, let stored = storedByteCounts[id] else { continue }
        candidates.append(
          .init(id: id, aliveByteCount: 0, plaintextByteCount: sizes[number], storedByteCount: stored))
      }
    }
    return (packs, lostCount, candidates)
  }

  private func isHeldOrOwed(_ entry: RegionListing.Entry, by region: Int) -> Bool {
    entry.holders.contains(region)
      || repository.regions.debts.contains(
        Debt(region: repository.regions.regions[region].name, object: entry.name))
  }
}
