// Which objects share their re-wraps: the objects of one backup's label, the WAL files of one log number of a timeline,
// and the few others. A group's name follows from an object's, so that a reader finds the re-wrap with one short listing,
// and `expire` sees from names alone, without a key, when nothing that it belongs to is left.
import PostgresFormats

package struct RewrapGroup: Hashable, Comparable, Sendable {
  /// Where the names of the group's re-wraps begin: "crm/7301/rewraps/backups/20261124T031500Z-3f9a/".
  package let prefix: String
  /// Objects that are never expired: histories of timelines, holds, releases and reports.
  package var isPermanent: Bool { prefix.hasSuffix("/rewraps/others/") }
  package var isOfWAL: Bool { prefix.contains("/rewraps/wal/") }

  /// The group of the object `name`; `nil` for what has no key to wrap anew: marker, probes and re-wraps.
  package init?(of name: ObjectName) {
    let parts = name.text.split(separator: "/")
    guard parts.count >= 4, SystemIdentifier(text: parts[1]) != nil, parts[2] != "rewraps" else { return nil }
    let base = "\(parts[0])/\(parts[1])/rewraps"
    switch parts[2] {
    case "backups" where parts.count > 4, "packs" where parts.count > 4: prefix = "\(base)/backups/\(parts[3])/"
    case "wal":
      // The first 16 digits are timeline and log: 4 GiB of WAL, 256 segments of the usual size.
      switch try? WALFileName(text: name.lastComponent) {
      case .segment(let segment), .partial(let segment), .backupHistory(let segment, _):
        prefix = "\(base)/wal/\(segment.description.prefix(16))/"
      // Histories stay for ever, and what isn't WAL's is nobody's to judge.
      case .history, nil: prefix = "\(base)/others/"
      }
    default: prefix = "\(base)/others/"
    }
  }

  /// The group of the re-wrap `name`; `nil` when it isn't one's name.
  package init?(ofRewrap name: ObjectName) {
    let parts = name.text.split(separator: "/")
    guard parts.count == 5 || parts.count == 6, parts[2] == "rewraps",
      parts.count == 5 ? parts[3] == "others" : ["backups", "wal"].contains(parts[3])
    else { return nil }
    prefix = parts.dropLast().joined(separator: "/") + "/"
  }

  /// The re-wrap `id` of the group.
  func rewrap(_ id: String) -> ObjectName { ObjectName(trusted: prefix + id) }

  package static func < (left: RewrapGroup, right: RewrapGroup) -> Bool { left.prefix < right.prefix }
}
