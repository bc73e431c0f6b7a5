// Reads back what the regions hold: existence first, then each copy's signature and digests, then every frame. Compares
// the regions and mends one from the other. It ends anywhere without harm and goes on where it was.
import BackupRepository
import Diagnostics
import Envelope
import ObjectStorage
import PostgresFormats
import Synchronization
import SystemSupport

package struct VerificationOptions: Sendable {
  /// Of the objects, from above 0 to 100. Existence is verified for all of them.
  package var percent = 100.0
  /// `nil`: a new one, or that of the verification that goes on.
  package var seed: UInt64?
  /// Bytes per second that are read, over all regions.
  package var rateLimit: Int?
  /// Whether missing and damaged copies are restored from good ones.
  package var mends = true
  /// Begins anew although an earlier one could go on.
  package var restarts = false
  /// The labels of the backups from which all WAL is promised.
  package var continuous: @Sendable (LineageCatalog) -> Set<String> = { Set($0.backups.map(\.label.text)) }

  package init() {}
}

package struct VerificationReport: Sendable {
  package var state: VerificationState
  package var isResumed: Bool
  package var isWhole: Bool { state.percent >= 100 }
}

package struct VerificationRun {
  /// Objects that are read between two notes of the position.
  private static let batchCount = 32
  private static let threadCount = 4
  private static let clockOffsetMax = 60.0

  let repository: Repository
  let options: VerificationOptions
  let progress: @Sendable (VerificationCounts) -> Void

  package init(
    _ repository: Repository, _ options: VerificationOptions,
    progress: @escaping @Sendable (VerificationCounts) -> Void = { _ in }
  ) {
    self.repository = repository
    self.options = options
    self.progress = progress
  }

  /// Verifies. What is wrong is in the report; an error is what made it impossible to go on.
  /// - Throws: `locked` when another verification runs on this host, `interrupted` with the state kept, and what
  ///   listing the regions throws.
  package func run() throws(TidemarkError) -> VerificationReport {
    let locks = "\(repository.stateDirectory)/locks"
    try DurableFile.createDirectories(locks)
    let lock = try FileLock("\(locks)/verify-\(repository.layout.cluster)", purpose: "a verification of this cluster")
    defer { withExtendedLifetime(lock) {} }
    let journal = VerificationJournal(stateDirectory: repository.stateDirectory, cluster: repository.layout.cluster)
    let earlier = options.restarts ? nil : try journal.unfinished().flatMap { fits($0) ? $0 : nil }
    var state =
      earlier
      ?? VerificationState(
        percent: options.percent, seed: options.seed ?? UInt64.random(in: 0...(1 << 53)), mends: options.mends,
        started: wallClockSeconds())
    let (lineages, failures) = try repository.lineages()
    var skipped = Set(failures.keys)
    if earlier == nil { noteRegions(failures, &state) }
    for lineage in lineages where !state.done.contains(lineage.systemIdentifier.description) {
      try verify(lineage, &state, journal, &skipped)
      state.done.append(lineage.systemIdentifier.description)
      state.position = nil
      try journal.save(state)
    }
    try journal.finish(state)
    return VerificationReport(state: state, isResumed: earlier != nil)
  }

  private func fits(_ state: VerificationState) -> Bool {
    state.percent == options.percent && state.mends == options.mends
      && (options.seed == nil || options.seed == state.seed)
  }

  private func noteRegions(_ failures: [String: TidemarkError], _ state: inout VerificationState) {
    for (name, error) in failures.sorted(by: { $0.key < $1.key }) {
      state.add(VerificationFinding(.regionNotAsked, name, region: name, detail: error.description))
    }
    for region in repository.regions.regions {
      if let offset = region.store.clockOffset, abs(offset.seconds) > Self.clockOffsetMax {
        state.add(
          VerificationFinding(
            .clock, region.name, region: region.name,
            detail: "the store's clock differs by \(Int(offset.seconds)) s from this host's"))
      }
    }
  }

  private func verify(
    _ lineage: LineageLayout, _ state: inout VerificationState, _ journal: VerificationJournal,
    _ skipped: inout Set<String>
  ) throws(TidemarkError) {
    let listing = try repository.regions.list(prefix: lineage.prefix)
    for (name, error) in listing.failures.sorted(by: { $0.key < $1.key }) where skipped.insert(name).inserted {
      state.add(VerificationFinding(.regionNotAsked, name, region: name, detail: error.description))
    }
    let identifier = lineage.systemIdentifier.description
    if !state.examined.contains(identifier) {
      state.counts.listed += listing.entries.count
      for finding in try ExistenceCheck(repository, lineage, options).findings(listing) { state.add(finding) }
      state.examined.append(identifier)
      try journal.save(state)
    }
    let sample = SampleSelection(percent: state.percent, seed: state.seed)
    let reader = CopyReader(repository, listing, mends: state.mends, rateLimit: options.rateLimit, skipped: skipped)
    let position = state.position
    let chosen = listing.entries.filter { entry in
      if let position, entry.name.text <= position { return false }
      return sample.contains(entry.name.text) || entry.sizesDiffer || reader.isMissingSomewhere(entry)
    }
    for start in stride(from: 0, to: chosen.count, by: Self.batchCount) {
      let batch = Array(chosen[start..<min(chosen.count, start + Self.batchCount)])
      let results = Mutex<[Int: CopyReader.Result]>([:])
      let next = Counter()
      try withThreads("verify", count: min(Self.threadCount, batch.count)) { _ in
        while true {
          try Termination.check()
          let index = next.add(1) - 1
          guard index < batch.count else { return }
          let result = try reader.read(batch[index], isSampled: sample.contains(batch[index].name.text))
          results.withLock { $0[index] = result }
        }
      }
      for (_, result) in results.withLock({ $0 }).sorted(by: { $0.key < $1.key }) {
        state.counts.add(result.counts)
        for finding in result.findings { state.add(finding) }
      }
      state.position = batch.last?.name.text
      CrashPoint.reach("verify.before-save")
      try journal.save(state)
      CrashPoint.reach("verify.after-save")
      progress(state.counts)
    }
    skipped = reader.skippedRegions
  }
}

extension VerificationCounts {
  fileprivate mutating func add(_ other: VerificationCounts) {
    objects += other.objects
    copies += other.copies
    bytes += other.bytes
    frames += other.frames
    notOpened += other.notOpened
  }
}
