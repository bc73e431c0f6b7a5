// Packs of which little is alive: a backup stores their last blocks anew instead of referring to them, so that they can
// be deleted whole when the older backups that need them expire. Nothing that stands is touched.
//
// What it costs is bounded twice. A pack is given up when less than a quarter of it is alive, so each byte that is stored
// anew was paid for by three that changed; and what one backup gives up is limited, the sparsest packs first. What is
// stored anew is wholly alive, so no backup gives up what the one before it stored.
import BackupRepository

/// A pack as a backup refers to it.
package struct PackID: Hashable, Sendable {
  /// Index among the backup's labels.
  package var label: Int
  package var number: Int

  package init(label: Int, number: Int) {
    self.label = label
    self.number = number
  }
}

package enum SparsePacks {
  /// One pack, as the previous backup refers to it.
  package struct Candidate: Sendable {
    package var id: PackID
    /// Bytes of the blocks that the previous backup refers to.
    package var aliveByteCount: Int64
    /// Bytes of all blocks in it. Where it isn't known, the stored bytes: frames never grow by compression, so the pack is
    /// then taken for a smaller one, and less sparse, than it is.
    package var plaintextByteCount: Int64
    package var storedByteCount: Int64

    package init(id: PackID, aliveByteCount: Int64, plaintextByteCount: Int64?, storedByteCount: Int64) {
      self.id = id
      self.aliveByteCount = aliveByteCount
      self.plaintextByteCount = max(1, plaintextByteCount ?? storedByteCount)
      self.storedByteCount = storedByteCount
    }

    var share: Double { Double(aliveByteCount) / Double(plaintextByteCount) }
    /// What storing its blocks anew takes in a region, if they compress as the pack did.
    var costByteCount: Int64 { max(1, Int64(share * Double(storedByteCount))) }
  }

  /// A pack of which less than this is alive is given up.
  package static let aliveShareMin = 0.25
  /// Stored bytes that one backup may give up at least.
  package static let budgetByteCountMin: Int64 = 64 << 20

  /// Stored bytes that one backup may spend on it: a sixteenth of what the previous one refers to.
  package static func budget(storedByteCount: Int64) -> Int64 { max(budgetByteCountMin, storedByteCount / 16) }

  /// The packs to give up, the sparsest first, as far as `budget` reaches.
  package static func choose(_ candidates: [Candidate], budget: Int64) -> Set<PackID> {
    let sparse = candidates.filter { $0.share < aliveShareMin }.sorted { left, right in
      // The label and number make the choice the same each time.
      (left.share, left.id.label, left.id.number) < (right.share, right.id.label, right.id.number)
    }
    var chosen: Set<PackID> = []
    var rest = budget
    for candidate in sparse {
      rest -= candidate.costByteCount
      if rest < 0 { break }
      chosen.insert(candidate.id)
    }
    return chosen
  }
}
