// Holds: a backup that is held is never expired. Nothing is ever overwritten or deleted for it: a hold is an object, and
// its release another one that names it. What can't be read counts for the side that keeps data: an unreadable hold
// holds, an unreadable release releases nothing.
import Diagnostics
import Envelope
import Foundation
import ObjectStorage
import PostgresFormats
import SystemSupport

/// A hold that wasn't released.
package struct BackupHold: Sendable, Equatable {
  package var label: BackupLabelName
  package var id: BackupLabelName
  /// Seconds since 1970, by the clock of the host that made it; nil when the hold can't be read.
  package var created: Double?
  /// Empty when none was given, or when this host can't open it.
  package var reason: String
}

private struct HoldContent: Codable {
  var format = 1
  var reason: String
}

extension Repository {
  private static let holdByteCountMax = 64 << 10
  package static let holdReasonByteCountMax = 4 << 10

  /// The holds of the lineage that weren't released, in the order of their labels.
  package func holds(_ lineage: LineageLayout, mends: Bool = true) throws(TidemarkError) -> [BackupHold] {
    let holds = try regions.list(prefix: lineage.holdsPrefix)
    if holds.entries.isEmpty { return [] }
    let releases = Set(try regions.list(prefix: lineage.releasesPrefix).entries.map(\.name))
    var found: [BackupHold] = []
    for entry in holds.entries {
      let parts = entry.name.text.split(separator: "/").suffix(2).map(String.init)
      // What has no hold's name holds nothing.
      guard parts.count == 2, let label = try? BackupLabelName(parts[0]), let id = try? BackupLabelName(parts[1]),
        entry.name == lineage.hold(label, id)
      else { continue }
      let release = lineage.release(label, id)
      if releases.contains(release), try isSigned(release, .release, mends: mends) { continue }
      found.append(try read(BackupHold(label: label, id: id, created: nil, reason: ""), lineage, mends: mends))
    }
    return found
  }

  /// Holds `label`. Returns after the hold is durable and the backup is known to be still there.
  /// - Throws: `backup-not-found` when there is no such backup, or it expired in this moment.
  package func hold(
    _ lineage: LineageLayout, _ label: BackupLabelName, reason: String
  ) throws(TidemarkError) -> BackupHold {
    guard reason.utf8.count <= Self.holdReasonByteCountMax else {
      throw TidemarkError(.usage, "the reason is longer than \(Self.holdReasonByteCountMax) bytes")
    }
    let id = BackupLabelName.new()
    let name = lineage.hold(label, id)
    try regions.create(name, try seal(.hold, name, try encodeJSON(HoldContent(reason: reason), "the hold")))
    CrashPoint.reach("hold.after-create")
    let manifest = lineage.manifest(label)
    guard try regions.list(prefix: manifest.text).entries.contains(where: { $0.name == manifest }) else {
      throw TidemarkError(
        .backupNotFound, "the backup isn't there, so it can't be held", object: label.text,
        next: "'tidemark list' shows what there is")
    }
    return BackupHold(label: label, id: id, created: Double(wallClockSeconds()), reason: reason)
  }

  /// Releases `hold`. Returns after that is durable.
  package func release(_ lineage: LineageLayout, _ hold: BackupHold) throws(TidemarkError) {
    let name = lineage.release(hold.label, hold.id)
    // Two that release the same hold at once mean the same.
    let trusted = keys.trustedWriters
    try regions.create(name, try seal(.release, name, [])) { region in
      let bytes = try region.request { store throws(TidemarkError) in
        try store.read(region.key(name), range: nil, deadline: .after(.seconds(30)))
      }
      try SealedObject.verify(bytes, expectedName: name.text, expectedKind: .release, trustedWriters: trusted)
      return true
    }
  }

  /// Whether a trusted writer signed the object. What a region doesn't tell in time is an error, not a no.
  private func isSigned(_ name: ObjectName, _ kind: ObjectKind, mends: Bool) throws(TidemarkError) -> Bool {
    do throws(TidemarkError) {
      return try regions.read(name, mends: mends) { bytes, _ in
        try SealedObject.verify(
          bytes, expectedName: name.text, expectedKind: kind, trustedWriters: self.keys.trustedWriters)
        return true
      }
    } catch {
      switch error.code {
      case .objectDamaged, .signatureInvalid, .writerNotTrusted, .formatVersionUnknown, .objectNotFound:
        regions.log.record(.damaged, region: "-", object: name, detail: error.description)
        return false
      default: throw error
      }
    }
  }

  private func read(_ hold: BackupHold, _ lineage: LineageLayout, mends: Bool) throws(TidemarkError) -> BackupHold {
    var hold = hold
    let name = lineage.hold(hold.label, hold.id)
    do throws(TidemarkError) {
      let (plaintext, sealed) = try readSealed(.hold, name, limit: Self.holdByteCountMax, mends: mends)
      hold.created = Double(try SealedHeader.parse(sealed).created) / 1e6
      // It holds without its reason, too.
      hold.reason = (try? JSONDecoder().decode(HoldContent.self, from: Data(plaintext)))?.reason ?? ""
    } catch {
      switch error.code {
      case .objectDamaged, .signatureInvalid, .writerNotTrusted, .formatVersionUnknown, .objectNotFound, .noKeyOpens:
        // It holds all the same.
        break
      default: throw error
      }
    }
    return hold
  }
}
