// Which backups stay: tables of backups and policies, without a store.
import Configuration
import Foundation
import PostgresFormats
import Testing

@testable import Retention

/// 2026-11-24 00:00 UTC, a Tuesday.
private let today = 1_795_478_400.0
private let day = 86400.0

/// Backups named by their number, a day apart, the last one taken today; those of `suspect` are.
private func daily(_ count: Int, suspect: Set<Int> = []) -> [RetentionCandidate] {
  (0..<count).map { index in
    RetentionCandidate(
      label: "\(index)", timeline: TimelineID(1), start: LSN(rawValue: UInt64(index + 1) << 24),
      stop: LSN(rawValue: UInt64(index + 1) << 24 + 1000), stopTime: today - Double(count - 1 - index) * day,
      isSuspect: suspect.contains(index))
  }
}

private func policy(_ change: (inout RetentionPolicy) -> Void) -> RetentionPolicy {
  var policy = RetentionPolicy()
  policy.newest = 1
  change(&policy)
  return policy
}

private func kept(_ decisions: [BackupDecision]) -> [String] {
  decisions.filter { !$0.expires }.map(\.candidate.label)
}

@Suite("Which backups stay") struct BackupRetentionTests {
  struct Case: Sendable, CustomTestStringConvertible {
    var testDescription: String
    var policy: RetentionPolicy
    var candidates: [RetentionCandidate]
    var kept: [String]

    init(_ name: String, _ policy: RetentionPolicy, _ candidates: [RetentionCandidate], _ kept: [Int]) {
      testDescription = name
      self.policy = policy
      self.candidates = candidates
      self.kept = kept.map(String.init)
    }
  }

  static let cases = [
    Case("by number", policy { $0.count = 3 }, daily(6), [3, 4, 5]),
    Case("more than there are", policy { $0.count = 9 }, daily(2), [0, 1]),
    Case(
      "a suspect one takes no good one's place", policy { $0.count = 2 }, daily(5, suspect: [3]), [2, 3, 4]),
    Case("a suspect one behind the oldest kept goes", policy { $0.count = 2 }, daily(5, suspect: [1]), [3, 4]),
    Case(
      "by age: the one before the window too", policy { $0.window = .seconds(2 * 86400 + 3600) }, daily(6),
      [2, 3, 4, 5]),
    Case(
      "one exactly at the window's beginning suffices", policy { $0.window = .seconds(2 * 86400) }, daily(6), [3, 4, 5]),
    Case(
      "a suspect one can't begin the window", policy { $0.window = .seconds(2 * 86400 + 3600) },
      daily(6, suspect: [2]), [1, 2, 3, 4, 5]),
    Case(
      "the newest stay though all are too old",
      policy {
        $0.window = .seconds(1); $0.newest = 2
      }, daily(4), [2, 3]),
    Case(
      "the newest good one stays behind suspect ones", policy { $0.window = .seconds(1) },
      daily(4, suspect: [2, 3]), [1, 2, 3]),
    Case("days", policy { $0.daily = 2 }, daily(5), [3, 4]),
    Case("weeks end on Sunday", policy { $0.weekly = 3 }, daily(16), [6, 13, 15]),
    Case("months", policy { $0.monthly = 2 }, daily(40), [15, 39]),
    Case("years", policy { $0.yearly = 2 }, daily(400), [71, 399]),
    Case(
      "rules add up",
      policy {
        $0.count = 2; $0.monthly = 2
      }, daily(40), [15, 38, 39]),
    Case("a month's good one is preferred", policy { $0.monthly = 2 }, daily(40, suspect: [15]), [14, 39]),
  ]

  @Test("a policy keeps what it says", arguments: cases) func table(_ example: Case) {
    let decisions = BackupRetention.decide(example.policy, example.candidates, now: today)
    #expect(kept(decisions) == example.kept)
    // Each decision is explained, and the newest good backup is never given up.
    #expect(
      decisions.allSatisfy { !$0.explanations.isEmpty && ($0.rules.isEmpty || $0.rules.count == $0.explanations.count) }
    )
    if let newest = example.candidates.last(where: { !$0.isSuspect }) {
      #expect(kept(decisions).contains(newest.label))
    }
  }

  @Test("the newest are those of the newest timeline, whatever the clocks said") func order() {
    // After a failover to a host whose clock is years behind.
    var candidates = daily(3)
    candidates.append(
      RetentionCandidate(
        label: "after", timeline: TimelineID(2), start: LSN(rawValue: 100), stop: LSN(rawValue: 200), stopTime: 1000,
        isSuspect: false))
    let decisions = BackupRetention.decide(policy { $0.count = 1 }, candidates, now: today)
    #expect(kept(decisions) == ["after"])
  }

  @Test("without a good backup none is given up") func lastResort() {
    let decisions = BackupRetention.decide(policy { $0.count = 1 }, daily(3, suspect: [0, 1, 2]), now: today)
    #expect(kept(decisions) == ["0", "1", "2"])
    #expect(decisions.allSatisfy { $0.rules == [.lastResort] })
  }

  @Test("held backups stay, and what a running one builds on") func holds() {
    let decisions = BackupRetention.decide(
      policy { $0.count = 1 }, daily(5), holds: ["1": "audit"], running: ["2": "20261124T000000Z-0000"], now: today)
    #expect(kept(decisions) == ["1", "2", "4"])
    #expect(decisions[1].explanations == ["held: audit"])
    #expect(decisions[2].rules == [.runningBackup])
    #expect(!decisions[1].isContinuous && decisions[4].isContinuous)
  }

  @Test("times that no calendar has break nothing", arguments: [Double.nan, .infinity, -.infinity, -1e300, 0, -1])
  func strangeTimes(time: Double) {
    var candidates = daily(2)
    candidates[0].stopTime = time
    let decisions = BackupRetention.decide(
      policy {
        $0.daily = 1; $0.weekly = 1; $0.monthly = 1; $0.yearly = 1; $0.window = .seconds(1)
      }, candidates, now: today)
    #expect(kept(decisions).contains("1"))
  }

  @Test("weeks begin on Monday, months and leap years are the calendar's") func calendar() {
    #expect(CalendarPeriod.day(today).name == "2026-11-24")
    #expect(CalendarPeriod.week(today).name == "the week of 2026-11-23")
    #expect(CalendarPeriod.week(today - 2 * day).name == "the week of 2026-11-16")
    #expect(CalendarPeriod.day(951_782_400).name == "2000-02-29")
    #expect(CalendarPeriod.month(951_782_400 + day).name == "2000-03")
    #expect(CalendarPeriod.day(-1).name == "1969-12-31")
    #expect(CalendarPeriod.year(-1).number == 1969)
  }
}

