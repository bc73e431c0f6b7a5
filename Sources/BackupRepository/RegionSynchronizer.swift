// Makes the regions equal: repays the debts that this host recorded, and copies what a comparison of listings shows to
// be missing. Copying needs no keys; what is copied is checked by signature and digests first.
import Diagnostics
import Envelope
import ObjectStorage
import SystemSupport

/// What a synchronization did and found.
package struct SynchronizationReport: Sendable {
  package var repaid = 0
  /// Debts for objects that no region holds any more: `expire` deleted them.
  package var obsolete = 0
  package var copied = 0
  package var copiedByteCount: Int64 = 0
  /// What remains: one line each.
  package var findings: [String] = []

  package init() {}
}

package struct RegionSynchronizer {
  private let repository: Repository
  private var regions: RegionSet { repository.regions }
  /// How long one object may take.
  private static let objectLimit = Duration.seconds(120)

  private let limiter: RateLimiter

  /// - Parameter uploadRateMax: bytes per second.
  package init(_ repository: Repository, uploadRateMax: Int? = nil) {
    self.repository = repository
    limiter = RateLimiter(bytesPerSecond: uploadRateMax)
  }

  /// Repays what the journal names.
  package func repayDebts(_ report: inout SynchronizationReport) throws(TidemarkError) {
    for debt in try regions.debts.debts() {
      try Termination.check()
      guard let debtor = regions.regions.first(where: { $0.name == debt.region }) else {
        report.findings.append(
          "a debt is to region \(debt.region), which the configuration doesn't have: \(debt.object)")
        continue
      }
      do throws(TidemarkError) {
        let there = try debtor.request { store throws(TidemarkError) in
          try store.information(debtor.key(debt.object), deadline: .after(.seconds(10)))
        }
        if there == nil { try copy(debt.object, to: [debtor], &report) }
        CrashPoint.reach("sync.before-settle")
        try regions.debts.settle(debt)
        regions.log.record(.repaid, region: debtor.name, object: debt.object)
        report.repaid += 1
      } catch {
        if error.code == .interrupted { throw error }
        if error.code == .objectNotFound {
          // Proven: every region was asked. `verify` tells what a manifest misses.
          try regions.debts.settle(debt)
          report.obsolete += 1
          continue
        }
        report.findings.append("\(debt.region) still lacks \(debt.object): \(error.description)")
      }
    }
  }

  /// Compares the listings of all regions and copies what one lacks.
  package func compare(_ report: inout SynchronizationReport) throws(TidemarkError) {
    let listing = try regions.list(prefix: repository.layout.prefix)
    for (region, error) in listing.failures.sorted(by: { $0.key < $1.key }) {
      report.findings.append("\(region) can't be asked: \(error.description)")
    }
    let probes = repository.layout.probe("x").text.dropLast()
    // Manifests come last: one that stands in a region has there what it names, also when this ends in between.
    let isManifest = { (entry: RegionListing.Entry) in entry.name.lastComponent == "manifest" }
    let ordered = listing.entries.filter { !isManifest($0) } + listing.entries.filter(isManifest)
    for entry in ordered where !entry.name.text.hasPrefix(probes) {
      try Termination.check()
      if entry.sizesDiffer && !entry.name.text.contains("/wal/") {
        report.findings.append("the regions hold \(entry.name) with different sizes")
      }
      let lacking = listing.answered.subtracting(entry.holders).sorted().map { regions.regions[$0] }
      if lacking.isEmpty { continue }
      do throws(TidemarkError) { try copy(entry.name, to: lacking, &report) } catch {
        if error.code == .interrupted { throw error }
        report.findings.append("\(entry.name) can't be copied: \(error.description)")
      }
    }
  }

  private func copy(
    _ name: ObjectName, to debtors: [Region], _ report: inout SynchronizationReport
  ) throws(TidemarkError) {
    let bytes = try regions.read(name, mends: false) { bytes, _ in
      if name != repository.layout.marker {
        try SealedObject.verify(bytes, expectedName: name.text, trustedWriters: repository.keys.trustedWriters)
      }
      return bytes
    }
    for debtor in debtors {
      try limiter.take(bytes.count)
      CrashPoint.reach("sync.before-copy")
      _ = try debtor.request { store throws(TidemarkError) in
        try store.create(debtor.key(name), bytes, deadline: .after(Self.objectLimit))
      }
      report.copied += 1
      report.copiedByteCount += Int64(bytes.count)
    }
  }
}
