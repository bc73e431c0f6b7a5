// What a drill's times mean: how they compare with earlier ones, which phase decides the recovery time, and what would
// shorten it, in numbers that come from this drill alone.
import BackupRepository
import Foundation
import PointInTimeRestore
import PostgresFormats

struct DrillComparison {
  /// Differences below this share of the earlier time are noise.
  private static let noise = 0.1

  let report: DrillReport
  /// Oldest first, of the same lineage.
  let earlier: [DrillReport]

  /// The comparison with the last drill that restored from the same place, and with all of them.
  var lines: [String] {
    let alike = earlier.filter { $0.rtoSeconds != nil && $0.region == report.region }
    guard let rto = report.rtoSeconds else { return [] }
    guard let last = alike.last, let lastRTO = last.rtoSeconds else {
      return ["This is the first drill \(place); later ones are compared with it."]
    }
    var lines = [
      "RTO \(Self.seconds(rto)) after \(Self.seconds(lastRTO)) on \(DrillPage.moment(last.began)) \(place): \(Self.change(lastRTO, rto))."
    ]
    let differences = report.phases.filter(\.countsForRTO).compactMap { phase -> (String, Double)? in
      guard let before = last.phases.first(where: { $0.name == phase.name }) else { return nil }
      return (phase.name, phase.seconds - before.seconds)
    }
    if let most = differences.max(by: { abs($0.1) < abs($1.1) }), abs(most.1) > lastRTO * Self.noise {
      lines.append(
        "The largest difference is in the phase '\(most.0)': \(Self.seconds(abs(most.1))) "
          + (most.1 > 0 ? "longer." : "shorter."))
    }
    let times = (alike.compactMap(\.rtoSeconds) + [rto]).sorted()
    if times.count > 2 {
      lines.append(
        "Of \(times.count) drills \(place): shortest \(Self.seconds(times[0])), "
          + "median \(Self.seconds(times[times.count / 2])), longest \(Self.seconds(times[times.count - 1])).")
    }
    return lines
  }

  private var place: String { report.region.map { "from region \($0)" } ?? "from whichever region answers" }

  /// What would shorten the recovery: about its longest phase, since the others can't give more.
  var advice: [String] {
    guard let rto = report.rtoSeconds, rto > 0, let phase = report.dominantPhase else { return [] }
    let share = Int((phase.seconds / rto * 100).rounded())
    var lines = ["The phase '\(phase.name)' took \(Self.seconds(phase.seconds)) of \(Self.seconds(rto)) (\(share) %)."]
    switch phase.name {
    case "plan":
      lines.append(
        "It lists the regions and reads headers: nearer regions and fewer segments since the backup shorten it.")
    case "files":
      let rate = Double(phase.bytes) / max(phase.seconds, 0.001)
      lines.append(
        "Files came at \(Self.bytes(rate))/s: a nearer region, a faster line or disk, and more workers "
          + "(limits.workers) shorten it in proportion.")
    case "sync": lines.append("The files had to reach the disk: a faster one shortens it.")
    case "replay": lines += replayAdvice(phase, rto)
    case "start":
      lines.append("The server needed it to come up: preloaded libraries and a large shared_buffers take time.")
    default: break
    }
    return lines
  }

  /// More frequent backups are what shortens a replay; how frequent follows from the measured rates.
  private func replayAdvice(_ phase: DrillReport.Phase, _ rto: Double) -> [String] {
    guard report.walSegments > 0 else { return [] }
    var lines = [
      "\(report.walSegments) segments were replayed, \(Self.seconds(phase.seconds / Double(report.walSegments))) each: "
        + "a backup closer to the target shortens it in proportion."
    ]
    if let objective = report.rtoObjectiveSeconds, rto > objective, let age = backupAge, age > 0 {
      let allowed = objective - (rto - phase.seconds)
      if allowed > 0 {
        lines.append(
          "To meet the objective of \(Self.seconds(objective)) at this rate of WAL, take a backup at least every "
            + "\(Self.seconds(age * allowed / phase.seconds)).")
      } else {
        lines.append("No backup frequency meets the objective: the other phases alone take longer.")
      }
    }
    return lines
  }

  /// Seconds from the backup's end to the moment that was reached.
  private var backupAge: Double? {
    guard let stop = report.backup?.stopTime, let reached = report.reached?.time,
      // Times that this program wrote; without one the page says nothing about the age.
      let from = try? RecoveryTime(text: stop), let to = try? RecoveryTime(text: reached)
    else { return nil }
    return Double(to.microseconds - from.microseconds) / 1_000_000
  }

  private static func change(_ before: Double, _ after: Double) -> String {
    let share = (after - before) / max(before, 0.001)
    if abs(share) < noise { return "about the same" }
    return "\(Int(abs(share) * 100)) % \(share > 0 ? "slower" : "faster")"
  }

  static func seconds(_ seconds: Double) -> String {
    if seconds == 0 { return "0 s" }
    if seconds < 0.9995 { return "\(max(1, Int((seconds * 1000).rounded()))) ms" }
    if seconds < 59.95 { return String(format: "%.1f s", seconds) }
    let whole = Int(seconds.rounded())
    return whole < 3600
      ? "\(whole / 60) min \(whole % 60) s" : "\(whole / 3600) h \(whole / 60 % 60) min"
  }

  static func bytes(_ bytes: Double) -> String {
    var value = bytes
    for unit in ["B", "KiB", "MiB", "GiB"] {
      if value < 1024 { return unit == "B" ? "\(Int(value)) B" : String(format: "%.1f ", value) + unit }
      value /= 1024
    }
    return String(format: "%.1f TiB", value)
  }
}
