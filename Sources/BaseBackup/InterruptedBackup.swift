// Backups without a manifest: what they uploaded is of use to the next one.
import BackupRepository
import Diagnostics

package struct InterruptedBackup: Equatable {
  package var label: BackupLabelName
  /// The names of its file table's parts, in order.
  package var parts: [ObjectName]

  /// Those among the objects `names` below a lineage's backups that began after the backup `newest`, or in its second,
  /// newest first.
  ///
  /// - Parameter known: labels to whose packs `newest` refers already. They are passed by: when two hosts' clocks differ,
  ///   or two backups begin in the same second, what `newest` was built on may seem to have begun after it. A label that
  ///   stood twice in the new table would have its blocks counted under one index and looked for under the other.
  package static func find(
    in names: [ObjectName], _ layout: LineageLayout, after newest: BackupLabelName?, known: [String]
  ) -> [InterruptedBackup] {
    var parts: [String: [ObjectName]] = [:]
    var passed = Set(known)
    for name in names {
      let components = name.text.dropFirst(layout.backupsPrefix.count).split(separator: "/")
      guard let label = components.first.map(String.init) else { continue }
      if components.dropFirst() == ["manifest"] { passed.insert(label) }
      if components.count == 3, components[1] == "files" { parts[label, default: []].append(name) }
    }
    // Labels begin with their time, to the second; what follows is chance. This orders attempts to use, nothing that a
    // restore depends on.
    func time(_ label: String) -> Substring { label.prefix { $0 != "-" } }
    return parts.filter { !passed.contains($0.key) && time($0.key) >= time(newest?.text ?? "") }
      .sorted { $0.key > $1.key }
      .compactMap { text, parts in
        // A name that isn't a label's is no backup of ours.
        guard let label = try? BackupLabelName(text) else { return nil }
        return InterruptedBackup(label: label, parts: parts.sorted { $0.text < $1.text })
      }
  }
}
