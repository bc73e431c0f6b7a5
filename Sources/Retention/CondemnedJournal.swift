// Since when nothing needs an object, as this host has seen it: an object is deleted only after the policy's grace, so
// that a restore that began before its backup expired still finds it. The journal lies in the state directory: whoever
// has none begins to wait anew, and a host that only deletes needs no right to create anything.
import BackupRepository
import Diagnostics
import ObjectStorage
import SystemSupport

struct CondemnedJournal {
  private static let byteCountMax = 1 << 30
  private let path: String
  /// Seconds since 1970, by this host's clock.
  private(set) var since: [String: Int64] = [:]

  init(stateDirectory: String, _ lineage: LineageLayout) throws(TidemarkError) {
    path = "\(stateDirectory)/expire/\(lineage.cluster)-\(lineage.systemIdentifier)"
    guard fileExists(path) else { return }
    let text = String(decoding: try readFile(path, limit: Self.byteCountMax), as: UTF8.self)
    for line in text.split(separator: "\n") {
      // A line that can't be read starts the wait anew.
      let fields = line.split(separator: " ", maxSplits: 1)
      if fields.count == 2, let seconds = Int64(fields[0]), ObjectKey.isValid(String(fields[1])) {
        since[String(fields[1])] = seconds
      }
    }
  }

  /// Makes `names` the condemned ones: new ones from `now` on, others not any more.
  mutating func condemn(_ names: some Sequence<ObjectName>, now: Int64) {
    var updated: [String: Int64] = [:]
    // A time to come was noted by a clock that was wrong.
    for name in names { updated[name.text] = min(since[name.text] ?? now, now) }
    since = updated
  }

  /// Whether `name` has been condemned for at least `grace`.
  func isRipe(_ name: ObjectName, now: Int64, grace: Duration) -> Bool {
    guard let begin = since[name.text] else { return false }
    return now - begin >= grace.components.seconds
  }

  /// Returns after the journal is durable.
  func save() throws(TidemarkError) {
    try DurableFile.createDirectories(directoryName(path))
    let text = since.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)\n" }.joined()
    try DurableFile.write(Array(text.utf8), to: path)
  }
}
