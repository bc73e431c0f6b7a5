// `backup`: takes a backup, shows its progress, and prints what it did.
import ArgumentParser
import BackupRepository
import BaseBackup
import Diagnostics
import Glibc
import Logging
import Synchronization
import SystemSupport

struct BackupCommand: TidemarkCommand {
  static let configuration = CommandConfiguration(
    commandName: "backup", abstract: "Take a backup; blocks that the previous one has are not stored again.")
  @OptionGroup var global: GlobalOptions
  @Flag(help: "Store every block anew.") var full = false
  @Flag(help: "Print how long each stage worked and waited.") var profile = false

  struct Report: Codable {
    var label: String
    var systemIdentifier: String
    var startLSN: String
    var stopLSN: String
    var timeline: UInt32
    var databaseBytes: Int64
    var newBytes: Int64
    var storedBytes: Int64
    var rewrittenBytes: Int64
    var retiredPacks: Int
    var fileCount: Int
    var seconds: Double
    var walWaitSeconds: Double
    var regions: [String: RegionReport]
    var events: [RegionEvent]
    var remarks: [String]
    var suspect: String?
    var profile: [StageProfile]
  }

  func execute() throws(TidemarkError) -> Int32 {
    let context = try CommandContext(global)
    let repository = try context.repository()
    var options = BackupOptions(connection: try context.connection)
    options.isFull = full
    options.attachments = context.configuration.attachments
    options.workerCount = context.configuration.limits.workers ?? 0
    options.memoryByteCount = context.configuration.limits.memory
    options.walWaitLimit = context.configuration.limits.walWait
    options.uploadRateMax = context.configuration.limits.uploadRate
    options.toolVersion = Version.text
    let meter = ProgressMeter(context.logger)
    let result = try BackupRun(repository, options) { meter.show($0) }.run()
    meter.end()
    let manifest = result.manifest
    CommandRecord.current.note(result)
    for remark in result.remarks { context.logger.warning("backup: \(remark)") }
    let report = Report(
      label: manifest.label, systemIdentifier: manifest.systemIdentifier, startLSN: manifest.startLSN,
      stopLSN: manifest.stopLSN, timeline: manifest.timeline, databaseBytes: manifest.databaseBytes,
      newBytes: manifest.newBytes, storedBytes: manifest.storedBytes,
      rewrittenBytes: result.rewrittenBytes, retiredPacks: result.retiredPacks, fileCount: manifest.fileCount,
      seconds: result.seconds, walWaitSeconds: result.walWaitSeconds, regions: RegionReport.all(repository),
      events: repository.regions.log.events, remarks: result.remarks, suspect: manifest.suspect,
      profile: result.profile)
    try context.print(report) {
      """
      backup \(report.label) is complete: \(Size(report.databaseBytes)) in \(report.fileCount) files, \
      \(Size(report.newBytes)) new, \(Size(report.storedBytes)) stored in each region, \(Seconds(report.seconds))
      WAL from \(report.startLSN) to \(report.stopLSN) on timeline \(report.timeline)

      """
        + (report.retiredPacks == 0
          ? ""
          : "\(Size(report.rewrittenBytes)) of the new is stored anew out of \(report.retiredPacks) packs of which little "
            + "is alive\n")
        + (profile ? ProfileTable(report.profile).text : "")
    }
    if let suspect = manifest.suspect {
      throw TidemarkError(
        .checksumFailures, "the server found damaged pages; the backup is kept and marked as suspect",
        object: manifest.label, cause: suspect, kept: "this backup and the earlier ones",
        next: "find the damaged relations in the server's log; restore them from an earlier backup")
    }
    return 0
  }
}

/// Bytes for people.
struct Size: CustomStringConvertible {
  let bytes: Int64
  init(_ bytes: Int64) { self.bytes = bytes }
  var description: String {
    var value = Double(bytes)
    for unit in ["B", "KiB", "MiB", "GiB"] {
      if value < 1024 { return unit == "B" ? "\(bytes) B" : "\((value * 10).rounded() / 10) \(unit)" }
      value /= 1024
    }
    return "\((value * 10).rounded() / 10) TiB"
  }
}

/// Seconds for people.
struct Seconds: CustomStringConvertible {
  let seconds: Double
  init(_ seconds: Double) { self.seconds = seconds }
  var description: String { "\((seconds * 100).rounded() / 100) s" }
}

/// A progress bar on a terminal; otherwise a line every ten seconds.
final class ProgressMeter: Sendable {
  private let isTerminal = isatty(2) == 1
  private let begin = ContinuousClock.now
  private let state = Mutex<(shown: ContinuousClock.Instant?, width: Int)>((nil, 0))
  private let logger: Logger

  init(_ logger: Logger) { self.logger = logger }

  func show(_ progress: BackupProgress) {
    let seconds = max(0.001, (ContinuousClock.now - begin).seconds)
    let rate = Double(progress.byteCount) / seconds
    var line = "\(progress.stage.rawValue) \(Size(progress.byteCount))"
    if progress.estimatedByteCount > 0, progress.byteCount > 0 {
      let share = min(1, Double(progress.byteCount) / Double(progress.estimatedByteCount))
      let filled = Int(share * 30)
      let left = Double(max(0, progress.estimatedByteCount - progress.byteCount)) / rate
      line += " [\(String(repeating: "#", count: filled))\(String(repeating: "-", count: 30 - filled))]"
      line +=
        " \(Int(share * 100)) % of \(Size(progress.estimatedByteCount)), \(Size(Int64(rate)))/s, \(Int(left)) s left"
    }
    show(line)
  }

  func show(_ line: String) {
    let interval = isTerminal ? Duration.milliseconds(200) : .seconds(10)
    state.withLock { state in
      if let shown = state.shown, ContinuousClock.now - shown < interval { return }
      state.shown = .now
      if isTerminal {
        StandardErrorLog.write("\r" + line + String(repeating: " ", count: max(0, state.width - line.count)))
        state.width = line.count
      } else {
        logger.notice("progress", metadata: ["state": "\(line)"])
      }
    }
  }

  func end() { if isTerminal { StandardErrorLog.write("\n") } }
}
