// One backup from beginning to end. It counts only when its manifest stands in the regions, and that is written last:
// after every pack and part, and after all WAL that it needs. Ending it before leaves no backup, and objects that the
// next run uses.
import BackupRepository
import Diagnostics
import Envelope
import Foundation
import Glibc
import Logging
import PostgresFormats
import PostgresReplication
import SystemSupport

/// What a backup is asked to do.
package struct BackupOptions: Sendable {
  package var connection: ConnectionInfo
  package var isFull = false
  package var attachments: [String] = []
  /// 0: as many as there are processors.
  package var workerCount = 0
  /// Bytes of memory for buffers.
  package var memoryByteCount = 256 << 20
  /// How long the WAL of the backup may take to reach the regions.
  package var walWaitLimit = Duration.seconds(600)
  package var startsFast = true
  /// Bytes per second that packs and file tables may take on their way to all regions together.
  package var uploadRateMax: Int?
  package var toolVersion = ""
  /// How long what the backup refers to is protected without a renewal.
  package var leaseLength = BackupLease.usualLength

  package init(connection: ConnectionInfo) { self.connection = connection }
}

/// What a backup did.
package struct BackupReport: Sendable {
  package var manifest: BackupManifest
  package var seconds: Double
  package var streamSeconds: Double
  package var walWaitSeconds: Double
  /// Bytes of unchanged blocks that were stored anew, since little else of their packs is alive.
  package var rewrittenBytes: Int64
  /// Packs that the previous backup refers to and that this one gave up for that.
  package var retiredPacks: Int
  /// Warnings that an operator should read.
  package var remarks: [String]
  /// Where the pipeline's time went.
  package var profile: [StageProfile]
}

/// Where a running backup is.
package struct BackupProgress: Sendable {
  package enum Stage: String, Sendable { case connecting, checkpoint, streaming, uploading, waitingForWAL, committing }
  package var stage: Stage
  package var byteCount: Int64
  package var estimatedByteCount: Int64
}

