// What protects a running backup, whose manifest doesn't stand yet, from an `expire` on any host: a small object that
// says which backup it builds on and for how long that holds. Longer backups renew it, by a further object.
//
// The lease is created before the previous manifest is looked at for the last time, and `expire` looks at leases again
// after it deleted manifests and before it deletes packs: one of the two always sees the other.
import Diagnostics
import Foundation
import PostgresFormats
import Synchronization
import SystemSupport

/// The content of a lease, as JSON.
package struct BackupLeaseContent: Sendable, Codable, Equatable {
  package var format = 1
  package var label: String
  /// The backup whose packs the running one refers to.
  package var predecessor: String?
  /// Backups without a manifest whose packs it refers to as well.
  package var interrupted: [String]?
  /// From the moment at which the store says that the lease was written.
  package var seconds: Double

  package init(label: String, predecessor: String?, interrupted: [String] = [], seconds: Double) {
    self.label = label
    self.predecessor = predecessor
    self.interrupted = interrupted.isEmpty ? nil : interrupted
    self.seconds = seconds
  }
}

package final class BackupLease: Sendable {
  /// The usual length. A backup that was killed protects what it referred to for so long.
  package static let usualLength = Duration.seconds(86400)

  private struct State {
    var number = 0
    /// When the lease that holds was asked for: the store's own time of it is later.
    var since: ContinuousClock.Instant?
    var isReleased = false
  }

  private let repository: Repository
  private let layout: LineageLayout
  private let label: BackupLabelName
  private let predecessor: BackupLabelName?
  private let interrupted: [String]
  private let length: Duration
  private let state = Mutex(State())
  private let changed = Condition()
  private let keeper = Mutex<WorkerThread<Void>?>(nil)

  /// Creates the first lease, durably by the policy.
  /// - Throws: what creating an object throws.
  package init(
    _ repository: Repository, _ layout: LineageLayout, _ label: BackupLabelName, predecessor: BackupLabelName?,
    interrupted: [String] = [], length: Duration = BackupLease.usualLength
  ) throws(TidemarkError) {
    self.repository = repository
    self.layout = layout
    self.label = label
    self.predecessor = predecessor
    self.interrupted = interrupted
    self.length = length
    try renew()
    CrashPoint.reach("backup.after-lease")
    let thread = WorkerThread("lease") { [self] in keep() }
    keeper.withLock { $0 = thread }
  }

  /// Ends the renewals. Call it exactly once, also when the backup failed.
  package func release() {
    state.withLock { $0.isReleased = true }
    changed.signal()
    // The keeper throws nothing: a renewal that failed shows in ``check()``.
    if let thread = keeper.withLock({ $0.take() }) { _ = try? thread.join() }
  }

  /// Says whether the lease holds, with a quarter of its length to spare for what is done next.
  /// - Throws: `lease-expired`.
  package func check() throws(TidemarkError) {
    let since = state.withLock { $0.since }
    if let since, ContinuousClock.now - since < length * 3 / 4 { return }
    throw TidemarkError(
      .leaseExpired, "the backup could not renew its lease, so what it refers to may be deleted", object: label.text,
      kept: "the earlier backups", next: "take the backup again")
  }

  private func keep() {
    while !state.withLock({ $0.isReleased }) {
      let ticket = changed.ticket()
      if state.withLock({ $0.isReleased }) { return }
      changed.wait(ticket, until: .after(length / 4))
      if state.withLock({ $0.isReleased }) { return }
      do throws(TidemarkError) { try renew() } catch {
        repository.logger.warning(
          "the backup's lease can't be renewed", metadata: ["label": "\(label)", "cause": "\(error.description)"])
      }
    }
  }

  private func renew() throws(TidemarkError) {
    let asked = ContinuousClock.now
    let number = state.withLock { state in
      state.number += 1
      return state.number
    }
    let content = BackupLeaseContent(
      label: label.text, predecessor: predecessor?.text, interrupted: interrupted, seconds: length.seconds)
    let name = layout.lease(label, number)
    try repository.regions.create(name, try repository.seal(.lease, name, try encodeJSON(content, "the lease")))
    state.withLock { $0.since = asked }
  }
}

/// JSON with sorted keys.
func encodeJSON(_ value: some Encodable, _ what: String) throws(TidemarkError) -> [UInt8] {
  let encoder = JSONEncoder()
  encoder.outputFormatting = [.sortedKeys]
  do { return [UInt8](try encoder.encode(value)) } catch {
    throw TidemarkError(.internalFault, "cannot encode \(what)", cause: "\(error)")
  }
}
