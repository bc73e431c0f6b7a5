// Reading one object from whichever region has a good copy, and mending the copies that are not.
import Diagnostics
import Glibc
import ObjectStorage
import SystemSupport

extension RegionSet {
  /// Reads `name` (or a range of it) and hands the bytes to `check`, whose result is returned.
  ///
  /// Regions are asked in the order of their speed. A region that fails, lacks the object, or holds bytes that `check`
  /// refuses is passed over for the next; the refused copy is read once more, since the fault may have been the
  /// line's. With `mends`, and a whole object read, a missing or damaged copy is restored from the good one.
  /// - Throws: `object-not-found` only when every region was asked and each said that it isn't there, and each holds
  ///   the repository's marker; `object-damaged` (or what `check` threw) when no good copy is left but damaged ones
  ///   are; `region-unreachable` when the answer isn't known within the limits.
  package func read<Result>(
    _ name: ObjectName, range: ByteRange? = nil, mends: Bool = true, limits: ReadLimits? = nil,
    _ check: (_ bytes: [UInt8], _ region: Region) throws -> Result
  ) throws(TidemarkError) -> Result {
    let limits = limits ?? readLimits
    let deadline = Deadline.after(limits.total)
    var absent: [Region] = []
    var damaged: [(region: Region, error: TidemarkError)] = []
    var pause = Duration.milliseconds(100)
    while true {
      var lastFailure: TidemarkError?
      for region in byPreference {
        try Termination.check()
        if absent.contains(where: { $0 === region }) || damaged.contains(where: { $0.region === region }) { continue }
        // A region known to be down is asked only when nobody else is left to answer.
        let isLastHope = absent.count + damaged.count == regions.count - 1
        if region.health.failingFor != nil, regions.count > 1, !isLastHope, !region.health.claimProbe() {
          lastFailure = lastFailure ?? TidemarkError(.regionUnreachable, "the region is failing", object: region.name)
          continue
        }
        let limit = Deadline.after(regions.count > 1 ? limits.perRegion : limits.total).earlier(deadline)
        do throws(TidemarkError) {
          let (result, bytes) = try readChecked(region, name, range, limit, check)
          if mends, range == nil, !(absent.isEmpty && damaged.isEmpty) {
            mend(name, bytes, absent: absent, damaged: damaged.map(\.region))
          }
          return result
        } catch {
          switch error.code {
          case .objectNotFound:
            guard try knowsRepository(region, limit) else {
              lastFailure = TidemarkError(
                .repositoryMissing, "the region lacks the repository's marker, so its 'not there' proves nothing",
                object: region.name, next: "'tidemark init' marks a new region; check its bucket and prefix")
              continue
            }
            absent.append(region)
          case .objectDamaged, .signatureInvalid, .writerNotTrusted, .formatVersionUnknown, .manifestMismatch:
            damaged.append((region, error))
            log.record(.damaged, region: region.name, object: name, detail: error.description)
          case .regionUnreachable, .regionThrottled, .accessDenied, .credentialsMissing, .bucketMissing,
            .clockSkewed, .storeAnswerInvalid, .storeRefused, .localIO, .localPermission:
            lastFailure = error
            log.record(.failed, region: region.name, object: name, detail: error.description)
          default: throw error
          }
        }
      }
      if absent.count + damaged.count == regions.count {
        if let first = damaged.first { throw first.error.with(object: name.text) }
        throw TidemarkError(.objectNotFound, "no region holds the object", object: name.text)
      }
      if let remaining = deadline.remaining, remaining <= pause {
        throw (lastFailure ?? TidemarkError(.regionUnreachable, "no region answered")).with(object: name.text)
      }
      usleep(UInt32(pause.milliseconds * 1000))
      pause = min(pause * 2, .seconds(5))
    }
  }

  /// Whether the region's "not there" counts. A failure to find out is no.
  private func knowsRepository(_ region: Region, _ deadline: Deadline) throws(TidemarkError) -> Bool {
    do throws(TidemarkError) { return try hasMarker(region, deadline: deadline) } catch {
      log.record(.failed, region: region.name, object: marker, detail: error.description)
      return false
    }
  }

  private func readChecked<Result>(
    _ region: Region, _ name: ObjectName, _ range: ByteRange?, _ deadline: Deadline,
    _ check: (_ bytes: [UInt8], _ region: Region) throws -> Result
  ) throws(TidemarkError) -> (Result, [UInt8]) {
    var attempt = 0
    while true {
      let bytes = try region.request { store throws(TidemarkError) in
        try store.read(region.key(name), range: range, deadline: deadline)
      }
      do throws(TidemarkError) {
        return (try mapErrors { try check(bytes, region) }, bytes)
      } catch {
        attempt += 1
        if attempt == 2 { throw error }
      }
    }
  }

  /// Restores the copies in `absent` and `damaged` from `bytes`, which passed their checks. A failure is reported and
  /// owed; it never fails the read.
  package func mend(_ name: ObjectName, _ bytes: [UInt8], absent: [Region], damaged: [Region]) {
    for region in absent + damaged {
      let isDamaged = damaged.contains { $0 === region }
      if !isDamaged { log.record(.absent, region: region.name, object: name) }
      do throws(TidemarkError) {
        if isDamaged {
          // The one deletion outside `expire`: of a copy that was read twice and failed its checks both times, while
          // a copy that passed them is in hand. Where deletion isn't allowed, the damage stays and is reported.
          let failures = try region.request { store throws(TidemarkError) in
            try store.delete([region.key(name)], deadline: .after(readLimits.perRegion))
          }
          if let failure = failures.first {
            throw TidemarkError(.storeRefused, "the damaged copy can't be replaced", cause: failure.reason)
          }
          CrashPoint.reach("mend.after-delete")
        }
        let outcome = try region.request { store throws(TidemarkError) in
          try store.create(region.key(name), bytes, deadline: .after(readLimits.perRegion))
        }
        if isDamaged && outcome == .exists {
          throw TidemarkError(.storeRefused, "the damaged copy is still there after its deletion")
        }
        try debts.settle(Debt(region: region.name, object: name))
        log.record(.mended, region: region.name, object: name)
      } catch {
        log.record(.notMended, region: region.name, object: name, detail: error.description)
      }
    }
  }
}
