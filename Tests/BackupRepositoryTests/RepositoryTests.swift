// Repositories with keys: who reads what, the marker, the catalogues of backups and WAL.
import Diagnostics
import Envelope
import ObjectStorage
import PostgresFormats
import SystemSupport
import Testing

@testable import BackupRepository

@Suite("A repository") struct RepositoryTests {
  let setup: TwoRegions
  let identity = Identity()
  let writer: WriterKey
  let lineage: LineageLayout

  init() throws {
    setup = try TwoRegions()
    writer = try WriterKey()
    lineage = setup.layout.lineage(SystemIdentifier(rawValue: 7301))
  }

  /// With the keys of a host that backs up and restores, or without some of them.
  func repository(identities: [Identity]? = nil, trusted: [WriterPublicKey]? = nil, writes: Bool = true) -> Repository {
    setup.repository(
      RepositoryKeys(
        recipients: [identity.recipient], trustedWriters: trusted ?? [writer.publicKey],
        identities: identities ?? [identity], writer: writes ? writer : nil))
  }

  func store(_ kind: ObjectKind, _ name: ObjectName, _ plaintext: [UInt8]) throws {
    let repository = repository()
    try repository.regions.create(name, try repository.seal(kind, name, plaintext))
  }

  func storeManifest(_ label: String, stop: String = "0/3000000", name: String? = nil) throws {
    let manifest = try BackupManifest.sample(label, stop: stop)
    try store(.manifest, lineage.manifest(try BackupLabelName(name ?? label)), try manifest.encoded())
  }

