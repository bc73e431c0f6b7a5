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
  /// line's. With `mends`, and a whole object read, a missing or damaged copy is restored from the good one. `meter` counts
  /// the time that the regions take. Those named in `first` are asked before the others: their copies are suspect, and
  /// only a copy that is met is mended. The bytes are in the memory of `buffer`, until `check` has returned.
  /// - Throws: `object-not-found` only when every region was asked and each said that it isn't there, and each holds
  ///   the repository's marker; `object-damaged` (or what `check` threw) when no good copy is left but damaged ones
  ///   are; `no-key-opens` when no copy that could be had is sealed to a key of this host; `region-unreachable` when the
  ///   answer isn't known within the limits.
  package func read<Result>(
    _ name: ObjectName, range: ByteRange? = nil, mends: Bool = true, limits: ReadLimits? = nil,
    meter: StageMeter? = nil, first: Set<String> = [], buffer: ReceiveBuffer? = nil,
    _ check: (_ bytes: [UInt8], _ region: Region) throws -> Result
  ) throws(TidemarkError) -> Result {
    let limits = limits ?? readLimits
    let deadline = Deadline.after(limits.total)
    let denialDeadline = Deadline.after(limits.denial).earlier(deadline)
    var told: Set<String> = []
    var absent: [Region] = []
    var damaged: [(region: Region, error: TidemarkError)] = []
    // Copies sealed to other keys. The list of wrapped keys isn't signed, so one copy may be spoilt where another opens.
    var closed: [(region: Region, error: TidemarkError)] = []
    var localFailure: TidemarkError?
    var pause = Duration.milliseconds(100)
    while true {
      var lastFailure: TidemarkError?
      var onlyDenials = true
      var asked: [Region] = []
      func hasAnswered(_ region: Region) -> Bool {
        absent.contains { $0 === region } || (damaged + closed).contains { $0.region === region }
      }
      let order = byPreference.filter { first.contains($0.name) } + byPreference.filter { !first.contains($0.name) }
      for region in order where !hasAnswered(region) {
        try Termination.check()
        // A region that fails is asked only now and then while there is a healthy one to ask instead.
        let hasHealthyOther = regions.contains { other in
          other !== region && other.health.failingFor == nil && !hasAnswered(other) && !asked.contains { $0 === other }
        }
        if hasHealthyOther, region.health.failingFor != nil, !(region.health.claimProbe() && probe(region)) {
          onlyDenials = false
          continue
        }
        asked.append(region)
        let limit = Deadline.after(regions.count > 1 ? limits.perRegion : limits.total).earlier(deadline)
        do throws(TidemarkError) {
          let (result, bytes) = try readChecked(region, name, range, limit, meter, &localFailure, buffer, check)
          for other in closed {
            log.record(.damaged, region: other.region.name, object: name, detail: other.error.description)
          }
          if mends, range == nil, !(absent.isEmpty && damaged.isEmpty) {
            mend(name, bytes, absent: absent, damaged: damaged.map(\.region))
          }
          buffer?.giveBack(bytes)
          return result
        } catch {
          // A full disk is no region's fault, and no other region's copy helps.
          if let localFailure { throw localFailure }
          switch error.code {
          case .objectNotFound:
            // Without the marker this isn't the repository, or not any more: its "not there" proves nothing.
            do throws(TidemarkError) {
              if try hasMarker(region, deadline: limit) {
                absent.append(region)
              } else {
                lastFailure = unmarked(region)
                onlyDenials = false
              }
            } catch {
              lastFailure = error
              onlyDenials = onlyDenials && error.isDenial
            }
          case .objectDamaged, .signatureInvalid, .writerNotTrusted, .formatVersionUnknown, .manifestMismatch:
            damaged.append((region, error))
            log.record(.damaged, region: region.name, object: name, detail: error.description)
          case .noKeyOpens: closed.append((region, error))
          case .regionUnreachable, .regionThrottled, .accessDenied, .credentialsMissing, .bucketMissing,
            .clockSkewed, .storeAnswerInvalid, .storeRefused, .localIO, .localPermission:
            lastFailure = error
            onlyDenials = onlyDenials && error.isDenial
            // The same answer to the next attempt is no news.
            if told.insert(region.name + error.description).inserted {
              log.record(.failed, region: region.name, object: name, detail: error.description)
            }
          default: throw error
          }
        }
      }
      // That another region would have a copy that opens is too unlikely to wait for one that can't be reached.
      if let first = closed.first { throw first.error.with(object: name.text) }
      if absent.count + damaged.count == regions.count {
        if let first = damaged.first { throw first.error.with(object: name.text) }
        throw TidemarkError(.objectNotFound, "no region holds the object", object: name.text)
      }
      if let remaining = (onlyDenials ? denialDeadline : deadline).remaining, remaining <= pause {
        throw (lastFailure ?? TidemarkError(.regionUnreachable, "no region answered")).with(object: name.text)
      }
      usleep(UInt32(pause.milliseconds * 1000))
      pause = min(pause * 2, .seconds(5))
    }
  }

  /// How long a mended copy may take.
  private static let mendLimit = Duration.seconds(30)

  private func readChecked<Result>(
    _ region: Region, _ name: ObjectName, _ range: ByteRange?, _ deadline: Deadline, _ meter: StageMeter?,
    _ localFailure: inout TidemarkError?, _ buffer: ReceiveBuffer?,
    _ check: (_ bytes: [UInt8], _ region: Region) throws -> Result
  ) throws(TidemarkError) -> (Result, [UInt8]) {
    var attempt = 0
    while true {
      let bytes = try StageMeter.waitingForInput(meter) { () throws(TidemarkError) in
        try region.request { store throws(TidemarkError) in
          try store.read(region.key(name), range: range, deadline: deadline, buffer: buffer)
        }
      }
      do throws(TidemarkError) {
        return (try mapErrors { try check(bytes, region) }, bytes)
      } catch {
        if error.code == .localIO || error.code == .localPermission {
          localFailure = error
          throw error
        }
        attempt += 1
        if attempt == 2 || error.code == .noKeyOpens { throw error }
      }
    }
  }

  /// Restores the copies in `absent` and `damaged` from `bytes`, which passed their checks. A failure never fails the
  /// read: it is reported, and owed where the region has no copy.
  /// - Returns: the names of the regions whose copy is good now.
  @discardableResult
  package func mend(_ name: ObjectName, _ bytes: [UInt8], absent: [Region], damaged: [Region]) -> Set<String> {
    var mended: Set<String> = []
    for region in absent + damaged {
      let isDamaged = damaged.contains { $0 === region }
      if !isDamaged { log.record(.absent, region: region.name, object: name) }
      let debt = Debt(region: region.name, object: name)
      do throws(TidemarkError) {
        if isDamaged { try deleteDamaged(name, region) }
        // Owed before it is repaid: a process that ends here must leave more than a missing copy.
        try debts.record(debt)
        CrashPoint.reach("mend.after-delete")
        let outcome = try region.request { store throws(TidemarkError) in
          try store.create(region.key(name), bytes, deadline: .after(Self.mendLimit))
        }
        try debts.settle(debt)
        if isDamaged && outcome == .exists {
          throw TidemarkError(.storeRefused, "the damaged copy is still there after its deletion")
        }
        log.record(.mended, region: region.name, object: name)
        mended.insert(region.name)
      } catch {
        log.record(.notMended, region: region.name, object: name, detail: error.description)
      }
    }
    return mended
  }

  /// The one deletion outside `expire`: of a copy that was read twice and failed its checks both times, while a copy
  /// that passed them is in hand. Where deletion isn't allowed, the damage stays and is reported.
  private func deleteDamaged(_ name: ObjectName, _ region: Region) throws(TidemarkError) {
    let failures = try region.request { store throws(TidemarkError) in
      try store.delete([region.key(name)], deadline: .after(readLimits.perRegion))
    }
    if let failure = failures.first {
      throw TidemarkError(.storeRefused, "the damaged copy can't be replaced", cause: failure.reason)
    }
  }
}

extension TidemarkError {
  /// Whether the store answered, and another attempt has the same answer unless somebody changes something.
  var isDenial: Bool { [.accessDenied, .credentialsMissing, .bucketMissing].contains(code) }
}
