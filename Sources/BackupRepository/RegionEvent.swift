// What happened to regions while a command ran. Every fall-over, mend and debt is kept for the command's report and
// logged when it happens: nothing is mended in silence.
import Logging
import Synchronization

/// Something that an operator should know about a region.
package struct RegionEvent: Sendable, Equatable, Codable {
  package enum Kind: String, Sendable, Codable {
    /// The region couldn't be asked, or refused.
    case failed
    /// An object that another region holds wasn't there.
    case absent
    /// An object's bytes didn't pass their checks.
    case damaged
    /// A missing or damaged object was restored from another region.
    case mended
    /// It could not be restored; the detail says why.
    case notMended = "not-mended"
    /// A copy is owed to the region.
    case debt
    /// A debt was repaid.
    case repaid
    /// The region answers again.
    case recovered
  }
  package var region: String
  package var kind: Kind
  package var object: String?
  package var detail: String?
}

/// The events of one command, in order; the first 10 000 are kept, all are counted and logged.
package final class RegionEventLog: Sendable {
  private static let keptCountMax = 10_000
  private let state = Mutex<(events: [RegionEvent], total: Int)>(([], 0))
  private let logger: Logger

  package init(logger: Logger) { self.logger = logger }

  package func record(_ kind: RegionEvent.Kind, region: String, object: ObjectName? = nil, detail: String? = nil) {
    let event = RegionEvent(region: region, kind: kind, object: object?.text, detail: detail)
    state.withLock {
      $0.total += 1
      if $0.events.count < Self.keptCountMax { $0.events.append(event) }
    }
    var metadata: Logger.Metadata = ["region": "\(region)"]
    if let object { metadata["object"] = "\(object)" }
    if let detail { metadata["detail"] = "\(detail)" }
    switch kind {
    case .mended, .repaid, .recovered: logger.notice("region: \(kind.rawValue)", metadata: metadata)
    case .failed, .absent, .debt, .damaged, .notMended: logger.warning("region: \(kind.rawValue)", metadata: metadata)
    }
  }

  package var events: [RegionEvent] { state.withLock { $0.events } }
  package var total: Int { state.withLock { $0.total } }
}
