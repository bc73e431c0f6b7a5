// Everything that reads bytes from outside, one target each. Whatever the bytes, a target may throw and nothing else: a
// broken promise ends the process by a precondition, which both the seeded fuzzer and libFuzzer see as a crash.
import BackupRepository
import Configuration
import Diagnostics
import Envelope
import PostgresFormats
import S3Storage
import SystemSupport

package enum FuzzTarget: String, CaseIterable, Sendable {
  case tar, serverManifest, controlFile, walSegment, timelineHistory, backupLabel, tablespaceMap
  case sealedObject, fileTable, backupManifest, dataKeyTable
  case configuration, retentionPolicy, keyFile, names
  case s3Document

  /// Hands `bytes` to the target's readers. Returns whether they took them.
  @discardableResult
  package func run(_ bytes: [UInt8]) -> Bool {
    do throws(TidemarkError) {
      try read(bytes)
      return true
    } catch {
      // What an operator reads must be printable, whatever the bytes were.
      let text = error.operatorText
      precondition(!text.isEmpty, "an error without a text")
      return false
    }
  }

  private func read(_ bytes: [UInt8]) throws(TidemarkError) {
    switch self {
    case .tar: try Self.readTar(bytes)
    case .serverManifest: try Self.readServerManifest(bytes)
    case .controlFile: try Self.readControlFile(bytes)
    case .walSegment: try Self.readSegment(bytes)
    case .timelineHistory:
      let history = try TimelineHistory(timeline: TimelineID(7), parsing: bytes)
      precondition(
        !history.ranges.isEmpty && history.ranges.count <= history.entries.count + 1,
        "a path of no more parts than timelines")
    case .backupLabel: _ = try BackupLabel(parsing: bytes)
    case .tablespaceMap:
      let map = try TablespaceMap(parsing: bytes)
      for entry in map.entries { requireAbsolute(entry.location) }
      let again = try TablespaceMap(parsing: map.fileBytes)
      precondition(again == map, "a map makes the round")
    case .sealedObject: try FuzzSeeds.open(bytes)
    case .fileTable: try Self.readFileTable(bytes)
    case .backupManifest:
      let manifest = try BackupManifest(decoding: bytes)
      precondition(manifest.packs.allSatisfy { $0.numbers.allSatisfy { $0 > 0 } }, "packs count from one")
    case .dataKeyTable:
      let count = try DataKeyTable(decoding: bytes).count
      precondition(count * 64 + 1 == bytes.count, "rows of 64 bytes")
    case .configuration: _ = try TidemarkConfiguration(yaml: String(decoding: bytes, as: UTF8.self), file: "fuzzed")
    case .retentionPolicy: _ = try RetentionPolicy(yaml: String(decoding: bytes, as: UTF8.self), file: "fuzzed")
    case .keyFile: try FuzzSeeds.readKeyFile(bytes)
    case .names: try Self.readNames(String(decoding: bytes, as: UTF8.self))
    case .s3Document:
      guard S3Document.root(of: bytes) != nil else { throw TidemarkError(.storeAnswerInvalid, "not an answer") }
    }
  }

  /// In two pieces, the first byte deciding where.
  private static func readTar(_ bytes: [UInt8]) throws(TidemarkError) {
    var reader = TarReader()
    var dataByteCount = 0
    let cut = min(bytes.count, Int(bytes.first ?? 0) * 37)
    for piece in [bytes[..<cut], bytes[cut...]] {
      let part = Array(piece)
      try part.span.withUnsafeBytes { (buffer) throws(TidemarkError) in
        try reader.feed(buffer) { (event) throws(TidemarkError) in
          switch event {
          case .file(let header), .directory(let header): requireBelow(header.path)
          case .symbolicLink(let header, let target):
            requireBelow(header.path)
            requireAbsolute(target)
          case .data(let data): dataByteCount += data.count
          case .endOfFile, .end: break
          }
        }
      }
    }
    precondition(dataByteCount <= bytes.count, "more contents than bytes")
    try reader.finish()
  }

  private static func readServerManifest(_ bytes: [UInt8]) throws(TidemarkError) {
    var reader = ServerManifestReader()
    try bytes.span.withUnsafeBytes { (buffer) throws(TidemarkError) in
      try reader.feed(buffer) { (file) throws(TidemarkError) in requireBelow(file.path) }
    }
    _ = try reader.finish()
  }

  /// With the right checksum, or nothing would get past it.
  private static func readControlFile(_ bytes: [UInt8]) throws(TidemarkError) {
    _ = try? ControlFile(bytes)
    guard bytes.count >= 300 else { throw TidemarkError(.walFileInvalid, "too short") }
    var fitting = bytes
    let offset = bytes[8] == 0x08 ? 292 : 288
    let checksum = bytes.withUnsafeBytes { CRC32C.of(UnsafeRawBufferPointer(rebasing: $0[..<offset])) }
    fitting.replaceSubrange(offset..<offset + 4, with: withUnsafeBytes(of: checksum.littleEndian) { Array($0) })
    _ = try ControlFile(fitting)
  }

  /// The bytes stand at the beginning of a segment of 1 MiB, whose other pages are empty.
  private static func readSegment(_ bytes: [UInt8]) throws(TidemarkError) {
    var segment = FuzzSeeds.segment
    let count = min(bytes.count, segment.count)
    segment.replaceSubrange(..<count, with: bytes[..<count])
    try segment.span.withUnsafeBytes { (buffer) throws(TidemarkError) in
      let name = FuzzSeeds.segmentName
      let header = try WALSegmentCheck.check(
        name, first: buffer, fileByteCount: UInt64(buffer.count), systemIdentifier: nil)
      let summary = try WALSegmentScanner.scan(buffer, name: name)
      if let unfinished = summary.unfinished {
        precondition(unfinished.bytes.count <= unfinished.byteCount, "more of a record than it has")
      }
      let start = header.pageAddress.rawValue
      precondition(
        summary.end.rawValue >= start && summary.end.rawValue <= start + UInt64(buffer.count), "an end elsewhere")
    }
  }

  private static func readFileTable(_ bytes: [UInt8]) throws(TidemarkError) {
    var decoder = try FileTablePartDecoder(bytes)
    while let entry = try decoder.next() {
      precondition(entry.path.isEmpty || isSafeRelativePath(entry.path), "a path that leads elsewhere")
    }
  }

  private static func readNames(_ text: String) throws(TidemarkError) {
    _ = try? LSN(text: text)
    _ = try? RecoveryTime(text: text)
    _ = try? BackupLabelName(text)
    _ = try? ObjectName(text)
    let name = try WALFileName(text: text)
    precondition(name.description == text, "a name that isn't its own")
    if case .segment(let segment) = name { _ = try segment.next(.standard) }
  }
}

/// What a path from outside promises after its check.
private func requireBelow(_ path: String) {
  precondition(!path.isEmpty && isSafeRelativePath(path), "a path that leads elsewhere")
}

private func requireAbsolute(_ path: String) {
  precondition(path.hasPrefix("/") && isSafeRelativePath(String(path.dropFirst())), "a location with detours")
}
