// Creating one object in all regions at once, from one buffer.
import Diagnostics
import Glibc
import ObjectStorage
import Synchronization
import SystemSupport

/// How the creation of one object ended.
package struct CreationReport: Sendable, Equatable {
  /// The regions that hold it now, by this creation or an earlier one.
  package var holders: [String] = []
  /// The regions to which a copy is owed.
  package var debtors: [String] = []
  /// The regions that held it before.
  package var existed: [String] = []
}

extension RegionSet {
  /// How often a region that refuses at once is tried again within ``DurabilityPolicy/degradeAfter``.
  private static let refusalRetryInterval = Duration.seconds(1)
  /// How long an object that is already durable by policy waits for the regions that are still at it.
  private static let stragglerGrace = Duration.seconds(2)
  /// What a region that fails gets at least before it counts as down.
  private static let probeLimit = Duration.seconds(2)
  /// How long a region that was down and answers again may take for an object.
  private static let recoveryLimit = Duration.seconds(10)

  /// Creates `name` in every region.
  ///
  /// Returns when the policy's number of regions hold it; or, when others have been failing for longer than
  /// `degrade-after`, one region. What a region lacks is recorded as a debt, durably, before this returns.
  ///
  /// `isSame` is asked about an object that was there before: `true` when it is this one (an earlier attempt whose
  /// answer was lost, or another process's); throwing or `false` refuses the creation.
  /// - Throws: `durability-not-reached` when no region, or not enough regions in time, hold it; what `isSame` throws.
  @discardableResult
  package func create(
    _ name: ObjectName, _ body: ObjectBody, isSame: @escaping @Sendable (Region) throws -> Bool
  ) throws(TidemarkError) -> CreationReport {
    let outcomes = Mutex<[String: Attempt]>([:])
    let changed = Condition()
    let enough = min(policy.required, regions.count)
    // Set when the caller has its answer: what is still running then stops trying.
    let settled = Cancellation()

    // Looked at before anybody answers. Without a healthy region each is tried, whatever is known of it.
    let hasHealthy = regions.contains { $0.health.failingFor == nil }
    let threads = regions.map { region in
      WorkerThread<Void>("put-\(region.name)") { [self] in
        let outcome = createInRegion(
          region, name, body, skipsDown: hasHealthy, settled: settled, isSame: isSame)
        outcomes.withLock { $0[region.name] = outcome }
        changed.signal()
      }
    }
    // Waits for all, but once enough regions hold the object, for the others no longer than the grace.
    var graceEnds = Deadline.never
    while true {
      let ticket = changed.ticket()
      let (finished, holding) = outcomes.withLock { outcomes in
        (outcomes.count, outcomes.values.count { if case .held = $0 { true } else { false } })
      }
      if finished == regions.count { break }
      if holding >= enough, graceEnds.remaining == nil { graceEnds = .after(Self.stragglerGrace) }
      if graceEnds.hasPassed { break }
      changed.wait(ticket, until: graceEnds)
    }
    settled.cancel()
    for thread in threads { try thread.join() }
    CrashPoint.reach("create.before-debts")
    return try settle(name, outcomes.withLock { $0 })
  }

  /// How the attempts in one region ended.
  private enum Attempt: Sendable {
    case held(CreationOutcome)
    /// `isDown`: the region has been failing for `degrade-after`, or failed for all of that time here.
    case failed(TidemarkError, isDown: Bool)
  }

  /// Counts the outcomes, records debts, and decides.
  private func settle(_ name: ObjectName, _ outcomes: [String: Attempt]) throws(TidemarkError) -> CreationReport {
    var report = CreationReport()
    var failures: [(region: Region, error: TidemarkError)] = []
    var isDegraded = true
    for region in regions {
      switch outcomes[region.name] {
      case .held(let outcome):
        report.holders.append(region.name)
        if outcome == .exists { report.existed.append(region.name) }
      case .failed(let error, let isDown):
        if Self.isRefusal(error) { throw error }
        failures.append((region, error))
        isDegraded = isDegraded && isDown
      case nil: preconditionFailure("every thread was joined")
      }
    }
    let enough = min(policy.required, regions.count)
    guard !report.holders.isEmpty, report.holders.count >= enough || isDegraded else {
      throw TidemarkError(
        .durabilityNotReached, "\(report.holders.count) of \(enough) required regions hold the object",
        object: name.text,
        cause: failures.map { "\($0.region.name): \($0.error.description)" }.joined(separator: "; "),
        kept: report.holders.isEmpty ? nil : "the copies in \(report.holders.joined(separator: ", "))",
        next: "'tidemark check' tests each region")
    }
    for failure in failures {
      try debts.record(Debt(region: failure.region.name, object: name))
      log.record(.debt, region: failure.region.name, object: name, detail: failure.error.description)
      report.debtors.append(failure.region.name)
    }
    return report
  }

