// What a standby must not take from the archive: the segment in which its way to a newer timeline leaves the older one,
// under the older one's name. A leader that died leaves such a segment unfinished; when it is recovered (Patroni does that
// before pg_rewind), PostgreSQL finishes and archives it, with records that only the dead branch has. Until the new leader
// has filled and archived its own copy, a standby that asks finds the dead branch's alone, and replays it beyond the fork,
// whether it knows of the new timeline yet or not (`WaitForWALToBecomeAvailable` asks the archive before it looks for
// newer histories, `XLogFileReadAnyTLI` falls back to the parent's segment). No later WAL fits then: it stands still
// until it is rewound or made anew. Without that segment it streams, or waits for the new leader's.
import BackupRepository
import Diagnostics
import Glibc
import ObjectStorage
import PostgresFormats
import SystemSupport

package struct StandbyPath: Sendable {
  /// How the standby's way leaves a segment.
  package struct Fork: Sendable, Equatable {
    /// The timeline that it follows.
    package var followed: TimelineID
    /// Where the segment's timeline is left.
    package var switchLSN: LSN
  }

  /// How long the regions are asked for a newer history: the segment comes meanwhile, and a standby that catches up must
  /// not wait for a dead region each time.
  private static let lookLimit = Duration.seconds(2)
  /// Of the server's program that tells a setting.
  private static let settingLimit = Duration.seconds(20)
  private let repository: Repository
  private let systemIdentifier: SystemIdentifier
  private let dataDirectory: String

  package init(_ repository: Repository, systemIdentifier: SystemIdentifier, dataDirectory: String) {
    self.repository = repository
    self.systemIdentifier = systemIdentifier
    self.dataDirectory = dataDirectory
  }

  /// The fork in `segment`, where the newest timeline that PostgreSQL would follow from there left the segment's
  /// timeline there, and the standby hasn't passed the fork on the old one. `nil` for a server that was told to stay on
  /// a timeline, and for segments behind the fork's: who asks for them has passed it.
  ///
  /// Whatever can't be found out decides nothing: the segment is served.
  package func fork(in segment: WALSegmentName) -> Fork? {
    // Without the control file it isn't known whether the standby has passed the fork, and what isn't known decides
    // nothing: the segment is served. Half-written ones were read again.
    guard let history = known(from: segment.timeline) ?? archived(from: segment.timeline),
      let switchLSN = history.switchLSN(of: segment.timeline),
      let control = try? ControlFile(rereading: { () throws(TidemarkError) in
        try readFile("\(dataDirectory)/global/pg_control", limit: 64 << 10)
      }),
      segment == WALSegmentName(timeline: segment.timeline, containing: switchLSN, size: control.segmentSize)
    else { return nil }
    let hasPassed = control.minimumRecoveryTimeline == segment.timeline && control.minimumRecoveryEnd > switchLSN
    guard !hasPassed, followsTheNewest else { return nil }
    return Fork(followed: history.timeline, switchLSN: switchLSN)
  }

  /// The newest timeline that descends from `older` and whose history the standby has. It can't leave `older` elsewhere
  /// any more: PostgreSQL goes on to descendants of what it follows only.
  private func known(from older: TimelineID) -> TimelineHistory? {
    let directory = "\(dataDirectory)/pg_wal"
    // A directory that can't be listed tells of no history: the archive is asked then.
    let newer = ((try? directoryEntries(directory)) ?? []).compactMap { (text) -> TimelineID? in
      guard case .history(let timeline) = try? WALFileName(text: text), timeline > older else { return nil }
      return timeline
    }
    for timeline in newer.sorted(by: >) {
      // What can't be read is no history that PostgreSQL follows.
      if let bytes = try? readFile("\(directory)/\(timeline.historyFileName)", limit: TimelineHistory.byteCountMax),
        let history = try? TimelineHistory(timeline: timeline, parsing: bytes), history.switchLSN(of: older) != nil
      {
        return history
      }
    }
    return nil
  }

  /// The newest archived timeline, as PostgreSQL looks for it (`findNewestTimeLine`): one number after the other.
  private func archived(from older: TimelineID) -> TimelineHistory? {
    var newest: TimelineID?
    var next = TimelineID(older.rawValue &+ 1)
    while isArchived(next) {
      newest = next
      next = TimelineID(next.rawValue &+ 1)
    }
    // A history that no region gives decides nothing.
    guard let newest else { return nil }
    let fetch = WALFetch(repository, systemIdentifier: systemIdentifier)
    guard let bytes = try? fetch.read(.history(newest)) else { return nil }
    return try? TimelineHistory(timeline: newest, parsing: bytes)
  }

  /// Whether some region that isn't failing has this timeline's history.
  private func isArchived(_ timeline: TimelineID) -> Bool {
    let name = repository.layout.lineage(systemIdentifier).wal(.history(timeline))
    let looks = repository.regions.byPreference.filter { $0.health.failingFor == nil }.map { region in
      WorkerThread("look-\(region.name)") {
        try region.request { store throws(TidemarkError) in
          try store.information(region.key(name), deadline: .after(Self.lookLimit))
        } != nil
      }
    }
    // Every thread is joined, whatever the first says.
    return looks.map { (try? $0.join()) ?? false }.contains(true)
  }

  /// Whether `recovery_target_timeline` says so, or can't be read: it is PostgreSQL's default. The server's own program
  /// reads its configuration, with the options that the server was started with.
  private var followsTheNewest: Bool {
    guard let bytes = try? readFile("\(dataDirectory)/postmaster.opts", limit: 1 << 20) else { return true }
    // postgres "-D" "/srv/data", as `CreateOptsFile` writes it, which escapes nothing.
    let words = String(decoding: bytes, as: UTF8.self).split(separator: "\n").first?.split(separator: " \"") ?? []
    guard let program = words.first else { return true }
    let options = words.dropFirst().map { String($0.hasSuffix("\"") ? $0.dropLast() : $0) }
    // Where the server was started from isn't known: the last directory counts.
    let outcome = try? ChildProcess.run(
      String(program), ["-C", "recovery_target_timeline"] + options + ["-D", "."], workingDirectory: dataDirectory,
      deadline: .after(Self.settingLimit))
    guard let outcome, outcome.succeeded else { return true }
    return outcome.outputText.split(separator: "\n").first == "latest"
  }
}
