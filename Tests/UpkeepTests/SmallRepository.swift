// A repository with small backups that no server took: manifests, file tables, packs and WAL as the format has them.
import BackupRepository
import Diagnostics
import Envelope
import Glibc
import Logging
import ObjectStorage
import PostgresFormats
import SystemSupport
import TestSupport

final class SmallRepository {
  let directory: TemporaryDirectory
  let layout: ClusterLayout
  let lineage: LineageLayout
  let keys: RepositoryKeys
  private let stores: [(name: String, store: any ObjectStore)]
  static let prefix = "tidemark"

  /// In two directories, or in `stores`.
  init(
    keys: RepositoryKeys? = nil, directory: TemporaryDirectory? = nil, stores: [(String, any ObjectStore)]? = nil,
    systemIdentifier: UInt64 = 7301
  ) throws {
    let directory = try directory ?? TemporaryDirectory()
    self.directory = directory
    layout = try ClusterLayout(cluster: "crm")
    lineage = layout.lineage(SystemIdentifier(rawValue: systemIdentifier))
    if let keys {
      self.keys = keys
    } else {
      let (identity, writer) = (Identity(), try WriterKey())
      self.keys = RepositoryKeys(
        recipients: [identity.recipient], trustedWriters: [writer.publicKey], identities: [identity], writer: writer)
    }
    if let stores {
      self.stores = stores.map { ($0.0, $0.1) }
    } else {
      self.stores = try ["west", "east"].map { name in
        let store = DirectoryStore(root: "\(directory.path)/\(name)")
        try store.prepare()
        return (name, store)
      }
    }
    let repository = open()
    for region in repository.regions.regions { _ = try repository.mark(region, deadline: .after(.seconds(10))) }
  }

  /// What a new process of a host would have; hosts differ by their state directory.
  func open(host: String = "host", wrapping: [String: (any ObjectStore) -> any ObjectStore] = [:]) -> Repository {
    let state = "\(directory.path)/\(host)"
    var limits = ReadLimits()
    limits.perRegion = .milliseconds(500)
    limits.total = .seconds(2)
    let regions = stores.map { name, store in
      Region(
        name: name, store: wrapping[name]?(store) ?? store, prefix: Self.prefix,
        health: RegionHealth(path: "\(state)/regions/\(name)"))
    }
    let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
    return Repository(
      layout: layout,
      regions: RegionSet(
        regions: regions, policy: DurabilityPolicy(required: min(2, regions.count), degradeAfter: .milliseconds(300)),
        marker: layout.marker, debts: DebtJournal(stateDirectory: state), log: RegionEventLog(logger: logger),
        readLimits: limits),
      keys: keys, stateDirectory: state, compressionLevel: 1, logger: logger)
  }

  func create(_ kind: ObjectKind, _ name: ObjectName, _ plaintext: [UInt8] = [1, 2, 3]) throws {
    let repository = open()
    try repository.regions.create(name, try repository.seal(kind, name, plaintext))
  }

  /// Stores a backup: `own` packs of its own, and a manifest that names them and `others`. It ends in the segment
  /// `number`, which is stored too, and ended `age` seconds ago.
  @discardableResult
  func backup(
    _ text: String, number: UInt32, age: Double, own: Int = 2, others: [String: [Int]] = [:], suspect: String? = nil,
    hasManifest: Bool = true, timeline: UInt32 = 1
  ) throws -> BackupLabelName {
    let label = try BackupLabelName(text)
    for pack in 0..<own { try create(.pack, lineage.pack(label, pack + 1), Array("\(text) \(pack)".utf8)) }
    try create(.fileTable, lineage.fileTablePart(label, 1), FileTablePartEncoder(blockSize: 65536).bytes)
    try wal(timeline: timeline, number)
    guard hasManifest else { return label }
    var manifest = BackupManifest(label: label, cluster: "crm", systemIdentifier: lineage.systemIdentifier)
    manifest.timeline = timeline
    manifest.startLSN = LSN(rawValue: UInt64(number) << 24 + 40).description
    manifest.stopLSN = LSN(rawValue: UInt64(number) << 24 + 400).description
    manifest.stopTime = Double(wallClockSeconds()) - age
    manifest.startTime = manifest.stopTime - 10
    manifest.walSegmentSize = 16 << 20
    manifest.blockSize = 65536
    manifest.fileTableParts = 1
    manifest.suspect = suspect
    manifest.labels = [text] + others.keys.sorted()
    manifest.packs = [.init(label: text, ranges: own > 0 ? [[1, own]] : [])]
    for (other, numbers) in others.sorted(by: { $0.key < $1.key }) {
      manifest.packs.append(.init(label: other, ranges: numbers.map { [$0, $0] }))
    }
    try create(.manifest, lineage.manifest(label), try manifest.encoded())
    return label
  }

  func wal(timeline: UInt32 = 1, _ number: UInt32) throws {
    let name = lineage.wal(.segment(WALSegmentName(timeline: TimelineID(timeline), log: 0, segment: number)))
    var attributes = SealedAttributes()
    let bytes = Array("\(timeline) \(number)".utf8)
    attributes.plaintextDigest = SHA256Digest.of(bytes)
    attributes.plaintextByteCount = UInt64(bytes.count)
    let repository = open()
    let sealed = try repository.seal(.walSegment, name, bytes, attributes: attributes)
    try repository.regions.create(name, sealed) { _ in true }
  }

  /// The names below the lineage that `region` holds, less the lineage's own prefix.
  func names(_ region: Int = 0) throws -> [String] {
    let prefix = "\(Self.prefix)/\(lineage.prefix)"
    var names: [String] = []
    try stores[region].store.list(prefix: prefix, startingAfter: nil, deadline: .after(.seconds(20))) {
      names.append(String($0.key.text.dropFirst(prefix.count)))
      return true
    }
    return names
  }

  func path(_ region: String, _ name: ObjectName) -> String { "\(directory.path)/\(region)/\(Self.prefix)/\(name)" }

  /// Makes every object that begins with `prefix` in the directories `seconds` older.
  func age(_ prefix: String, by seconds: Int) throws {
    for (name, store) in stores {
      try store.list(
        prefix: "\(Self.prefix)/\(lineage.prefix)\(prefix)", startingAfter: nil, deadline: .after(.seconds(20))
      ) { object in
        let then = timeval(tv_sec: Int(object.modified) - seconds, tv_usec: 0)
        guard utimes("\(directory.path)/\(name)/\(object.key)", [then, then]) == 0 else {
          throw systemError("cannot change the time", object.key.text)
        }
        return true
      }
    }
  }

  /// The packs that a manifest in `region` names and that the region lacks.
  func missingPacks(_ region: String) throws -> [ObjectName] {
    let repository = try open(host: "judge").only(region: region)
    let present = Set(try repository.regions.list(prefix: lineage.packsPrefix).entries.map(\.name))
    var missing: [ObjectName] = []
    for backup in try repository.catalog(lineage).backups {
      for reference in backup.manifest.packs {
        let label = try BackupLabelName(reference.label)
        missing += reference.numbers.map { lineage.pack(label, $0) }.filter { !present.contains($0) }
      }
    }
    return missing
  }
}

/// The code of the error that `body` throws; `nil` when it doesn't.
func thrownCode(_ body: () throws -> Void) -> ErrorCode? {
  do { try body() } catch { return TidemarkError.wrapping(error).code }
  return nil
}
