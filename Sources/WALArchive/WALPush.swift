// Archiving one file that `archive_command` names. It returns only when the policy's number of regions hold the file
// durably, or when they held it before with the same content. Other content under the same name is refused, untouched.
import BackupRepository
import Diagnostics
import Envelope
import Glibc
import ObjectStorage
import PostgresFormats
import SystemSupport

/// How the archiving of one file ended.
package struct WALPushReport: Sendable {
  package var name: ObjectName
  package var byteCount: Int
  package var storedByteCount: Int
  package var creation: CreationReport
  /// Whether every holder had it before.
  package var wasThere: Bool { creation.existed.count == creation.holders.count }
}

package struct WALPush {
  private let repository: Repository
  private let dataDirectory: String?
  /// How long one region is asked whether it has the file already.
  private static let lookLimit = Duration.seconds(5)
  /// Bytes accepted for a segment: the largest segment size of PostgreSQL.
  private static let fileByteCountMax = 1 << 30

  /// `dataDirectory` is the configured one, where the control file is looked for when it doesn't lie beside the WAL.
  package init(_ repository: Repository, dataDirectory: String?) {
    self.repository = repository
    self.dataDirectory = dataDirectory
  }

  /// Archives the file at `path`, as PostgreSQL's `%p` gives it: relative to the data directory or absolute.
  /// - Throws: `wal-file-invalid`, `wal-file-foreign`, `wal-conflict`, `durability-not-reached`, and what reading the
  ///   file throws.
  package func push(_ path: String) throws(TidemarkError) -> WALPushReport {
    let file = try WALFileName(text: baseName(path))
    let content = try MappedFile(path, limit: Self.fileByteCountMax)
    let control = try controlFile(beside: path)
    let lineage: LineageLayout
    switch file {
    case .segment(let name), .partial(let name):
      let header = try content.withBytes { bytes throws(TidemarkError) in
        try WALSegmentCheck.check(
          name, first: bytes, fileByteCount: UInt64(bytes.count), systemIdentifier: control?.systemIdentifier)
      }
      guard let identity = header.identity else {
        throw TidemarkError(.walFileInvalid, "the segment has no long header", object: path)
      }
      lineage = repository.layout.lineage(identity.systemIdentifier)
    case .history(let timeline):
      _ = try content.withBytes { bytes throws(TidemarkError) in
        try TimelineHistory(timeline: timeline, parsing: Array(bytes))
      }
      lineage = try repository.layout.lineage(known(control, path).systemIdentifier)
    case .backupHistory:
      lineage = try repository.layout.lineage(known(control, path).systemIdentifier)
    }
    return try store(content, file: file, as: lineage.wal(file))
  }

  /// What the header says of the file.
  private static func attributes(
    of bytes: UnsafeRawBufferPointer, _ file: WALFileName
  ) throws(TidemarkError) -> SealedAttributes {
    var attributes = SealedAttributes()
    switch file {
    case .segment(let name), .partial(let name):
      let summary = try WALSegmentScanner.scan(bytes, name: name)
      attributes.latestCommit = summary.latestCommit
      attributes.earliestCommit = summary.earliestCommit
    case .history, .backupHistory: break
    }
    attributes.plaintextDigest = SHA256Digest.of(bytes)
    attributes.plaintextByteCount = UInt64(bytes.count)
    return attributes
  }

  private func store(
    _ content: MappedFile, file: WALFileName, as name: ObjectName
  ) throws(TidemarkError) -> WALPushReport {
    // All at once, since PostgreSQL waits: the regions are asked while threads compress and this one digests.
    let looks = repository.regions.byPreference.filter { $0.health.failingFor == nil }.map { look(name, $0) }
    var attributes = SealedAttributes()
    let sealing = Result { () throws(TidemarkError) in
      let sealed = try content.withBytes { bytes throws(TidemarkError) in
        try repository.seal(file.objectKind, name, bytes) { () throws(TidemarkError) in
          attributes = try Self.attributes(of: bytes, file)
          return attributes
        }
      }
      CrashPoint.reach("push.sealed")
      // Digest and frames are of one content then.
      try content.requireUnchanged()
      return sealed
    }
    // Every thread is joined before anything is thrown.
    let answers = looks.map { look in Result { () throws(TidemarkError) in try look.join() } }
    let holders = try answers.map { answer throws(TidemarkError) in try answer.get() }.compactMap(\.self)
    let ours = try sealing.get()
    // What a region has already is copied to the others as it is, so that all hold the same bytes. Two processes that
    // push at the same moment may still seal twice: equal digests make the copies equal in meaning.
    let body = try existing(name, attributes, in: holders).map { ObjectBody($0) } ?? ours
    let known = attributes
    let creation = try repository.regions.create(name, body) { region in
      try isHeld(name, body, known, by: region)
    }
    return WALPushReport(
      name: name, byteCount: content.byteCount, storedByteCount: body.byteCount, creation: creation)
  }

  /// Asks `region` whether it has the object: itself when it does, `nil` when it doesn't or fails.
  private func look(_ name: ObjectName, _ region: Region) -> WorkerThread<Region?> {
    // Counted as a part of the patience that creation has with a region.
    let patience = min(Self.lookLimit, repository.regions.policy.degradeAfter / 2)
    return WorkerThread("look-\(region.name)") { [repository] in
      do throws(TidemarkError) {
        // Creation finds out for certain.
        let isThere = try region.request { store throws(TidemarkError) in
          try store.seems(toHold: region.key(name), deadline: .after(patience))
        }
        return isThere ? region : nil
      } catch {
        if error.code == .interrupted { throw error }
        repository.regions.log.record(.failed, region: region.name, object: name, detail: error.description)
        return nil
      }
    }
  }

  /// The sealed object that one of `holders` has.
  private func existing(
    _ name: ObjectName, _ attributes: SealedAttributes, in holders: [Region]
  ) throws(TidemarkError) -> [UInt8]? {
    for region in holders {
      do throws(TidemarkError) {
        let bytes = try region.request { store throws(TidemarkError) in
          try store.read(region.key(name), range: nil, deadline: .after(.seconds(30)))
        }
        // Nothing of a header is to be believed before its signature.
        try SealedObject.verify(bytes, expectedName: name.text, trustedWriters: repository.keys.trustedWriters)
        try requireSame(bytes, name, attributes, region)
        return bytes
      } catch {
        switch error.code {
        // Ours then: creation will find out what each region holds, and refuses what differs.
        case .walConflict, .interrupted: throw error
        default: repository.regions.log.record(.failed, region: region.name, object: name, detail: error.description)
        }
      }
    }
    return nil
  }

  /// Whether what stands under the name in `region` is this file, whole and by a trusted writer: a copy that rotted must
  /// not be acknowledged. It is replaced by `sealed`, after it was read and refused twice.
  private func isHeld(
    _ name: ObjectName, _ sealed: ObjectBody, _ attributes: SealedAttributes, by region: Region
  ) throws(TidemarkError) -> Bool {
    var attempt = 1
    while true {
      let found = try region.request { store throws(TidemarkError) in
        try store.read(region.key(name), range: nil, deadline: .after(.seconds(30)))
      }
      do throws(TidemarkError) {
        try SealedObject.verify(found, expectedName: name.text, trustedWriters: repository.keys.trustedWriters)
        try requireSame(found, name, attributes, region)
        return true
      } catch {
        let isDamage = error.code == .objectDamaged || error.code == .signatureInvalid
        guard isDamage, attempt < 3 else {
          throw error.with(object: "\(region.name): \(name)").with(
            kept: "the object there, unchanged, and the file in pg_wal", next: "'tidemark check' tests each region")
        }
        if attempt == 2 {
          repository.regions.log.record(.damaged, region: region.name, object: name, detail: error.description)
          repository.regions.mend(name, sealed.bytes, absent: [], damaged: [region])
        }
        attempt += 1
      }
    }
  }

  /// - Throws: `wal-conflict` when the object's plaintext has another digest.
  private func requireSame(
    _ sealed: [UInt8], _ name: ObjectName, _ attributes: SealedAttributes, _ region: Region
  ) throws(TidemarkError) {
    let header = try SealedHeader.parse(sealed)
    guard header.name == name.text, let theirs = header.attributes.plaintextDigest else {
      throw TidemarkError(
        .objectDamaged, "what the region holds under this name isn't this object", object: "\(region.name): \(name)",
        kept: "the object there, unchanged, and the file in pg_wal", next: "'tidemark verify' examines the regions")
    }
    guard let ours = attributes.plaintextDigest, theirs == ours else {
      throw TidemarkError(
        .walConflict, "another file of this name with other content is archived", object: "\(region.name): \(name)",
        cause: "archived SHA-256 \(theirs.hexadecimal), this file \(attributes.plaintextDigest?.hexadecimal ?? "none")",
        kept: "the archived file, unchanged, and this one in pg_wal",
        next: "find out whether two servers archive as the same cluster: compare pg_controldata and timelines")
    }
  }

  /// The control file of the cluster that the WAL file belongs to.
  private func controlFile(beside path: String) throws(TidemarkError) -> ControlFile? {
    var candidates = ["\(directoryName(path))/../global/pg_control"]
    if let dataDirectory { candidates.append("\(dataDirectory)/global/pg_control") }
    for candidate in candidates where fileExists(candidate) {
      return try ControlFile(rereading: { () throws(TidemarkError) in try readFile(candidate, limit: 64 << 10) })
    }
    return nil
  }

  private func known(_ control: ControlFile?, _ path: String) throws(TidemarkError) -> ControlFile {
    if let control { return control }
    throw TidemarkError(
      .walFileInvalid, "no pg_control tells which cluster this file belongs to", object: path,
      kept: "the file, unchanged", next: "set postgres.data-directory in the configuration")
  }
}

extension WALFileName {
  package var objectKind: ObjectKind {
    switch self {
    case .segment: .walSegment
    case .partial: .partialSegment
    case .history: .timelineHistory
    case .backupHistory: .backupHistory
    }
  }
}
