// A repository as the engines use it: regions, names, and the keys that seal, sign and open.
import Diagnostics
import Envelope
import Glibc
import Logging
import ObjectStorage
import PostgresFormats
import Synchronization
import SystemSupport

/// The keys that this host has. A host without an identity takes backups and can't read data; one without a writer key
/// restores and can't write.
package struct RepositoryKeys: Sendable {
  package var recipients: [RecipientPublicKey]
  package var trustedWriters: [WriterPublicKey]
  package var identities: [Identity]
  package var writer: WriterKey?

  package init(
    recipients: [RecipientPublicKey], trustedWriters: [WriterPublicKey], identities: [Identity], writer: WriterKey?
  ) {
    self.recipients = recipients
    self.trustedWriters = trustedWriters
    self.identities = identities
    self.writer = writer
  }

  /// What opens objects: the identities, and the writer's own for manifests and file tables.
  package var openers: [Identity] { identities + (writer.map { [$0.ownIdentity] } ?? []) }
}

package final class Repository: Sendable {
  package let layout: ClusterLayout
  package let regions: RegionSet
  package let keys: RepositoryKeys
  package let stateDirectory: String
  package let compressionLevel: Int
  package let logger: Logger
  private let rewraps: RewrapShelf

  package init(
    layout: ClusterLayout, regions: RegionSet, keys: RepositoryKeys, stateDirectory: String, compressionLevel: Int,
    logger: Logger
  ) {
    self.layout = layout
    self.regions = regions
    self.keys = keys
    self.stateDirectory = stateDirectory
    self.compressionLevel = compressionLevel
    self.logger = logger
    rewraps = RewrapShelf(regions, keys)
  }

  /// The same repository, reading from one region alone.
  package func only(region: String) throws(TidemarkError) -> Repository {
    Repository(
      layout: layout, regions: try regions.only(region), keys: keys, stateDirectory: stateDirectory,
      compressionLevel: compressionLevel, logger: logger)
  }

  /// The same repository without some regions.
  /// - Throws: `usage` when there is no such region, or none is left.
  package func without(regions names: [String]) throws(TidemarkError) -> Repository {
    Repository(
      layout: layout, regions: try regions.without(names), keys: keys, stateDirectory: stateDirectory,
      compressionLevel: compressionLevel, logger: logger)
  }

  /// The writer key, which every object that is created needs.
  /// - Throws: `key-file-invalid` when this host has none.
  package func writer() throws(TidemarkError) -> WriterKey {
    guard let writer = keys.writer else {
      throw TidemarkError(
        .keyFileInvalid, "this host has no writer key, so it can't create objects",
        next: "set encryption.writer-key-file; 'tidemark init' creates a missing one")
    }
    return writer
  }

  /// Who can open an object of `kind`: the recipients, and for what incremental backups, `list` and `expire` need the
  /// writer itself. Timelines' histories say nothing that the names of segments don't.
  package func recipients(for kind: ObjectKind) throws(TidemarkError) -> [RecipientPublicKey] {
    switch kind {
    case .manifest, .fileTable, .hold, .release, .lease, .timelineHistory:
      keys.recipients + [try writer().ownRecipient]
    default: keys.recipients
    }
  }

  /// An object without frames, to seal them as they come.
  package func sealedObject(_ kind: ObjectKind, _ name: ObjectName) throws(TidemarkError) -> SealedObjectWriter {
    try SealedObjectWriter(
      kind: kind, name: name.text, created: wallClockMicroseconds(), recipients: try recipients(for: kind),
      writer: try writer())
  }

  /// Seals `plaintext` whole, for a creation that follows at once. `attributes` is called on this thread while others
  /// compress, and what the stores need of the body is made meanwhile.
  package func seal(
    _ kind: ObjectKind, _ name: ObjectName, _ plaintext: UnsafeRawBufferPointer,
    attributes: () throws(TidemarkError) -> SealedAttributes
  ) throws(TidemarkError) -> ObjectBody {
    guard regions.regions.contains(where: { $0.store.sendsMD5 }) else {
      return ObjectBody(try sealed(kind, name, plaintext, attributes))
    }
    let md5 = try MD5Hasher()
    let pieces = try sealed(kind, name, plaintext, attributes) { (piece) throws(TidemarkError) in
      try md5.update(piece)
    }
    return ObjectBody(pieces, md5: try md5.finish())
  }

  /// Seals `plaintext` whole.
  package func seal(
    _ kind: ObjectKind, _ name: ObjectName, _ plaintext: [UInt8], attributes: SealedAttributes = SealedAttributes()
  ) throws(TidemarkError) -> ObjectBody {
    try plaintext.withUnsafeBufferPointer { buffer throws(TidemarkError) in
      ObjectBody(try sealed(kind, name, UnsafeRawBufferPointer(buffer)) { () throws(TidemarkError) in attributes })
    }
  }

  private func sealed(
    _ kind: ObjectKind, _ name: ObjectName, _ plaintext: UnsafeRawBufferPointer,
    _ attributes: () throws(TidemarkError) -> SealedAttributes,
    follow: ([UInt8]) throws(TidemarkError) -> Void = { _ in }
  ) throws(TidemarkError) -> [[UInt8]] {
    try SealedObject.seal(
      kind: kind, name: name.text, plaintext: plaintext, recipients: try recipients(for: kind), writer: try writer(),
      level: level(for: kind), created: wallClockMicroseconds(), attributes: attributes, follow: follow)
  }

  /// zstd's level for an object of `kind`. Lower for WAL: PostgreSQL waits for it, and the CPU is the database host's.
  /// See docs/decisions/2026-11-25-sizes-digest-level.md.
  private func level(for kind: ObjectKind) -> Int {
    switch kind {
    case .walSegment, .partialSegment, .walTail: min(compressionLevel, FrameCompressor.levelOfWAL)
    default: compressionLevel
    }
  }

  /// Reads, checks and opens a whole object from whichever region has a good copy.
  /// - Parameter limit: the plaintext bytes that are accepted.
  /// With `mends`, a copy that a region lacks or that is damaged is restored from the good one.
  package func readSealed(
    _ kind: ObjectKind, _ name: ObjectName, limit: Int, mends: Bool = true, limits: ReadLimits? = nil,
    meter: StageMeter? = nil
  ) throws(TidemarkError) -> (plaintext: [UInt8], sealed: [UInt8]) {
    try regions.read(name, mends: mends, limits: limits, meter: meter) { bytes, _ in
      (try self.open(kind, name, bytes).readAll(limit: limit), bytes)
    }
  }

  /// The same into a new file at `path`, or in the place of the one that is there. After an error it holds nothing that may
  /// be used.
  package func readSealed(
    _ kind: ObjectKind, _ name: ObjectName, limit: Int, to path: String, limits: ReadLimits? = nil,
    meter: StageMeter? = nil
  ) throws(TidemarkError) -> (header: SealedHeader, byteCount: Int) {
    try regions.read(name, limits: limits, meter: meter) { bytes, _ in
      let object = try self.open(kind, name, bytes)
      // Made when there is something to write, and anew when a region's copy turned out damaged half-way.
      let file = try OpenFile(path, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o600)
      try object.read(limit: limit) { (piece) throws(TidemarkError) in try file.write(piece) }
      try file.close()
      return (object.header, object.plaintextByteCount)
    }
  }

  /// Checks and opens an object that was read: with a key of this host, or with one that was wrapped anew for it. Nothing
  /// is asked of the regions unless the header alone doesn't suffice.
  /// - Throws: as ``SealedObject/open(_:expectedName:expectedKind:trustedWriters:identities:rewrapped:)``, and
  ///   `region-unreachable` when it isn't known whether the key was wrapped anew.
  package func open(_ kind: ObjectKind, _ name: ObjectName, _ bytes: [UInt8]) throws(TidemarkError) -> OpenedObject {
    try SealedObject.open(
      bytes, expectedName: name.text, expectedKind: kind, trustedWriters: keys.trustedWriters,
      identities: keys.openers
    ) { header throws(TidemarkError) in try self.rewraps.key(name, header) }
  }

  /// The same for an object of which head and end were read and checked.
  package func unlock(_ name: ObjectName, _ verified: VerifiedObject) throws(TidemarkError) -> UnlockedObject {
    try verified.unlock(keys.openers) { header throws(TidemarkError) in try self.rewraps.key(name, header) }
  }
}