package struct BackupRun {
  /// Bytes of a block: a multiple of PostgreSQL's page. An incremental backup stores a whole block for each page that
  /// changed, and for each block the file table grows: docs/decisions/2026-11-25-sizes-digest-level.md.
  static let blockSize = 16 << 10

  let repository: Repository
  let options: BackupOptions
  let progress: @Sendable (BackupProgress) -> Void

  package init(
    _ repository: Repository, _ options: BackupOptions,
    progress: @escaping @Sendable (BackupProgress) -> Void = { _ in }
  ) {
    self.repository = repository
    self.options = options
    self.progress = progress
  }

  /// Takes the backup.
  /// - Throws: `locked` when another backup of this cluster runs on this host; what the server, the regions and the
  ///   checks say.
  package func run() throws(TidemarkError) -> BackupReport {
    let begin = ContinuousClock.now
    let startTime = Date().timeIntervalSince1970
    _ = try repository.writer()
    let locks = "\(repository.stateDirectory)/locks"
    try DurableFile.createDirectories(locks)
    let lock = try FileLock("\(locks)/backup-\(repository.layout.cluster)", purpose: "a backup of this cluster")
    defer { withExtendedLifetime(lock) {} }

    progress(BackupProgress(stage: .connecting, byteCount: 0, estimatedByteCount: 0))
    var remarks: [String] = []
    let server = try ServerInspection(reading: try PostgresConnection(options.connection))
    try requireArchiving(server)
    let layout = repository.layout.lineage(server.systemIdentifier)
    let capture = try CapturedConfiguration(server, attachments: options.attachments)
    remarks += capture.remarks

    let label = BackupLabelName.new(at: Int64(startTime))
    var manifest = BackupManifest(
      label: label, cluster: repository.layout.cluster, systemIdentifier: server.systemIdentifier)
    fill(&manifest, from: server, capture)

    let base = try previousBackups(layout, &remarks)
    let lease = try takeLease(layout, label, base)
    defer { lease.release() }
    manifest.labels = [label.text] + base.labels
    manifest.predecessor = base.predecessor.map { .init(label: $0.label.text, sha256: $0.manifestDigest) }

    let (end, start, result) = try stream(label, layout, base.table, server, &remarks)
    let streamSeconds = (ContinuousClock.now - begin).seconds
    manifest.timeline = start.timeline.rawValue
    manifest.startLSN = start.startLSN.description
    manifest.stopLSN = end.stopLSN.description
    manifest.tablespaces = start.tablespaces.map { .init(oid: $0.oid, location: $0.location) }
    manifest.suspect = end.checksumFailure
    manifest.startTime = startTime
    fill(&manifest, from: result, base)
    if end.timeline != start.timeline {
      throw TidemarkError(
        .streamInvalid, "the server changed its timeline during the backup",
        cause: "from \(start.timeline) to \(end.timeline)", kept: "the earlier backups", next: "take the backup again")
    }

    let waitBegin = ContinuousClock.now
    progress(BackupProgress(stage: .waitingForWAL, byteCount: 0, estimatedByteCount: 0))
    let size = WALSegmentSize(byteCount: manifest.walSegmentSize) ?? .standard
    var wait = WALWait(repository: repository, layout: layout, segmentSize: size, limit: options.walWaitLimit)
    if server.isInRecovery { wait.standby = StandbySource(connection: options.connection) }
    try wait.wait(
      timeline: start.timeline, from: start.startLSN, to: end.stopLSN, connection: options.connection, &remarks)
    let walWaitSeconds = (ContinuousClock.now - waitBegin).seconds

    progress(BackupProgress(stage: .committing, byteCount: 0, estimatedByteCount: 0))
    manifest.stopTime = Date().timeIntervalSince1970
    try commit(manifest, layout, label, lease)
    // The backup is complete, whatever becomes of this note.
    do throws(TidemarkError) { try NewestBackupMemory(repository, layout).remember(label) } catch {
      remarks.append("this backup couldn't be noted on this host: \(error.description)")
    }
    return BackupReport(
      manifest: manifest, seconds: (ContinuousClock.now - begin).seconds, streamSeconds: streamSeconds,
      walWaitSeconds: walWaitSeconds, rewrittenBytes: result.rewrittenByteCount,
      retiredPacks: base.table?.sparsePackCount ?? 0, remarks: remarks, profile: result.profile)
  }

  private func requireArchiving(_ server: ServerInspection) throws(TidemarkError) {
    if let level = server.walLevel, level == "minimal" {
      throw TidemarkError(
        .serverUnsuitable, "the server's wal_level is 'minimal', which doesn't allow backups",
        next: "set wal_level = replica and restart PostgreSQL")
    }
    let archives = server.archiveMode == "always" || (server.archiveMode == "on" && !server.isInRecovery)
    guard archives || server.isInRecovery else {
      throw TidemarkError(
        .serverUnsuitable, "the server doesn't archive its WAL, so a backup could never be restored",
        cause: "archive_mode is '\(server.archiveMode ?? "unknown")'",
        next: "set archive_mode = on and archive_command = 'tidemark wal-push %p', then restart PostgreSQL")
    }
  }

  private func fill(_ manifest: inout BackupManifest, from server: ServerInspection, _ capture: CapturedConfiguration) {
    manifest.serverVersion = server.version.number
    manifest.catalogVersion = UInt32(server.catalogVersion)
    manifest.walSegmentSize = server.walSegmentByteCount ?? WALSegmentSize.standard.byteCount
    manifest.dataChecksums = server.hasDataChecksums
    manifest.fromStandby = server.isInRecovery
    manifest.blockSize = Self.blockSize
    manifest.settings = server.settings.filter { $0.source != "default" }.map {
      .init(name: $0.name, value: $0.value ?? "", source: $0.source, unit: $0.unit, file: $0.sourceFile)
    }
    manifest.files = capture.files
    manifest.databases = server.databases.map {
      .init(
        oid: $0.oid, name: $0.name, encoding: $0.encoding, collate: $0.collate, localeProvider: $0.localeProvider,
        collationVersion: $0.collationVersion)
    }
    manifest.bootstrapSuperuser = server.bootstrapRole
    manifest.toolVersion = options.toolVersion
  }

  private func fill(_ manifest: inout BackupManifest, from result: PipelineResult, _ base: Base) {
    manifest.fileTableParts = result.partCount
    manifest.fileCount = result.fileCount
    manifest.databaseBytes = result.databaseByteCount
    manifest.newBytes = result.newByteCount
    manifest.storedBytes = result.storedByteCount
    // They are an aid to later backups, so they never make a manifest too large to be read.
    let sizesAreTold = result.referenced.values.reduce(0) { $0 + $1.count } <= Self.packSizeCountMax
    manifest.packs = result.referenced.sorted { $0.key < $1.key }.map { label, numbers in
      let known = sizesAreTold ? packSizes(of: label, manifest.labels[label], result, base) : [:]
      return BackupManifest.PackReference(
        label: manifest.labels[label], ranges: Self.ranges(numbers),
        plaintextBytes: known.isEmpty ? nil : numbers.sorted().map { known[$0] ?? 0 })
    }
  }

  /// Packs whose sizes are noted in one manifest.
  private static let packSizeCountMax = 1 << 20

  /// What is known of the sizes of a label's packs, by number.
  private func packSizes(
    of index: Int, _ label: String, _ result: PipelineResult, _ base: Base
  ) -> [Int: Int64] {
    if index == 0 {
      return Dictionary(uniqueKeysWithValues: zip(1..., result.packPlaintextByteCounts))
    }
    return base.predecessor?.manifest.packs.first { $0.label == label }?.plaintextBytesByNumber ?? [:]
  }

  static func ranges(_ numbers: Set<Int>) -> [[Int]] {
    var ranges: [[Int]] = []
    for number in numbers.sorted() {
      if let last = ranges.last, last[1] + 1 == number {
        ranges[ranges.count - 1][1] = number
      } else {
        ranges.append([number, number])
      }
    }
    return ranges
  }

  private func stream(
    _ label: BackupLabelName, _ layout: LineageLayout, _ previous: PreviousFileTable?, _ server: ServerInspection,
    _ remarks: inout [String]
  ) throws(TidemarkError) -> (SourceEnd, SourceStart, PipelineResult) {
    let warnings = ServerWarnings()
    let connection = try PostgresConnection(
      options.connection, for: .replication, noticeHandler: { warnings.note($0) })
    defer { remarks += warnings.remarks }
    var streamOptions = BaseBackupOptions(label: "tidemark \(label)")
    streamOptions.checkpoint = options.startsFast ? .fast : .spread
    var source = ServerStreamSource(connection, streamOptions)
    let workers = options.workerCount > 0 ? options.workerCount : processorCount()
    let pipeline = BackupPipeline(
      repository: repository, layout: layout, label: label, blockSize: Self.blockSize,
      size: PipelineSize(workers: workers, memoryByteCount: options.memoryByteCount), previous: previous,
      uploadLimiter: RateLimiter(bytesPerSecond: options.uploadRateMax))
    connection.inputMeter = pipeline.meters.receive
    var started: SourceStart?
    var ended: SourceEnd?
    var received: Int64 = 0
    var reported: Int64 = 0
    progress(BackupProgress(stage: .checkpoint, byteCount: 0, estimatedByteCount: 0))
    let result = try pipeline.run { cutter in
      try source.run { event in
        try Termination.check()
        switch event {
        case .started(let start):
          started = start
          guard start.timeline == server.timeline else {
            throw TidemarkError(
              .serverUnsuitable, "the server changed its timeline before the backup began", next: "take it again")
          }
        case .directory(let entry):
          try cutter.add(FileTableEntry(path: entry.path, mode: entry.mode, content: .directory))
        case .symbolicLink(let entry, let target):
          try cutter.add(FileTableEntry(path: entry.path, mode: entry.mode, content: .symbolicLink(target: target)))
        case .beginFile(let entry): try cutter.beginFile(entry)
        case .data(let bytes):
          try cutter.append(bytes)
          received += Int64(bytes.count)
          if received - reported >= 8 << 20 {
            reported = received
            progress(
              BackupProgress(
                stage: .streaming, byteCount: received, estimatedByteCount: started?.estimatedByteCount ?? 0))
          }
        case .endFile(let crc32c): try cutter.endFile(crc32c: crc32c)
        case .finished(let end): ended = end
        }
      }
      progress(
        BackupProgress(stage: .uploading, byteCount: received, estimatedByteCount: started?.estimatedByteCount ?? 0))
    }
    guard let started, let ended else { throw TidemarkError(.streamInvalid, "the server's stream has no end") }
    return (ended, started, result)
  }
}
