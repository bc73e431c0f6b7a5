// Wraps the data keys of what is stored anew for the recipients of the configuration. No object is changed, and none is
// read but its head: for each group of objects a new object, a re-wrap, holds their data keys, sealed to the recipients
// and signed by this host's writer. It ends anywhere without harm; the next run does what is left.
import Diagnostics
import Envelope
import ObjectStorage
import Synchronization
import SystemSupport

/// An object whose data key could not be had.
package struct RewrapFailure: Sendable, Codable, Equatable {
  package var object: String
  package var region: String
  package var reason: String
}

/// What was done in one lineage. All counts but `rewraps` are of objects; copies that two hosts sealed apart count twice.
package struct LineageRewrap: Sendable, Codable {
  package var systemIdentifier: String
  package var objects = 0
  /// Sealed to all recipients by their own header.
  package var current = 0
  /// In a re-wrap of an earlier run.
  package var covered = 0
  /// In a re-wrap of this run, or in one that a dry run would make.
  package var rewrapped = 0
  package var rewraps = 0
  package var rewrapBytes = 0
  package var notOpened = 0
  /// The first ``RewrapReport/failureCountMax`` of them.
  package var failures: [RewrapFailure] = []
}

package struct RewrapReport: Sendable {
  package static let failureCountMax = 100
  package var lineages: [LineageRewrap] = []
  package var regionsNotAsked: [String: String] = [:]
}

