// A server's BASE_BACKUP as a source: tar archives to entries, tablespaces' archives under `pg_tblspc/OID/`, and every
// file compared with the server's own manifest by size and CRC32C before the backup counts as complete.
import BackupRepository
import Diagnostics
import PostgresFormats
import PostgresReplication

package struct ServerStreamSource: BackupSource {
  /// The server's manifest is kept as the last file, under this name, where PostgreSQL's own tools look for it.
  package static let manifestName = "backup_manifest"

  private let stream: BaseBackupStream

  /// `connection` is a replication connection.
  package init(_ connection: PostgresConnection, _ options: BaseBackupOptions) {
    stream = BaseBackupStream(connection, options)
  }

  package mutating func run(_ receive: (SourceEvent) throws -> Void) throws(TidemarkError) {
    var tar: TarReader?
    var prefix = ""
    var check = ManifestCheck()
    var manifest: ServerManifestReader?
    var manifestChecksum = CRC32C()
    try stream.run { event in
      switch event {
      case .started(let start):
        try receive(
          .started(
            SourceStart(
              startLSN: start.startLSN, timeline: start.timeline,
              tablespaces: start.tablespaces.compactMap { tablespace in
                tablespace.oid.map { ($0, tablespace.location ?? "") }
              },
              estimatedByteCount: start.tablespaces.reduce(0) { $0 + ($1.estimatedByteCount ?? 0) })))
      case .archive(let archive):
        try tar?.finish()
        tar = TarReader()
        prefix = archive.isMain ? "" : "pg_tblspc/\(archive.tablespace.oid ?? 0)/"
      case .data(let bytes):
        guard var reader = tar.take() else {
          throw TidemarkError(.streamInvalid, "data came before the first archive")
        }
        try reader.feed(bytes) { (member) throws(TidemarkError) in
          try Self.translate(member, prefix, &check, receive)
        }
        tar = reader
      case .progress: break
      case .manifestBegins:
        try tar?.finish()
        tar = nil
        manifest = ServerManifestReader()
        try receive(.beginFile(SourceEntry(path: Self.manifestName, mode: 0o600)))
      case .manifestData(let bytes):
        guard var reader = manifest.take() else {
          throw TidemarkError(.streamInvalid, "data of the manifest came before its beginning")
        }
        try reader.feed(bytes) { (file) throws(TidemarkError) in try check.compare(file) }
        manifest = reader
        manifestChecksum.update(bytes)
        try receive(.data(bytes))
      case .finished(let end):
        guard var reader = manifest.take() else {
          throw TidemarkError(.streamInvalid, "the server sent no backup manifest")
        }
        _ = try reader.finish()
        try check.finish()
        try receive(.endFile(crc32c: manifestChecksum.value))
        try receive(
          .finished(SourceEnd(stopLSN: end.stopLSN, timeline: end.timeline, checksumFailure: end.checksumFailure)))
      }
    }
  }

  private static func translate(
    _ member: TarReader.Event, _ prefix: String, _ check: inout ManifestCheck, _ receive: (SourceEvent) throws -> Void
  ) throws(TidemarkError) {
    try mapAny {
      switch member {
      case .file(let header):
        check.begin(prefix + header.path)
        try receive(.beginFile(SourceEntry(path: prefix + header.path, mode: header.mode)))
      case .data(let bytes):
        check.add(bytes)
        try receive(.data(bytes))
      case .endOfFile:
        try receive(.endFile(crc32c: check.end()))
      case .directory(let header):
        // A tablespace's archive has its root as "." or not at all.
        try receive(.directory(SourceEntry(path: prefix + header.path, mode: header.mode)))
      case .symbolicLink(let header, let target):
        try receive(.symbolicLink(SourceEntry(path: prefix + header.path, mode: header.mode), target: target))
      case .end: break
      }
    }
  }
}

/// Compares what was received with the server's manifest. Memory: 24 bytes for each file.
struct ManifestCheck {
  private struct Received {
    var pathHash: Int
    var byteCount: UInt64
    var crc32c: UInt32
  }
  /// In pieces, so that growing copies none of them: an array that doubles needs three times its size meanwhile.
  private var pieces: [[Received]] = []
  private static let pieceCount = 1 << 14
  private var fileCount = 0
  private var next = 0
  /// Built only when the manifest's order isn't the stream's.
  private var byHash: [Int: Int]?
  private var crc = CRC32C()

  mutating func begin(_ path: String) {
    if fileCount % Self.pieceCount == 0 {
      pieces.append([])
      pieces[pieces.count - 1].reserveCapacity(Self.pieceCount)
    }
    pieces[pieces.count - 1].append(Received(pathHash: path.hashValue, byteCount: 0, crc32c: 0))
    fileCount += 1
    crc = CRC32C()
  }

  mutating func add(_ bytes: UnsafeRawBufferPointer) {
    crc.update(bytes)
    withLast { $0.byteCount += UInt64(bytes.count) }
  }

  /// Ends the file and returns its CRC32C.
  mutating func end() -> UInt32 {
    let value = crc.value
    withLast { $0.crc32c = value }
    return value
  }

  /// The file that began last.
  private mutating func withLast(_ change: (inout Received) -> Void) {
    let piece = pieces.count - 1
    change(&pieces[piece][pieces[piece].count - 1])
  }

  private func received(_ index: Int) -> Received { pieces[index / Self.pieceCount][index % Self.pieceCount] }

  mutating func compare(_ file: ServerManifest.File) throws(TidemarkError) {
    let hash = file.path.hashValue
    var index: Int? = next < fileCount && received(next).pathHash == hash ? next : nil
    if index == nil {
      if byHash == nil {
        var indexes = [Int: Int](minimumCapacity: fileCount)
        for index in 0..<fileCount { indexes[self.received(index).pathHash] = index }
        byHash = indexes
      }
      index = byHash?[hash]
    }
    guard let index else {
      throw TidemarkError(
        .manifestMismatch, "the server's manifest names a file that it didn't send", object: file.path)
    }
    next = index + 1
    let received = self.received(index)
    guard received.byteCount == file.size else {
      throw TidemarkError(
        .manifestMismatch, "a file isn't as long as the server's manifest says", object: file.path,
        cause: "received \(received.byteCount) bytes, manifest \(file.size)")
    }
    guard case .crc32c(let expected) = file.checksum else {
      throw TidemarkError(
        .manifestMismatch, "the manifest has no CRC32C", object: file.path, cause: file.checksum.algorithm)
    }
    guard received.crc32c == expected else {
      throw TidemarkError(
        .manifestMismatch, "a file arrived with other bytes than the server's manifest says", object: file.path)
    }
    compared += 1
  }
  private var compared = 0

  func finish() throws(TidemarkError) {
    guard compared == fileCount else {
      throw TidemarkError(
        .manifestMismatch, "the server's manifest doesn't name every file that it sent",
        cause: "\(fileCount) files, \(compared) in the manifest")
    }
  }
}
