// Good input for each target, from which the fuzzers start, and the keys that make it good.
import BackupRepository
import Diagnostics
import Envelope
import Glibc
import PostgresFormats
import SystemSupport

package enum FuzzSeeds {
  // Keys that protect nothing: they make the same objects fit in every run.
  private static let identityText =
    "tidemark-identity-secret-2cdjped6iij7uif6vcj6xmf3vrdyylhrapiaouui4roctttjjfrx7gatxm"
  private static let writerText = "tidemark-writer-secret-ygxn7vnsvskvivzdj2ysahnnczxjd5dalqraqsmvtjwey5corehtvyusfi"
  private static let objectName = "crm/7301/packs/b/00000001"
  private static let plaintext = [UInt8]("what the writer sealed".utf8)

  /// Opens a sealed object; one that opens must be what the writer sealed.
  static func open(_ bytes: [UInt8]) throws(TidemarkError) {
    _ = try? SealedHeader.parse(bytes)
    let writer = try WriterKey(secretText: writerText)
    let identity = try Identity(secretText: identityText)
    let opened = try SealedObject.open(
      bytes, expectedName: objectName, expectedKind: .pack, trustedWriters: [writer.publicKey], identities: [identity])
    let content = try opened.readAll(limit: 1 << 20)
    precondition(content == plaintext, "a forged object was opened")
  }

  /// A file of this process's own that nobody else reads.
  static func readKeyFile(_ bytes: [UInt8]) throws(TidemarkError) {
    let path = "/dev/shm/tidemark-fuzz-\(getpid())-\(pthread_self())"
    defer { unlink(path) }
    try DurableFile.write(bytes, to: path)
    _ = try? KeyFile.writer(path)
    _ = try KeyFile.identities(path)
  }

  // MARK: WAL

  static let segmentName = WALSegmentName(timeline: TimelineID(1), log: 0, segment: 3)

  /// 1 MiB at 0/300000 of timeline 1, without a record.
  static let segment: [UInt8] = {
    var bytes = [UInt8](repeating: 0, count: 1 << 20)
    for page in stride(from: 0, to: bytes.count, by: 8192) {
      let header = pageHeader(isFirst: page == 0, address: 0x30_0000 + UInt64(page))
      bytes.replaceSubrange(page..<page + header.count, with: header)
    }
    return bytes
  }()

  private static func pageHeader(isFirst: Bool, address: UInt64) -> [UInt8] {
    let short =
      little(UInt16(0xD110)) + little(UInt16(isFirst ? 2 : 0)) + little(UInt32(1)) + little(address) + little(UInt64(0))
    return isFirst ? short + little(UInt64(7301)) + little(UInt32(1 << 20)) + little(UInt32(8192)) : short
  }

  private static func record(_ manager: UInt8, _ info: UInt8, previous: UInt64, _ data: [UInt8]) -> [UInt8] {
    var bytes = little(UInt32(26 + data.count)) + little(UInt32(5)) + little(previous) + [info, manager, 0, 0]
    bytes += little(UInt32(0)) + [255, UInt8(data.count)] + data
    return bytes + [UInt8](repeating: 0, count: (8 - bytes.count % 8) % 8)
  }

  private static func little<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
    withUnsafeBytes(of: value.littleEndian) { Array($0) }
  }

  private static var records: [UInt8] {
    var bytes = pageHeader(isFirst: true, address: 0x30_0000)
    let parts: [(UInt8, UInt8, [UInt8])] = [
      (1, 0x00, little(Int64(5))), (0, 0x70, little(Int64(6)) + Array("point".utf8) + [0]),
      (5, 0x00, little(UInt32(16385)) + Array("/srv/a".utf8) + [0]), (1, 0x20, little(Int64(7))), (0, 0x40, []),
    ]
    var previous: UInt64 = 0
    for (manager, info, data) in parts {
      let start = 0x30_0000 + UInt64(bytes.count)
      bytes += record(manager, info, previous: previous, data)
      previous = start
    }
    return bytes
  }

  // MARK: Archives

  private static func tarMember(_ name: String, _ type: UInt8, size: Int, target: String = "") -> [UInt8] {
    var block = [UInt8](repeating: 0, count: 512)
    func put(_ text: String, _ offset: Int) {
      block.replaceSubrange(offset..<offset + text.utf8.count, with: text.utf8)
    }
    put(name, 0)
    put("0000600\0", 100)
    let octal = String(size, radix: 8)
    put(String(repeating: "0", count: 11 - octal.count) + octal + "\0", 124)
    block[156] = type
    put(target, 157)
    put("ustar\u{0}00", 257)
    put("        ", 148)
    let sum = String(block.reduce(0) { $0 + Int($1) }, radix: 8)
    put(String(repeating: "0", count: 6 - sum.count) + sum + "\0 ", 148)
    return block + [UInt8](repeating: 7, count: size) + [UInt8](repeating: 0, count: (512 - size % 512) % 512)
  }

  private static var archive: [UInt8] {
    tarMember("base", 0x35, size: 0) + tarMember("base/1", 0x30, size: 700)
      + tarMember("pg_tblspc/16385", 0x32, size: 0, target: "/srv/a") + tarMember("empty", 0x30, size: 0)
      + [UInt8](repeating: 0, count: 1024)
  }

  private static var controlFile: [UInt8] {
    var bytes = [UInt8](repeating: 0, count: 8192)
    bytes.replaceSubrange(
      0..<20, with: little(UInt64(7301)) + little(UInt32(1300)) + little(UInt32(5)) + little(UInt32(6)))
    bytes.replaceSubrange(228..<232, with: little(UInt32(16 << 20)))
    return bytes
  }

  // MARK: The repository's objects

  private static func sealed() throws(TidemarkError) -> [UInt8] {
    let identity = try Identity(secretText: identityText)
    return try SealedObject.seal(
      kind: .pack, name: objectName, plaintext: plaintext, recipients: [identity.recipient],
      writer: try WriterKey(secretText: writerText), level: 1, created: 0)
  }

  private static func fileTable() throws(TidemarkError) -> [UInt8] {
    var encoder = FileTablePartEncoder(blockSize: 65536)
    try encoder.append(FileTableEntry(path: "base", mode: 0o700, content: .directory))
    try encoder.append(FileTableEntry(path: "pg_wal", mode: 0o777, content: .symbolicLink(target: "/srv/wal")))
    let runs = [BlockRun(count: 2, label: 0, pack: 1, frame: 0, offset: 0)]
    let digests = [UInt8](repeating: 9, count: 2 * FileTable.digestByteCount)
    try encoder.append(
      FileTableEntry(
        path: "base/1", mode: 0o600, content: .file(byteCount: 70000, crc32c: 1, digests: digests, runs: runs)))
    return encoder.bytes
  }

  private static func manifest() throws(TidemarkError) -> [UInt8] {
    let label = try BackupLabelName("20261124T031500Z-3f9a")
    var manifest = BackupManifest(label: label, cluster: "crm", systemIdentifier: SystemIdentifier(rawValue: 7301))
    manifest.timeline = 1
    (manifest.startLSN, manifest.stopLSN) = ("0/2000028", "0/3000000")
    (manifest.walSegmentSize, manifest.blockSize) = (16 << 20, 65536)
    (manifest.fileTableParts, manifest.fileCount) = (1, 1)
    manifest.labels = [label.text]
    manifest.packs = [.init(label: label.text, ranges: [[1, 3]])]
    return try manifest.encoded()
  }

  private static let configuration = """
    cluster: crm
    postgres: {connection: "host=/run user=x", data-directory: /srv/data}
    repository:
      prefix: tidemark
      durability: {required: 1, degrade-after: 60s}
      regions:
        - {name: a, endpoint: "https://s3.example:9000", bucket: crm, region: us-1}
        - {name: b, endpoint: "file:///srv/b"}
    encryption: {identity-file: /etc/i, writer-key-file: /etc/w}
    limits: {upload-rate: 10MiB, workers: 2}
    state-directory: /var/lib/x
    """

  private static let s3Answer = """
    <?xml version="1.0" encoding="UTF-8"?><!-- page --><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
    <IsTruncated>true</IsTruncated><NextContinuationToken>a&amp;b&#x20;</NextContinuationToken><Contents><Key>k/1</Key>
    <Size>5</Size><LastModified>2026-11-24T03:15:00.000Z</LastModified></Contents><Empty/><![CDATA[x]]></ListBucketResult>
    """

  /// Without its checksum, which stands at the end.
  private static let serverManifest = """
    { "PostgreSQL-Backup-Manifest-Version": 1,
    "Files": [
    { "Path": "PG_VERSION", "Size": 3, "Last-Modified": "2026-11-24 01:00:00 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "64440205" },
    { "Encoded-Path": "612f62", "Size": 0, "Last-Modified": "" }
    ],
    "WAL-Ranges": [
    { "Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000100" }
    ],
    "Manifest-Checksum": "8d9b2e56a8a1d4a1cfb3c4d57c1a7cf9c0ad3e31c6ec8d2e6ae9b1e0a5d7a7f0"}

    """

  /// Input that `target` takes, but for the manifest, whose checksum no fuzzer would keep.
  package static func seeds(_ target: FuzzTarget) throws(TidemarkError) -> [[UInt8]] {
    func text(_ lines: String...) -> [[UInt8]] { lines.map { Array($0.utf8) } }
    switch target {
    case .tar: return [archive]
    case .serverManifest: return text(serverManifest)
    case .controlFile: return [controlFile]
    case .walSegment: return [records]
    case .timelineHistory: return text("1\t0/3000000\tno recovery target specified\n\n4\t1/0\tbefore 2026\n")
    case .backupLabel:
      return text(
        "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\n"
          + "BACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIME: 2026\nLABEL: x\nSTART TIMELINE: 1\n")
    case .tablespaceMap: return text("16385 /srv/a b\n16386 /srv/back\\\\slash\n")
    case .sealedObject: return [try sealed()]
    case .fileTable: return [try fileTable()]
    case .backupManifest: return [try manifest()]
    case .dataKeyTable: return [[1] + (0..<192).map { UInt8($0) }]
    case .configuration: return text(configuration)
    case .retentionPolicy: return text("window: 30d\ndaily: 0\nweekly: 8\nnewest: 3\ngrace: 24h\n")
    case .keyFile: return text("# a comment\n\(identityText)\n", "\(identityText) said who\n\(identityText)\n")
    case .names: return text("0000000100000000000000A3", "00000002.history", "0000000200000000000000A3.00000028.backup")
    case .s3Document: return text(s3Answer)
    }
  }
}