@Suite("Which WAL stays") struct WALRetentionTests {
  private func decision(_ label: String, _ timeline: UInt32, _ start: UInt64, _ stop: UInt64, _ rule: RetentionRule?)
    -> BackupDecision
  {
    BackupDecision(
      candidate: RetentionCandidate(
        label: label, timeline: TimelineID(timeline), start: LSN(rawValue: start << 24),
        stop: LSN(rawValue: stop << 24), stopTime: 0, isSuspect: false),
      rules: rule.map { [$0] } ?? [])
  }

  private func name(_ timeline: UInt32, _ number: UInt32) -> WALFileName {
    .segment(WALSegmentName(timeline: TimelineID(timeline), log: 0, segment: number))
  }

  private func kept(_ retention: WALRetention, _ timeline: UInt32) -> [UInt32] {
    (0..<20).filter { retention.reason(name(timeline, $0)) != nil }
  }

  @Test("own WAL of every backup, and all from the oldest that promises continuity") func oneTimeline() {
    let retention = WALRetention(
      [
        decision("gone", 1, 1, 2, nil), decision("month", 1, 3, 5, .monthly), decision("gone", 1, 6, 7, nil),
        decision("base", 1, 9, 10, .window), decision("new", 1, 14, 15, .newest),
      ], histories: [:], segmentSize: { _ in .standard })
    // The stop LSN is the end of the segment before, so that one is the last that is needed.
    #expect(kept(retention, 1) == [3, 4] + Array(9..<20))
    #expect(retention.continuousFrom.map(\.segment) == [9])
    #expect(retention.reason(.partial(WALSegmentName(timeline: TimelineID(1), log: 0, segment: 8))) == nil)
    #expect(
      retention.reason(.backupHistory(WALSegmentName(timeline: TimelineID(1), log: 0, segment: 3), offset: 40)) != nil)
    #expect(retention.reason(.history(TimelineID(7))) != nil)
  }

  @Test("timelines that branched off behind the base stay, dead branches before it go") func timelines() throws {
    // 2 left 1 at segment 4, 3 left 1 at segment 8, 4 left 3 at segment 12; the base is on 1 from 6 to 7.
    func history(_ timeline: UInt32, _ entries: [(UInt32, UInt64)]) throws -> TimelineHistory {
      try TimelineHistory(
        timeline: TimelineID(timeline),
        entries: entries.map { .init(timeline: TimelineID($0), switchLSN: LSN(rawValue: $1 << 24), reason: "") })
    }
    let histories = [
      TimelineID(2): try history(2, [(1, 4)]), TimelineID(3): try history(3, [(1, 8)]),
      TimelineID(4): try history(4, [(1, 8), (3, 12)]),
    ]
    let retention = WALRetention(
      [decision("base", 1, 6, 7, .count)], histories: histories, segmentSize: { _ in .standard })
    #expect(kept(retention, 1) == Array(6..<20))
    #expect(kept(retention, 2) == [])
    #expect(kept(retention, 3).count == 20 && kept(retention, 4).count == 20)
    // A timeline of which nothing is known stays.
    #expect(kept(retention, 5).count == 20)
    // A base on the newest timeline frees its ancestors.
    let later = WALRetention(
      [decision("old", 1, 2, 3, .hold), decision("base", 4, 13, 14, .count)], histories: histories,
      segmentSize: { _ in .standard })
    #expect(kept(later, 1) == [2])
    #expect(kept(later, 3) == [])
    #expect(kept(later, 4) == Array(13..<20))
  }

  @Test("without a backup that promises continuity all WAL stays") func nothingToJudgeBy() {
    let none = WALRetention([], histories: [:], segmentSize: { _ in .standard })
    #expect(kept(none, 1).count == 20)
    let held = WALRetention([decision("a", 1, 5, 6, .hold)], histories: [:], segmentSize: { _ in .standard })
    #expect(kept(held, 1).count == 20)
  }
}
