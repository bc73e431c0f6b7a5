// To which moments a lineage can be recovered without a gap: from the end of the oldest backup whose WAL reaches the end
// of the archive, to the last commit there.
import BackupRepository
import Diagnostics
import Envelope
import ObjectStorage
import PostgresFormats

package struct RecoverableWindow: Sendable {
  /// Seconds since 1970.
  package var from: Double
  /// Microseconds since 1970.
  package var to: Int64
  /// When the newest segment on the way was stored, as the store says, in seconds since 1970.
  package var newestSegmentStored: Int64?
  /// Backups older than the window's beginning, which restore to their own end and not beyond.
  package var singleMoments: [String] = []

  /// Segments that are looked at for the last commit: an idle server archives some without one.
  private static let segmentCountMax = 16

  /// The window of `catalog`; `nil` when it has no backup, or no WAL of the newest one is there.
  /// - Throws: what reading the regions throws.
  package init?(_ repository: Repository, _ catalog: LineageCatalog) throws(TidemarkError) {
    guard let newest = catalog.backups.last, let size = WALSegmentSize(byteCount: newest.manifest.walSegmentSize)
    else { return nil }
    let wal = try repository.walCatalog(catalog.layout, segmentSize: size)
    try self.init(repository, catalog, wal)
  }

  package init?(_ repository: Repository, _ catalog: LineageCatalog, _ wal: WALCatalog) throws(TidemarkError) {
    guard let newest = catalog.backups.last else { return nil }
    var begin = newest
    var isWithin = true
    for backup in catalog.backups.reversed() {
      let demand = WALDemand(
        label: backup.label.text, timeline: TimelineID(backup.manifest.timeline), start: try backup.manifest.start,
        stop: try backup.manifest.stop, isContinuous: true)
      // Whatever is missing behind this backup ends the window, also between it and the next one.
      if isWithin, WALContinuity.holes(wal, [demand]).isEmpty { begin = backup } else { isWithin = false }
      if !isWithin, backup.label != newest.label { singleMoments.append(backup.label.text) }
    }
    from = begin.manifest.stopTime
    // A clock that was set back would make an older backup's end the later one.
    to = Int64(newest.manifest.stopTime * 1_000_000)
    let origin = TimelineID(newest.manifest.timeline)
    let stop = try newest.manifest.stop
    // The newest timeline that the backup lies on goes on where its parent was left.
    let history = wal.histories.values.filter { $0.timeline > origin && $0.contains(origin, upTo: stop) }
      .max { $0.timeline < $1.timeline }
    let start = WALSegmentName(timeline: origin, containing: try newest.manifest.start, size: wal.segmentSize)
    let first = history.flatMap { history in
      history.entries.last.map {
        WALSegmentName(timeline: history.timeline, containing: $0.switchLSN, size: wal.segmentSize)
      }
    }
    guard let last = wal.endOfRun(from: first ?? start) else { return }
    let segments = (wal.segments[last.timeline] ?? []).map(\.name).filter { $0 <= last }
    for name in segments.suffix(Self.segmentCountMax).reversed() {
      let header = try repository.regions.read(
        catalog.layout.wal(.segment(name)), range: .bytes(offset: 0, count: Int64(SealedHeader.prefixByteCountMax))
      ) { bytes, _ in try SealedHeader.parse(bytes) }
      if newestSegmentStored == nil { newestSegmentStored = header.created / 1_000_000 }
      if let commit = header.attributes.latestCommit {
        to = max(to, commit)
        break
      }
    }
  }
}