  /// What no other region and no waiting can change: it must never become a debt.
  private static func isRefusal(_ error: TidemarkError) -> Bool {
    switch error.code {
    case .walConflict, .interrupted, .internalFault, .objectDamaged, .signatureInvalid, .writerNotTrusted,
      .formatVersionUnknown, .repositoryForeign:
      true
    default: false
    }
  }

  /// Creates the object in one region, trying until the region has been failing for `degrade-after`.
  private func createInRegion(
    _ region: Region, _ name: ObjectName, _ body: ObjectBody, skipsDown: Bool, settled: Cancellation,
    isSame: @Sendable (Region) throws -> Bool
  ) -> Attempt {
    let failingFor = region.health.failingFor
    let wasDown = failingFor.map { $0 >= policy.degradeAfter } ?? false
    if wasDown, skipsDown, !(region.health.claimProbe() && answers(region)) {
      return .failed(
        TidemarkError(
          .regionUnreachable,
          "the region has been failing for \(failingFor?.components.seconds ?? 0) s and is not asked now",
          object: region.name, cause: region.health.lastFailure), isDown: true)
    }
    // One that was down gets one attempt: it may answer and still refuse to store anything.
    let patience = wasDown ? Self.recoveryLimit : max(Self.probeLimit, policy.degradeAfter - (failingFor ?? .zero))
    let deadline = Deadline.after(patience).cancelled(by: settled)
    while true {
      do throws(TidemarkError) {
        try Termination.check()
        return .held(try createOnce(region, name, body, settled: settled, deadline: deadline, isSame: isSame))
      } catch {
        if !Self.isRefusal(error) {
          log.record(.failed, region: region.name, object: name, detail: error.description)
          if !wasDown { Self.pause(until: deadline) }
        }
        // Patience is counted here and not by the health's clock of whole seconds, which may fall short by one.
        if Self.isRefusal(error) || wasDown || deadline.hasPassed {
          return .failed(error, isDown: wasDown || !settled.isCancelled)
        }
      }
    }
  }

  /// Whether a region that is known to be down answers at all: one look at the marker. It says nothing about its health,
  /// which a stored object alone restores.
  private func answers(_ region: Region) -> Bool {
    do throws(TidemarkError) {
      _ = try region.store.information(region.key(marker), deadline: .after(.zero))
      return true
    } catch { return false }
  }

  /// Waits for ``refusalRetryInterval``, or less when the deadline passes or is called off.
  private static func pause(until deadline: Deadline) {
    let end = Deadline.after(refusalRetryInterval)
    while !end.hasPassed, !deadline.hasPassed { usleep(20_000) }
  }

  private func createOnce(
    _ region: Region, _ name: ObjectName, _ body: ObjectBody, settled: Cancellation, deadline: Deadline,
    isSame: @Sendable (Region) throws -> Bool
  ) throws(TidemarkError) -> CreationOutcome {
    CrashPoint.reach("create.before-put")
    let wasFailing = region.health.failingFor != nil
    let outcome = try region.request(cancelledBy: settled) { store throws(TidemarkError) in
      try store.create(region.key(name), body, deadline: deadline)
    }
    CrashPoint.reach("create.after-put")
    if wasFailing { log.record(.recovered, region: region.name) }
    if outcome == .exists {
      let same = try mapErrors { try isSame(region) }
      guard same else {
        throw TidemarkError(
          .repositoryForeign, "the region holds another object of this name", object: "\(region.name): \(name)",
          kept: "the object there, unchanged",
          next: "find out who else writes to this prefix")
      }
    }
    return outcome
  }

  /// Creates an object whose name nobody else uses: what is there already must be these bytes.
  @discardableResult
  package func create(_ name: ObjectName, _ body: ObjectBody) throws(TidemarkError) -> CreationReport {
    try create(name, body) { region in
      try region.request { store throws(TidemarkError) in
        body.equals(try store.read(region.key(name), range: nil, deadline: .after(self.readLimits.total)))
      }
    }
  }

  @discardableResult
  package func create(_ name: ObjectName, _ bytes: [UInt8]) throws(TidemarkError) -> CreationReport {
    try create(name, ObjectBody(bytes))
  }
}

/// Runs `body`, whose errors are `TidemarkError`s or faults of ours.
func mapErrors<Result>(_ body: () throws -> Result) throws(TidemarkError) -> Result {
  do { return try body() } catch { throw TidemarkError.wrapping(error) }
}
