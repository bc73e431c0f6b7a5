// What a restore remembers beside its directory, so that a later command can go on with it: after a pause at its target,
// after a shutdown there, or after it was killed. It says what was asked for; how far it came, the server's files say.
import Diagnostics
import Foundation
import PostgresFormats
import SystemSupport

package struct RestoreState: Sendable, Codable, Equatable {
  package var format = 1
  package var backup: String
  package var systemIdentifier: String
  /// The timeline that the recovery follows.
  package var timeline: UInt32
  package var targetKind: String
  package var targetValue: String
  package var isExclusive: Bool
  package var port: Int

  static func path(_ sideDirectory: String) -> String { "\(sideDirectory)/restore.json" }

  init(_ plan: RestorePlan, _ request: RestoreRequest, port: Int) {
    backup = plan.backup.label.text
    systemIdentifier = plan.backup.manifest.systemIdentifier
    timeline = plan.targetTimeline.rawValue
    (targetKind, targetValue) =
      switch request.target {
      case .time(let microseconds): ("time", String(microseconds))
      case .lsn(let lsn): ("lsn", lsn.description)
      case .xid(let xid): ("xid", String(xid))
      case .name(let name): ("name", name)
      case .backupEnd: ("backup-end", "")
      case .latest: ("latest", "")
      }
    isExclusive = request.isExclusive
    self.port = port
  }

  /// - Throws: `usage` where no restore of this program is.
  package init(beside directory: String) throws(TidemarkError) {
    let path = Self.path("\(directory).tidemark")
    guard fileExists(path) else {
      throw TidemarkError(
        .usage, "there is no restore to go on with", object: directory, cause: "\(path) isn't there",
        kept: "everything there, unchanged", next: "restore into an empty directory")
    }
    do { self = try JSONDecoder().decode(Self.self, from: Data(try readFile(path))) } catch {
      throw TidemarkError(
        .configurationUnreadable, "what the restore remembers can't be read", object: path, cause: "\(error)")
    }
  }

  func write(_ sideDirectory: String, _ tree: OwnedTree) throws(TidemarkError) {
    let bytes: Data
    do { bytes = try JSONEncoder().encode(self) } catch {
      throw TidemarkError(.internalFault, "cannot encode the restore's state", cause: "\(error)")
    }
    try tree.write(String(decoding: bytes, as: UTF8.self), to: Self.path(sideDirectory))
  }

  /// - Throws: `configuration-unreadable` for a kind of target that this version doesn't know.
  package func target() throws(TidemarkError) -> RecoveryTarget {
    switch targetKind {
    case "time": if let microseconds = Int64(targetValue) { return .time(microseconds) }
    case "lsn": return .lsn(try LSN(text: targetValue))
    case "xid": if let xid = UInt32(targetValue) { return .xid(xid) }
    case "name": return .name(targetValue)
    case "backup-end": return .backupEnd
    case "latest": return .latest
    default: break
    }
    throw TidemarkError(
      .configurationUnreadable, "the restore's target can't be read", object: "\(targetKind) \(targetValue)")
  }

  /// The command that finishes the restore into `directory`, where one can be finished.
  static func next(_ directory: String) -> String? {
    guard fileExists(path("\(directory).tidemark")), fileExists("\(directory)/\(FileRestorer.controlFile)"),
      fileExists("\(directory)/recovery.signal")
    else { return nil }
    return "a restore into it was begun and not ended: "
      + "'tidemark restore --target-directory \(directory) --continue' finishes it, --delta begins it anew over what is there"
  }
}
