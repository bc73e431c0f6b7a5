// Reads every copy of an object, compares them, and restores those that are missing or damaged from one that passed.
import BackupRepository
import Diagnostics
import Envelope
import Glibc
import ObjectStorage
import Synchronization
import SystemSupport

final class CopyReader: Sendable {
  struct Result: Sendable {
    var counts = VerificationCounts()
    var findings: [VerificationFinding] = []
  }

  /// How long one copy may take.
  private static let copyLimit = Duration.seconds(60)
  /// How long after the listing copies that were being written are waited for at most.
  private static let arrivalLimit = Duration.seconds(10)

  private let repository: Repository
  private let check: CopyCheck
  private let mends: Bool
  private let limiter: RateLimiter
  /// Until then a copy that wasn't listed may be under way: as long as a writer waits for a region, and a moment for the
  /// write itself. One moment for all, by this host's clock: stores' clocks may differ by hours.
  private let arrivals: Deadline
  /// Indexes of the regions whose listing is known.
  private let answered: Set<Int>
  /// Regions that failed: their copies aren't waited for any more.
  private let failed: Mutex<Set<String>>

  init(_ repository: Repository, _ listing: RegionListing, mends: Bool, rateLimit: Int?, skipped: Set<String>) {
    self.repository = repository
    check = CopyCheck(repository: repository)
    self.mends = mends
    limiter = RateLimiter(bytesPerSecond: rateLimit)
    answered = listing.answered
    arrivals = .after(min(repository.regions.policy.degradeAfter, Self.arrivalLimit) + .seconds(1))
    failed = Mutex(skipped)
  }

  var skippedRegions: Set<String> { failed.withLock { $0 } }

  func isMissingSomewhere(_ entry: RegionListing.Entry) -> Bool { !answered.subtracting(entry.holders).isEmpty }

  private enum Copy {
    case good([UInt8], CheckedCopy)
    case bad(TidemarkError)
    case gone
    case unknown
  }

  /// - Parameter isSampled: whether all copies are to be read; otherwise one is, to restore what is missing.
  func read(_ entry: RegionListing.Entry, isSampled: Bool) throws(TidemarkError) -> Result {
    var result = Result()
    var good: (region: Region, bytes: [UInt8], copy: CheckedCopy)?
    var damaged: [(region: Region, error: TidemarkError)] = []
    var goneCount = 0
    for index in entry.holders.sorted() {
      if !isSampled, !entry.sizesDiffer, good != nil { break }
      let region = repository.regions.regions[index]
      if failed.withLock({ $0.contains(region.name) }) { continue }
      switch try copy(entry.name, region, &result) {
      case .good(let bytes, let copy):
        if let first = good, first.copy.identity != copy.identity {
          result.findings.append(
            VerificationFinding(
              .differs, entry.name.text, region: region.name,
              detail: "it passes its checks and isn't the object that \(first.region.name) holds"))
        }
        if good == nil { good = (region, bytes, copy) }
      case .bad(let error): damaged.append((region, error))
      // Expired since it was listed.
      case .gone: goneCount += 1
      case .unknown: break
      }
    }
    result.counts.objects = result.counts.copies > 0 ? 1 : 0
    var absent: [Region] = []
    // When a region lost it since the listing, somebody deletes it: it must not be brought back.
    if goneCount == 0 {
      for index in answered.subtracting(entry.holders).sorted() {
        let region = repository.regions.regions[index]
        if try !arrives(entry, in: region, &result) { absent.append(region) }
      }
    }
    var mended: Set<String> = []
    if mends, let good, !(absent.isEmpty && damaged.isEmpty) {
      mended = repository.regions.mend(entry.name, good.bytes, absent: absent, damaged: damaged.map(\.region))
    }
    for region in absent {
      result.findings.append(
        VerificationFinding(
          .missing, entry.name.text, region: region.name,
          detail: good == nil ? "another region lists it, and no good copy could be read" : "another region holds it",
          isMended: mended.contains(region.name)))
    }
    for (region, error) in damaged {
      result.findings.append(
        VerificationFinding(
          error.code == .noKeyOpens ? .closed : .damaged, entry.name.text, region: region.name,
          detail: error.description, isMended: mended.contains(region.name)))
    }
    return result
  }

  /// Said once; what this region holds of the rest isn't verified by this run.
  private func giveUp(_ region: Region, _ name: ObjectName, _ error: TidemarkError, _ result: inout Result) {
    if failed.withLock({ $0.insert(region.name).inserted }) {
      result.findings.append(
        VerificationFinding(.regionNotAsked, name.text, region: region.name, detail: error.description))
    }
  }

  /// Whether a copy that wasn't listed is there by now: the regions are listed one beside the other, and what is written
  /// meanwhile may be seen in one of them alone.
  private func arrives(
    _ entry: RegionListing.Entry, in region: Region, _ result: inout Result
  ) throws(TidemarkError) -> Bool {
    if failed.withLock({ $0.contains(region.name) }) { return false }
    let isOwed = repository.regions.debts.contains(Debt(region: region.name, object: entry.name))
    while true {
      do throws(TidemarkError) {
        let copy = try region.request { store throws(TidemarkError) in
          try store.information(region.key(entry.name), deadline: .after(repository.regions.readLimits.perRegion))
        }
        if copy != nil { return true }
      } catch {
        if error.code == .interrupted || error.code == .internalFault { throw error }
        giveUp(region, entry.name, error, &result)
        // It answered the listing, and the copy wasn't there.
        return false
      }
      // Nobody is writing what is owed.
      guard !isOwed, let rest = arrivals.remaining, rest > .zero else { return false }
      usleep(UInt32(min(rest, .milliseconds(100)).milliseconds * 1000))
      try Termination.check()
    }
  }

  /// Reads one copy; a second time when it doesn't pass, since the fault may have been the line's.
  private func copy(_ name: ObjectName, _ region: Region, _ result: inout Result) throws(TidemarkError) -> Copy {
    var attempt = 0
    while true {
      let bytes: [UInt8]
      do throws(TidemarkError) {
        bytes = try region.request { store throws(TidemarkError) in
          try store.read(region.key(name), range: nil, deadline: .after(Self.copyLimit))
        }
      } catch {
        switch error.code {
        case .objectNotFound: return .gone
        case .interrupted, .internalFault: throw error
        default:
          giveUp(region, name, error, &result)
          return .unknown
        }
      }
      result.counts.copies += attempt == 0 ? 1 : 0
      result.counts.bytes += Int64(bytes.count)
      try limiter.take(bytes.count)
      do throws(TidemarkError) {
        let copy = try check.check(name, bytes)
        result.counts.frames += copy.frameCount
        if !copy.isOpened { result.counts.notOpened += 1 }
        return .good(bytes, copy)
      } catch {
        if error.code == .internalFault || error.code == .interrupted { throw error }
        if error.code == .regionUnreachable {
          // Says nothing about this copy: another object, which would open it, couldn't be asked for.
          result.findings.append(
            VerificationFinding(.regionNotAsked, name.text, region: region.name, detail: error.description))
          return .unknown
        }
        attempt += 1
        if attempt == 2 || error.code == .noKeyOpens { return .bad(error) }
      }
    }
  }
}
