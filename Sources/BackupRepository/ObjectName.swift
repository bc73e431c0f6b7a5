// The names of the repository's objects. A name is the key below the configured prefix; it is what headers sign, so
// an object can't stand in for another. docs/repository-format.md lists the layout.
import Diagnostics
import ObjectStorage
import PostgresFormats

/// An object's key below the repository's prefix: "crm/7301…/wal/00000001/0000000100000000000000A3".
package struct ObjectName: Hashable, Sendable, Comparable, CustomStringConvertible {
  package let key: ObjectKey

  package init(_ text: String) throws(TidemarkError) { key = try ObjectKey(text) }
  init(trusted text: String) { key = ObjectKey(trusted: text) }

  package var text: String { key.text }
  package var description: String { key.text }
  package static func < (left: ObjectName, right: ObjectName) -> Bool { left.key < right.key }
  /// The part behind the last slash.
  package var lastComponent: String { String(text.split(separator: "/").last ?? "") }
}

/// The names within one cluster's part of a repository.
package struct ClusterLayout: Sendable, Hashable {
  package let cluster: String

  /// - Throws: `configuration-invalid` when `cluster` can't be part of a key.
  package init(cluster: String) throws(TidemarkError) {
    // A debt's file is named after its object: a dot at the beginning would hide it, a long name would not fit.
    guard ObjectKey.isValid(cluster), !cluster.contains("/"), !cluster.hasPrefix("."), cluster.utf8.count <= 64 else {
      throw TidemarkError(
        .configurationInvalid, "the cluster's name can't be part of an object key", object: cluster,
        next: "use at most 64 letters, digits, '.', '_' and '-', with no '.' at the beginning")
    }
    self.cluster = cluster
  }

  /// The marker that `init` creates: its absence means that this isn't the repository, not that it is empty.
  package var marker: ObjectName { ObjectName(trusted: "\(cluster)/repository") }
  package func probe(_ suffix: String) -> ObjectName { ObjectName(trusted: "\(cluster)/probes/\(suffix)") }
  package func lineage(_ identifier: SystemIdentifier) -> LineageLayout {
    LineageLayout(cluster: cluster, systemIdentifier: identifier)
  }
  /// Where all lineages' names begin.
  package var prefix: String { "\(cluster)/" }
}

/// The names within one lineage: one system identifier of a cluster.
package struct LineageLayout: Sendable, Hashable {
  package let cluster: String
  package let systemIdentifier: SystemIdentifier

  package var prefix: String { "\(cluster)/\(systemIdentifier)/" }
  package var backupsPrefix: String { prefix + "backups/" }
  package var packsPrefix: String { prefix + "packs/" }
  package var walPrefix: String { prefix + "wal/" }
  package var holdsPrefix: String { prefix + "holds/" }
  package var releasesPrefix: String { prefix + "releases/" }
  package var drillsPrefix: String { prefix + "drills/" }
  package var rewrapsPrefix: String { prefix + "rewraps/" }

  package func manifest(_ label: BackupLabelName) -> ObjectName {
    ObjectName(trusted: "\(backupsPrefix)\(label)/manifest")
  }
  /// Part `number` (from 1) of a backup's file table.
  package func fileTablePart(_ label: BackupLabelName, _ number: Int) -> ObjectName {
    ObjectName(trusted: "\(backupsPrefix)\(label)/files/\(padded(number))")
  }
  /// Pack `number` (from 1) that the backup `label` wrote.
  package func pack(_ label: BackupLabelName, _ number: Int) -> ObjectName {
    ObjectName(trusted: "\(packsPrefix)\(label)/\(padded(number))")
  }
  /// Lease `number` (from 1) of a backup that is running.
  package func lease(_ label: BackupLabelName, _ number: Int) -> ObjectName {
    ObjectName(trusted: "\(backupsPrefix)\(label)/leases/\(padded(number))")
  }
  /// A hold on a backup. `id` has the form of a label: when it was made, and random digits.
  package func hold(_ label: BackupLabelName, _ id: BackupLabelName) -> ObjectName {
    ObjectName(trusted: "\(holdsPrefix)\(label)/\(id)")
  }
  /// The release of the hold `id`.
  package func release(_ label: BackupLabelName, _ id: BackupLabelName) -> ObjectName {
    ObjectName(trusted: "\(releasesPrefix)\(label)/\(id)")
  }
  /// Where the names of the packs that `label` wrote begin.
  package func packsPrefix(_ label: BackupLabelName) -> String { "\(packsPrefix)\(label)/" }
  package func walPrefix(_ timeline: TimelineID) -> String { "\(walPrefix)\(timelineText(timeline))/" }
  package func wal(_ file: WALFileName) -> ObjectName {
    ObjectName(trusted: "\(walPrefix(file.timeline))\(file)")
  }

  /// The report of a drill.
  package func drill(_ label: BackupLabelName) -> ObjectName { ObjectName(trusted: "\(drillsPrefix)\(label)") }

  private func padded(_ number: Int) -> String {
    let digits = String(number)
    return String(repeating: "0", count: max(0, 8 - digits.count)) + digits
  }
  private func timelineText(_ timeline: TimelineID) -> String {
    let digits = String(timeline.rawValue, radix: 16, uppercase: true)
    return String(repeating: "0", count: max(0, 8 - digits.count)) + digits
  }
}

/// The label of a backup: when it began, in UTC, and four random hexadecimal digits: "20261124T031500Z-3f9a".
/// Two hosts that begin in the same second don't collide; the order of backups is that of their LSNs, not of labels.
package struct BackupLabelName: Hashable, Sendable, CustomStringConvertible {
  package let text: String

  /// - Throws: `usage` when the text can't be a label.
  package init(_ text: String) throws(TidemarkError) {
    guard ObjectKey.isValid(text), !text.contains("/"), text.utf8.count <= 64 else {
      throw TidemarkError(.usage, "not a backup's label", object: text, next: "'tidemark list' shows the labels")
    }
    self.text = text
  }

  /// A new label for what begins now.
  package static func new(at seconds: Int64 = wallClockSeconds()) -> BackupLabelName {
    let time = RecoveryTime(microseconds: seconds * 1_000_000).description.filter { $0 != "-" && $0 != ":" }
    let digits = String(Int.random(in: 0...0xFFFF), radix: 16)
    return BackupLabelName(trusted: "\(time)-\(String(repeating: "0", count: 4 - digits.count))\(digits)")
  }

  private init(trusted text: String) {
    precondition(ObjectKey.isValid(text), "not a label: \(text)")
    self.text = text
  }

  package var description: String { text }
}
