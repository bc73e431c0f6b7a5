// What this host knows of its newest backup, on its own disk: whoever can delete in every region could otherwise offer the
// repository as it was yesterday, and each object in it would be genuine. Retention never deletes the newest backup.
import Diagnostics
import Glibc
import SystemSupport

package struct NewestBackupMemory: Sendable {
  private let path: String

  package init(_ repository: Repository, _ lineage: LineageLayout) {
    path = "\(repository.stateDirectory)/newest/\(repository.layout.cluster)-\(lineage.systemIdentifier)"
  }

  /// Notes a backup whose manifest is in the regions. Returns after the note is durable.
  package func remember(_ label: BackupLabelName) throws(TidemarkError) {
    try DurableFile.createDirectories(directoryName(path))
    try DurableFile.write(Array("\(label.text)\n".utf8), to: path)
  }

  /// What to tell an operator when the remembered backup is in no region; `nil` when it is there, when nothing is
  /// remembered, or when a region couldn't be asked.
  package func finding(_ catalog: LineageCatalog) -> String? {
    guard catalog.isComplete, fileExists(path) else { return nil }
    let bytes: [UInt8]
    do throws(TidemarkError) { bytes = try readFile(path, limit: 4096) } catch {
      return "what this host remembers of its newest backup can't be read, so its deletion would go unseen: "
        + error.description
    }
    let label = String(decoding: bytes, as: UTF8.self).prefix { $0 != "\n" }
    let isThere =
      catalog.backups.contains { $0.label.text == label }
      || catalog.unusable.contains { $0.name.text.hasSuffix("/\(label)/manifest") }
    if isThere || label.isEmpty { return nil }
    return "backup \(label), the newest that this host made, is in no region any more: somebody deleted it"
  }
}