  func segment(_ text: String) throws -> WALSegmentName { try #require(WALSegmentName(text)) }

  @Test("a memory of the newest backup that can't be read is told, and doesn't count as none")
  func unreadableMemory() throws {
    let memory = NewestBackupMemory(repository(), lineage)
    let catalog = LineageCatalog(layout: lineage)
    #expect(memory.finding(catalog) == nil)
    try memory.remember(try BackupLabelName("a"))
    #expect(try #require(memory.finding(catalog)).contains("is in no region any more"))
    let path = "\(setup.directory.path)/newest/crm-7301"
    try DurableFile.remove(path)
    try DurableFile.createDirectories(path)
    #expect(try #require(memory.finding(catalog)).contains("can't be read"))
  }

  @Test("a part of the file table is written in frames, whose edges are nobody's: not those of entries")
  func fileTableFrames() throws {
    let name = lineage.fileTablePart(try BackupLabelName("a"), 1)
    var part = try FileTablePartWriter(repository(), name, blockSize: FileTableTests.blockSize)
    // More than two frames of many entries, and two of one.
    var entries = (0..<50_000).map { FileTableTests.file("base/5/\(16384 + $0)", 8192) }
    entries.append(FileTableTests.file("base/5/1", 8192 << 17, runLength: 100))
    entries.append(FileTableTests.file("base/5/2", 0))
    for entry in entries {
      let isFull = part.isFull
      #expect(!isFull)
      try part.append(entry)
    }
    let pieces = try part.finish()
    try repository().regions.create(name, ObjectBody(pieces))
    let (plaintext, _) = try repository().readSealed(.fileTable, name, limit: FileTable.partByteCountMax)
    // The header, frames of 1 MiB, the footer.
    #expect(pieces.count == 1 + (plaintext.count + 1 << 20 - 1) >> 20 + 1)
    #expect(pieces.count > 5)
    var decoder = try FileTablePartDecoder(plaintext)
    var decoded: [FileTableEntry] = []
    while let entry = try decoder.next() { decoded.append(entry) }
    #expect(decoded == entries)
  }

  @Test("a part is full after eight MiB, taken or not") func fullPart() throws {
    let entry = FileTableTests.file("base/5/1", 8192 << 17, runLength: 1 << 17)
    var part = try FileTablePartWriter(
      repository(), lineage.fileTablePart(try BackupLabelName("a"), 1), blockSize: FileTableTests.blockSize)
    for count in 1...4 {
      try part.append(entry)
      let isFull = part.isFull
      #expect(isFull == (count == 4), "\(count) entries of 2 MiB")
    }
  }

  @Test("a host without an identity reads manifests and file tables that it wrote, and no packs") func writerOnly()
    throws
  {
    let label = try BackupLabelName("b")
    let objects: [(ObjectKind, ObjectName)] = [
      (.manifest, lineage.manifest(label)), (.fileTable, lineage.fileTablePart(label, 1)),
      (.pack, lineage.pack(label, 1)),
    ]
    for (kind, name) in objects { try store(kind, name, [1, 2, 3]) }
    let writerHost = repository(identities: [])
    for (kind, name) in objects.prefix(2) {
      #expect(try writerHost.readSealed(kind, name, limit: 10).plaintext == [1, 2, 3])
    }
    #expect(thrownCode { _ = try writerHost.readSealed(.pack, objects[2].1, limit: 10) } == .noKeyOpens)
    for (kind, name) in objects {
      #expect(try repository(writes: false).readSealed(kind, name, limit: 10).plaintext == [1, 2, 3])
    }
  }

  @Test("a host without a writer key creates nothing") func readerOnly() throws {
    let reader = repository(writes: false)
    #expect(thrownCode { _ = try reader.seal(.pack, setup.name, [1]) } == .keyFileInvalid)
  }

  @Test("a copy that rotted in one region is read from the other and replaced", arguments: [0, 1, 2])
  func rot(_ place: Int) throws {
    try store(.pack, setup.name, Array(repeating: 7, count: 5000))
    let whole = try #require(setup.east.object(setup.key))
    setup.west.script { state in
      let count = whole.count
      // In the header, in the list of wrapped keys' last bytes, and in the footer's signature.
      let position = [10, 330, count - 20][place]
      state.objects[setup.key]?[position] ^= 4
    }
    let repository = repository()
    #expect(try repository.readSealed(.pack, setup.name, limit: 5000).plaintext == Array(repeating: 7, count: 5000))
    #expect(repository.regions.happened == ["west damaged", "west mended"])
    #expect(setup.west.object(setup.key) == whole)
  }

  @Test("an object that stands under another's name is damage") func swapped() throws {
    let other = lineage.pack(try BackupLabelName("b"), 2)
    try store(.pack, setup.name, [1])
    try store(.pack, other, [2])
    for store in [setup.west, setup.east] { store.script { $0.objects[setup.key] = $0.objects["tidemark/\(other)"] } }
    #expect(thrownCode { _ = try repository().readSealed(.pack, setup.name, limit: 10) } == .objectDamaged)
  }

  @Test("another writer's objects are refused, and not deleted") func foreignWriter() throws {
    try store(.pack, setup.name, [1])
    let suspicious = repository(trusted: [try WriterKey().publicKey])
    #expect(thrownCode { _ = try suspicious.readSealed(.pack, setup.name, limit: 10) } == .writerNotTrusted)
    #expect(setup.west.object(setup.key) != nil && setup.east.object(setup.key) != nil)
  }

  @Test("a region is marked once, and what somebody else put there is refused") func marker() throws {
    let fresh = try TwoRegions(marked: false)
    let keys = RepositoryKeys(recipients: [], trustedWriters: [], identities: [], writer: nil)
    let repository = fresh.repository(keys)
    let west = repository.regions.regions[0]
    #expect(try !repository.isMarked(west, deadline: .never))
    #expect(try repository.mark(west, deadline: .never))
    #expect(try !repository.mark(west, deadline: .never))
    #expect(try repository.isMarked(west, deadline: .never))
    #expect(fresh.west.object("tidemark/crm/repository") == Array("tidemark repository, format 1\n".utf8))
    fresh.east.script { $0.objects["tidemark/crm/repository"] = Array("something else".utf8) }
    let east = repository.regions.regions[1]
    #expect(thrownCode { _ = try repository.mark(east, deadline: .never) } == .repositoryForeign)
    #expect(fresh.east.object("tidemark/crm/repository") == Array("something else".utf8))
  }

  @Test("backups are listed by their WAL, and what can't be used is shown") func catalog() throws {
    try storeManifest("20261101T000000Z-0002", stop: "0/9000000")
    try storeManifest("20261130T000000Z-0001", stop: "0/5000000")
    try storeManifest("20261125T000000Z-0003", name: "20261126T000000Z-0003")
    try store(.manifest, lineage.manifest(try BackupLabelName("broken")), [1, 2])
    setup.east.script { $0.objects["tidemark/crm/7301/backups/20261130T000000Z-0001/manifest"] = nil }
    let catalog = try repository().catalog(lineage)
    #expect(catalog.backups.map(\.label.text) == ["20261130T000000Z-0001", "20261101T000000Z-0002"])
    #expect(catalog.backups.map(\.regions) == [["west"], ["west", "east"]])
    let sealed = try #require(setup.west.object("tidemark/crm/7301/backups/20261101T000000Z-0002/manifest"))
    #expect(catalog.backups[1].manifestDigest == SHA256Digest.of(sealed).hexadecimal)
    #expect(catalog.unusable.map { $0.name.text.split(separator: "/")[3] } == ["20261126T000000Z-0003", "broken"])
  }

  @Test("lineages are found by hopping, in every region") func lineages() throws {
    setup.west.script { state in
      for number in 0..<50 { state.objects["tidemark/crm/73/packs/b/\(number)"] = [] }
      state.objects["tidemark/crm/730/wal/00000001/x"] = []
      state.objects["tidemark/crm/probes/x"] = []
      state.objects["tidemark/crm-test/9/x"] = []
    }
    setup.east.script { $0.objects["tidemark/crm/18446744073709551615/wal/x"] = [] }
    let found = try repository().lineages()
    #expect(found.lineages.map(\.systemIdentifier.rawValue) == [73, 730, .max])
    #expect(found.failures.isEmpty)
    #expect(setup.west.requests.filter { $0.hasPrefix("list") }.count == 5)
    setup.east.script { $0.behaviour = .fails(.accessDenied) }
    let half = try repository().lineages()
    #expect(half.lineages.map(\.systemIdentifier.rawValue) == [73, 730])
    #expect(half.failures.mapValues(\.code) == ["east": .accessDenied])
  }

  @Test("WAL is catalogued with its holes and holders") func wal() throws {
    let texts = [
      "000000010000000000000001", "0000000100000000000000FE", "0000000100000000000000FF", "000000010000000100000000",
      "000000010000000100000002", "000000020000000100000000",
    ]
    let history = Array("1\t0/FF000000\tno recovery target specified\n".utf8)
    try store(.timelineHistory, lineage.wal(.history(TimelineID(2))), history)
    setup.west.script { state in
      for text in texts { state.objects["tidemark/crm/7301/wal/\(text.prefix(8))/\(text)"] = [] }
      state.objects["tidemark/crm/7301/wal/00000001/000000010000000100000001.partial"] = []
      // None of these is a segment that a fetch would find.
      state.objects["tidemark/crm/7301/wal/00000002/000000010000000100000001"] = []
      state.objects["tidemark/crm/7301/wal/00000001/x/000000010000000100000001"] = []
      state.objects["tidemark/crm/7301/wal/00000001/README"] = []
    }
    setup.east.script { $0.objects["tidemark/crm/7301/wal/00000001/000000010000000000000001"] = [] }
    let catalog = try repository().walCatalog(lineage, segmentSize: .standard)
    #expect(
      catalog.ranges.map { "\($0.first)-\($0.last)" } == [
        "\(texts[0])-\(texts[0])", "\(texts[1])-\(texts[3])", "\(texts[4])-\(texts[4])", "\(texts[5])-\(texts[5])",
      ])
    #expect(catalog.segments[TimelineID(1)]?.map(\.holders) == [[0, 1], [0], [0], [0], [0]])
    #expect(catalog.partials.map(\.description) == ["000000010000000100000001"])
    #expect(catalog.histories[TimelineID(2)] != nil)
    #expect(catalog.endOfRun(from: try segment(texts[1])) == (try segment(texts[3])))
    #expect(catalog.endOfRun(from: try segment(texts[0])) == (try segment(texts[0])))
    #expect(catalog.endOfRun(from: try segment("000000010000000100000001")) == nil)
    for text in texts { #expect(catalog.holds(try segment(text))) }
    #expect(!catalog.holds(try segment("000000010000000000000002")))
    #expect(!catalog.holds(try segment("000000030000000000000001")))
  }
}
