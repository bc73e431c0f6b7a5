// Decides which backups are kept, with the reason for each: pure, without a clock or a store.
//
// Backups are ordered by timeline and stop LSN, as their catalogue is: a clock decides ages, never which backup is the
// newest. The newest good ones are kept whatever the policy says, and without a good one nothing is given up.
import Configuration
import PostgresFormats

/// A backup as retention sees it.
package struct RetentionCandidate: Sendable, Equatable {
  package var label: String
  package var timeline: TimelineID
  package var start: LSN
  package var stop: LSN
  /// Seconds since 1970, by the clock of the host that took it.
  package var stopTime: Double
  /// Whether the server reported damaged pages.
  package var isSuspect: Bool

  package init(label: String, timeline: TimelineID, start: LSN, stop: LSN, stopTime: Double, isSuspect: Bool) {
    self.label = label
    self.timeline = timeline
    self.start = start
    self.stop = stop
    self.stopTime = stopTime
    self.isSuspect = isSuspect
  }
}

/// Why a backup is kept.
package enum RetentionRule: String, Sendable, Codable, CaseIterable {
  case newest, count, window, daily, weekly, monthly, yearly, hold
  /// A running backup refers to its packs.
  case runningBackup = "running-backup"
  /// There is no good backup that could take its place.
  case lastResort = "last-resort"

  /// Whether recovery from this backup to any later moment is promised, so that the WAL after it is kept too.
  var promisesContinuity: Bool {
    switch self {
    case .newest, .count, .window, .lastResort: true
    case .daily, .weekly, .monthly, .yearly, .hold, .runningBackup: false
    }
  }
}

/// What is decided about one backup.
package struct BackupDecision: Sendable, Equatable {
  package var candidate: RetentionCandidate
  /// Ascending; empty when the backup expires.
  package var rules: [RetentionRule] = []
  /// For people, one for each rule; why it expires otherwise.
  package var explanations: [String] = []
  package var expires: Bool { rules.isEmpty }
  package var isContinuous: Bool { rules.contains { $0.promisesContinuity } }
}

package enum BackupRetention {
  /// Decides about `candidates`, which are ordered by timeline and stop LSN.
  /// - Parameters:
  ///   - holds: why, by label.
  ///   - running: what running backups build on: label of the running one, by label.
  ///   - now: seconds since 1970.
  package static func decide(
    _ policy: RetentionPolicy, _ candidates: [RetentionCandidate], holds: [String: String] = [:],
    running: [String: String] = [:], now: Double
  ) -> [BackupDecision] {
    var decisions = candidates.map { BackupDecision(candidate: $0) }
    func keep(_ index: Int, _ rule: RetentionRule, _ explanation: String) {
      if !decisions[index].rules.contains(rule) {
        decisions[index].rules.append(rule)
        decisions[index].explanations.append(explanation)
      }
    }
    let good = candidates.indices.filter { !candidates[$0].isSuspect }
    for (rank, index) in good.reversed().prefix(max(1, policy.newest)).enumerated() {
      keep(index, .newest, "number \(rank + 1) of the \(max(1, policy.newest)) newest good ones, which always stay")
    }
    if let count = policy.count {
      for (rank, index) in good.reversed().prefix(count).enumerated() {
        keep(index, .count, "number \(rank + 1) of \(count)")
      }
      // A suspect backup takes no good one's place, and goes with the good ones around it.
      if let oldest = good.reversed().prefix(count).last {
        for index in candidates.indices where candidates[index].isSuspect && index > oldest {
          keep(index, .count, "suspect, and newer than the oldest that is kept by number")
        }
      }
    }
    if let window = policy.window { keepWindow(window, candidates, good, now, keep) }
    keepPeriods(policy, candidates, keep)
    for index in candidates.indices {
      if let reason = holds[candidates[index].label] {
        keep(index, .hold, "held\(reason.isEmpty ? "" : ": \(reason)")")
      }
      if let label = running[candidates[index].label] {
        keep(index, .runningBackup, "the running backup \(label) builds on it")
      }
      if good.isEmpty { keep(index, .lastResort, "there is no backup without damaged pages") }
    }
    for index in decisions.indices where decisions[index].expires {
      decisions[index].explanations = ["no rule keeps it"]
    }
    return decisions
  }

  /// Everything that ended within the window, and what reaches back to its beginning: the newest good backup that ended
  /// before it, with all that come after that one.
  private static func keepWindow(
    _ window: Duration, _ candidates: [RetentionCandidate], _ good: [Int], _ now: Double,
    _ keep: (Int, RetentionRule, String) -> Void
  ) {
    let begin = now - Double(window.components.seconds)
    let base = good.last { candidates[$0].stopTime <= begin }
    for index in candidates.indices {
      if candidates[index].stopTime > begin {
        keep(index, .window, "it ended within the window")
      } else if index == base {
        keep(index, .window, "the window's first moment is recovered from it")
      } else if let base, index > base {
        keep(index, .window, "it comes after the one from which the window's first moment is recovered")
      }
    }
  }

  private static func keepPeriods(
    _ policy: RetentionPolicy, _ candidates: [RetentionCandidate], _ keep: (Int, RetentionRule, String) -> Void
  ) {
    let rules: [(RetentionRule, Int, (Double) -> CalendarPeriod)] = [
      (.daily, policy.daily, CalendarPeriod.day), (.weekly, policy.weekly, CalendarPeriod.week),
      (.monthly, policy.monthly, CalendarPeriod.month), (.yearly, policy.yearly, CalendarPeriod.year),
    ]
    for (rule, count, period) in rules where count > 0 {
      // For each period its newest good backup, or the newest at all where none is good.
      var chosen: [CalendarPeriod: Int] = [:]
      for index in candidates.indices {
        let found = period(candidates[index].stopTime)
        if let before = chosen[found], !candidates[before].isSuspect, candidates[index].isSuspect { continue }
        chosen[found] = index
      }
      for (found, index) in chosen.sorted(by: { $0.key.number > $1.key.number }).prefix(count) {
        keep(index, rule, "the last one of \(found.name)")
      }
    }
  }
}