package struct KeyRewrap {
  private static let threadCount = 8
  private static let headLimit = Duration.seconds(60)
  /// Names that are tried when a damaged object has taken one.
  private static let nameCountMax = 8

  private let repository: Repository
  private let isDryRun: Bool
  private let progress: (LineageRewrap) -> Void
  private let wanted: Set<KeyID>
  private var regions: RegionSet { repository.regions }
  private var keys: RepositoryKeys { repository.keys }

  package init(_ repository: Repository, isDryRun: Bool, progress: @escaping (LineageRewrap) -> Void = { _ in }) {
    self.repository = repository
    self.isDryRun = isDryRun
    self.progress = progress
    wanted = Set(repository.keys.recipients.map(\.id))
  }

  /// - Throws: `no-key-opens` without an identity, `key-file-invalid` without a writer key, `configuration-invalid`
  ///   with one that isn't trusted and without a recipient, `locked` when another run is under way on this host, and what listing
  ///   and creating throw.
  package func run() throws(TidemarkError) -> RewrapReport {
    try requireKeys()
    let locks = "\(repository.stateDirectory)/locks"
    try DurableFile.createDirectories(locks)
    let lock = try FileLock(
      "\(locks)/rotate-\(repository.layout.cluster)", purpose: "a rotation of this cluster's keys")
    defer { withExtendedLifetime(lock) {} }
    var report = RewrapReport()
    let (lineages, failures) = try repository.lineages()
    for (name, error) in failures { report.regionsNotAsked[name] = error.description }
    for lineage in lineages { report.lineages.append(try rewrap(lineage, &report)) }
    return report
  }

  private func requireKeys() throws(TidemarkError) {
    guard !keys.identities.isEmpty else {
      throw TidemarkError(
        .noKeyOpens, "this host has no identity, so it can't open what is to be wrapped anew",
        next: "run it where encryption.identity-file holds the identity that opens the backups of before")
    }
    guard !wanted.isEmpty else {
      throw TidemarkError(
        .configurationInvalid, "there is no recipient to wrap keys for", next: "set encryption.recipients")
    }
    if isDryRun { return }
    let writer = try repository.writer().publicKey
    // Nobody would believe what it signs.
    guard keys.trustedWriters.contains(writer) else {
      throw TidemarkError(
        .configurationInvalid, "this host's own writer key is not trusted", object: writer.id.description,
        kept: "everything: nothing was written", next: "add its public key to encryption.trusted-writers on every host")
    }
  }

  private func rewrap(_ lineage: LineageLayout, _ report: inout RewrapReport) throws(TidemarkError) -> LineageRewrap {
    let listing = try regions.list(prefix: lineage.prefix)
    let heads = RewrapHeads(repository, failed: Set(report.regionsNotAsked.keys).union(listing.failures.keys))
    for (name, error) in listing.failures { report.regionsNotAsked[name] = error.description }
    var result = LineageRewrap(systemIdentifier: lineage.systemIdentifier.description)
    var groups: [RewrapGroup: [RegionListing.Entry]] = [:]
    var existing: [RewrapGroup: [RegionListing.Entry]] = [:]
    for entry in listing.entries {
      if let group = RewrapGroup(of: entry.name) {
        groups[group, default: []].append(entry)
      } else if let group = RewrapGroup(ofRewrap: entry.name) {
        existing[group, default: []].append(entry)
      }
    }
    for (group, entries) in groups.sorted(by: { $0.key < $1.key }) {
      let standing = existing[group] ?? []
      try rewrap(group, entries, standing.map(\.name), heads, &result)
      if !isDryRun { try complete(standing, listing.answered) }
      progress(result)
    }
    report.regionsNotAsked.merge(heads.failures) { first, _ in first }
    return result
  }

  private func rewrap(
    _ group: RewrapGroup, _ entries: [RegionListing.Entry], _ existing: [ObjectName], _ heads: RewrapHeads,
    _ result: inout LineageRewrap
  ) throws(TidemarkError) {
    result.objects += entries.count
    let found = try heads.read(entries, threadCount: Self.threadCount)
    for failure in found.failures { note(failure, &result) }
    let old = found.headers.filter { !wanted.isSubset(of: $0.header.recipients) }
    result.current += found.headers.count - old.count
    if old.isEmpty { return }
    var (current, earlier): ([DataKeyTable], [DataKeyTable]) = ([], [])
    for name in existing {
      guard let (table, recipients) = try opened(name) else { continue }
      if wanted.isSubset(of: recipients) { current.append(table) } else { earlier.append(table) }
    }
    var missing: [SHA256Digest: DataKey] = [:]
    for (header, region) in old {
      let digest = header.digest
      if current.contains(where: { $0[digest] != nil }) {
        result.covered += 1
        continue
      }
      do throws(TidemarkError) {
        missing[digest] = try key(header, digest, earlier)
      } catch {
        if error.code == .internalFault { throw error }
        note(RewrapFailure(object: header.name, region: region, reason: error.description), &result)
      }
    }
    let rows = missing.sorted { $0.key.bytes.lexicographicallyPrecedes($1.key.bytes) }
    for start in stride(from: 0, to: rows.count, by: DataKeyTable.countMax) {
      let part = Dictionary(
        uniqueKeysWithValues: rows[start..<min(rows.count, start + DataKeyTable.countMax)].map { ($0, $1) })
      try create(group, part, existing, &result)
    }
  }

  /// Copies re-wraps to regions that lack them: a run that was killed between two regions owes the copy to nobody.
  private func complete(_ standing: [RegionListing.Entry], _ answered: Set<Int>) throws(TidemarkError) {
    for entry in standing {
      let lacking = answered.subtracting(entry.holders).sorted().map { regions.regions[$0] }
      if lacking.isEmpty { continue }
      try unlessSpoilt {
        () throws(TidemarkError) in
        let bytes = try regions.read(entry.name, mends: false) { bytes, _ in
          try SealedObject.verify(
            bytes, expectedName: entry.name.text, expectedKind: .rewrap, trustedWriters: self.keys.trustedWriters)
          return bytes
        }
        regions.mend(entry.name, bytes, absent: lacking, damaged: [])
      }
    }
  }

  /// `nil` when what `body` reads is spoilt in every region, or was deleted meanwhile.
  @discardableResult
  private func unlessSpoilt<Result>(
    _ body: () throws(TidemarkError) -> Result
  ) throws(TidemarkError) -> Result? {
    do throws(TidemarkError) { return try body() } catch {
      switch error.code {
      case .objectDamaged, .signatureInvalid, .writerNotTrusted, .formatVersionUnknown, .objectNotFound: return nil
      default: throw error
      }
    }
  }

  private func key(
    _ header: SealedHeader, _ digest: SHA256Digest, _ earlier: [DataKeyTable]
  ) throws(TidemarkError) -> DataKey {
    do throws(TidemarkError) { return try header.dataKey(keys.identities) } catch {
      guard error.code == .noKeyOpens, let key = earlier.lazy.compactMap({ $0[digest] }).first else { throw error }
      return key
    }
  }

  private func note(_ failure: RewrapFailure, _ result: inout LineageRewrap) {
    result.notOpened += 1
    if result.failures.count < RewrapReport.failureCountMax { result.failures.append(failure) }
  }

  /// A re-wrap that stands, and whom it is sealed to; `nil` when it is spoilt or closed to this host.
  private func opened(_ name: ObjectName) throws(TidemarkError) -> (DataKeyTable, [KeyID])? {
    try unlessSpoilt { () throws(TidemarkError) in
      guard let table = try RewrapShelf.table(name, regions, keys, mends: !isDryRun) else { return nil }
      return (table, try recipients(name) ?? [])
    } ?? nil
  }

  /// Whom the re-wrap `name` is sealed to, when a trusted writer signed it; otherwise `nil`.
  private func recipients(_ name: ObjectName) throws(TidemarkError) -> [KeyID]? {
    try unlessSpoilt { () throws(TidemarkError) in
      try regions.read(name, mends: !isDryRun) { bytes, _ in
        try SealedObject.verify(
          bytes, expectedName: name.text, expectedKind: .rewrap, trustedWriters: self.keys.trustedWriters
        ).header.recipients
      }
    }
  }

  /// Creates the re-wrap of `rows` unless it stands. Its name follows from what is in it and for whom, so that a host that
  /// can't open it sees that it is there, and two that do the same at once make one.
  private func create(
    _ group: RewrapGroup, _ rows: [SHA256Digest: DataKey], _ existing: [ObjectName], _ result: inout LineageRewrap
  ) throws(TidemarkError) {
    try Termination.check()
    var content = wanted.map(\.bytes).sorted { $0.lexicographicallyPrecedes($1) }.flatMap { $0 }
    content += rows.keys.map(\.bytes).sorted { $0.lexicographicallyPrecedes($1) }.flatMap { $0 }
    let plaintext = DataKeyTable.encode(rows)
    for attempt in 0..<UInt8(Self.nameCountMax) {
      let name = group.rewrap(hexadecimalText(SHA256Digest.of(content + [attempt]).bytes.prefix(16)))
      if existing.contains(name) {
        guard let sealedTo = try recipients(name), wanted.isSubset(of: sealedTo) else { continue }
        result.covered += rows.count
        return
      }
      result.rewrapped += rows.count
      result.rewraps += 1
      if isDryRun { return }
      var attributes = SealedAttributes()
      attributes.plaintextDigest = SHA256Digest.of(plaintext)
      attributes.plaintextByteCount = UInt64(plaintext.count)
      let body = try repository.seal(.rewrap, name, plaintext, attributes: attributes)
      result.rewrapBytes += body.byteCount
      CrashPoint.reach("rotate.before-create")
      let (trusted, wanted) = (keys.trustedWriters, wanted)
      try regions.create(name, body) { region in
        let there = try region.request { store throws(TidemarkError) in
          try store.read(region.key(name), range: nil, deadline: .after(Self.headLimit))
        }
        let header = try SealedObject.verify(
          there, expectedName: name.text, expectedKind: .rewrap, trustedWriters: trusted
        ).header
        return wanted.isSubset(of: header.recipients)
      }
      CrashPoint.reach("rotate.after-create")
      return
    }
    throw TidemarkError(
      .objectDamaged, "spoilt objects stand under all names that a re-wrap could have", object: group.prefix,
      kept: "everything that is stored", next: "'tidemark verify' names them")
  }
}
