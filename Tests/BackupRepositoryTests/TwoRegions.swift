// A repository in two regions whose stores a test scripts.
import Diagnostics
import Envelope
import Glibc
import Logging
import PostgresFormats
import SystemSupport
import TestSupport

@testable import BackupRepository

struct TwoRegions {
  let directory: TemporaryDirectory
  let west = ScriptedStore("west")
  let east = ScriptedStore("east")
  let layout: ClusterLayout
  let name: ObjectName
  /// The object's key in both stores.
  let key: String
  var required = 2
  var degradeAfter = Duration.milliseconds(300)
  var limits = ReadLimits()

  /// - Parameter marked: whether the marker stands in both regions.
  init(marked: Bool = true) throws {
    directory = try TemporaryDirectory()
    layout = try ClusterLayout(cluster: "crm")
    name = try ObjectName("crm/7301/packs/20261124T031500Z-3f9a/00000001")
    key = "tidemark/\(name)"
    limits.perRegion = .milliseconds(400)
    limits.total = .milliseconds(900)
    limits.denial = .milliseconds(300)
    if marked { for store in [west, east] { store.script { $0.objects["tidemark/crm/repository"] = [1] } } }
  }

  var journal: DebtJournal { DebtJournal(stateDirectory: directory.path) }

  /// What a new process would have: only the state directory and the stores are shared between two calls.
  func open() -> RegionSet {
    let regions = [("west", west), ("east", east)].map { name, store in
      Region(name: name, store: store, prefix: "tidemark", health: RegionHealth(path: healthPath(name)))
    }
    return RegionSet(
      regions: regions, policy: DurabilityPolicy(required: required, degradeAfter: degradeAfter), marker: layout.marker,
      debts: journal, log: RegionEventLog(logger: Self.silent), readLimits: limits)
  }

  func repository(_ keys: RepositoryKeys) -> Repository {
    Repository(
      layout: layout, regions: open(), keys: keys, stateDirectory: directory.path, compressionLevel: 1,
      logger: Self.silent)
  }

  /// Leaves behind what a process does that found the region failing `seconds` ago and tried it just now.
  func noteFailing(_ region: String, seconds: Int64) throws {
    try DurableFile.createDirectories("\(directory.path)/health")
    let text = "\(wallClockSeconds() - seconds) region-unreachable\n"
    try DurableFile.write(Array(text.utf8), to: healthPath(region))
  }

  func healthPath(_ region: String) -> String { "\(directory.path)/health/\(region)" }

  static var silent: Logger { Logger(label: "test") { _ in SwiftLogNoOpLogHandler() } }
}

extension RegionSet {
  /// The kinds of events so far, with their regions.
  var happened: [String] { log.events.map { "\($0.region) \($0.kind.rawValue)" } }
}

/// The code of the error that `body` throws; `nil` when it doesn't.
func thrownCode(_ body: () throws -> Void) -> ErrorCode? {
  do { try body() } catch { return TidemarkError.wrapping(error).code }
  return nil
}

/// How long `body` takes.
func timed(_ body: () throws -> Void) rethrows -> Duration {
  let start = ContinuousClock.now
  try body()
  return ContinuousClock.now - start
}