// MARK: - The marker

extension Repository {
  /// The marker's content: clear, since it says nothing that the names don't say.
  private static let markerText = "tidemark repository, format 1\n"

  /// Creates the marker in every region that lacks it.
  /// - Returns: for each region whether it was created now.
  /// - Throws: `repository-foreign` when something else stands there, and what the store says.
  package func mark(_ region: Region, deadline: Deadline) throws(TidemarkError) -> Bool {
    let bytes = Array(Self.markerText.utf8)
    let key = region.key(layout.marker)
    let outcome = try region.request { store throws(TidemarkError) in
      if try store.information(key, deadline: deadline) != nil { return CreationOutcome.exists }
      return try store.create(key, bytes, deadline: deadline)
    }
    if outcome == .created { return true }
    let found = try region.request { store throws(TidemarkError) in
      try store.read(key, range: .bytes(offset: 0, count: 4096), deadline: deadline)
    }
    guard found == bytes else {
      throw TidemarkError(
        .repositoryForeign, "something that isn't this version's repository stands here",
        object: "\(region.name): \(key)",
        cause: "it begins with '\(String(decoding: found.prefix(40), as: UTF8.self))'",
        kept: "everything there, unchanged", next: "choose another prefix or cluster name")
    }
    return false
  }

  /// Whether a region is marked.
  package func isMarked(_ region: Region, deadline: Deadline) throws(TidemarkError) -> Bool {
    try regions.hasMarker(region, deadline: deadline)
  }
}
