// Fetching one file that `restore_command` names. "Not there" is said only when it is proven: every region was asked,
// and each said so (trap 23). The file appears under its final name whole and checked, or not at all.
import BackupRepository
import Diagnostics
import Envelope
import Glibc
import PostgresFormats
import SystemSupport

package enum WALFetchOutcome: Sendable, Equatable {
  case fetched(byteCount: Int)
  /// Proven: PostgreSQL may take it as the end of WAL.
  case absent
}

package struct WALFetch {
  private let repository: Repository
  private let systemIdentifier: SystemIdentifier

  package init(_ repository: Repository, systemIdentifier: SystemIdentifier) {
    self.repository = repository
    self.systemIdentifier = systemIdentifier
  }

  /// Plaintext bytes accepted for a segment: the largest segment size of PostgreSQL.
  package static let segmentByteCountMax = 1 << 30

  /// Fetches `file` to `destination`, by a temporary file beside it and rename. PostgreSQL doesn't ask for durability
  /// here: it fsyncs what it keeps. What must not happen is a half-written file under the final name.
  /// - Parameters:
  ///   - ahead: where the segment may lie ready.
  ///   - inspect: is given the path of the whole, checked content before it can be replayed, and may refuse it, or
  ///   answer that it isn't for whoever asks: then it is `absent`.
  /// - Throws: `object-damaged` and its kin when no good copy is left; `region-unreachable` when it isn't known whether
  ///   the file exists.
  package func fetch(
    _ file: WALFileName, to destination: String, ahead: SegmentsAhead? = nil,
    inspect: (_ path: String) throws(TidemarkError) -> Bool = { _ in true }
  ) throws(TidemarkError) -> WALFetchOutcome {
    let name = repository.layout.lineage(systemIdentifier).wal(file)
    let temporary = "\(destination).tidemark-\(getpid())"
    do throws(TidemarkError) {
      let byteCount: Int
      if case .segment(let segment) = file, let ready = try ahead?.take(segment, to: temporary) {
        byteCount = ready
      } else {
        let header: SealedHeader
        do throws(TidemarkError) {
          (header, byteCount) = try repository.readSealed(
            file.objectKind, name, limit: Self.segmentByteCountMax, to: temporary)
        } catch {
          // Of this file alone: what `inspect` misses is another one.
          if error.code == .objectNotFound { return .absent }
          throw error
        }
        try Self.requireDigest(header, name)
      }
      guard try inspect(temporary) else {
        unlink(temporary)
        return .absent
      }
      CrashPoint.reach("fetch.before-rename")
      // The server that asked may be gone, and another run in its place.
      try Termination.check()
      if rename(temporary, destination) != 0 { throw systemError("cannot rename the file", destination) }
      return .fetched(byteCount: byteCount)
    } catch {
      unlink(temporary)
      throw error
    }
  }

  /// The file's content, checked.
  package func read(_ file: WALFileName) throws(TidemarkError) -> [UInt8] {
    let name = repository.layout.lineage(systemIdentifier).wal(file)
    let (plaintext, sealed) = try repository.readSealed(file.objectKind, name, limit: Self.segmentByteCountMax)
    try Self.requireDigest(SealedHeader.parse(sealed), name)
    return plaintext
  }

  /// Where it is there, reading has compared it.
  static func requireDigest(_ header: SealedHeader, _ name: ObjectName) throws(TidemarkError) {
    guard header.attributes.plaintextDigest != nil else {
      throw TidemarkError(.objectDamaged, "the header of a WAL file lacks the file's digest", object: name.text)
    }
  }

  /// The server that asks for WAL.
  package struct Server: Sendable {
    package var systemIdentifier: SystemIdentifier
    package var segmentSize: WALSegmentSize
    package var dataDirectory: String
  }

  /// The server that a WAL file is restored into, by its control file: beside the destination, or in the configured data
  /// directory.
  /// - Throws: `wal-file-invalid` when there is no control file.
  package static func server(destination: String, dataDirectory: String?) throws(TidemarkError) -> Server {
    // `%p` lies in pg_wal below the data directory, which is PostgreSQL's working directory.
    for directory in ["\(directoryName(destination))/..", ".", dataDirectory ?? ""] where !directory.isEmpty {
      let path = "\(directory)/global/pg_control"
      guard fileExists(path) else { continue }
      let control = try ControlFile(rereading: { () throws(TidemarkError) in try readFile(path, limit: 64 << 10) })
      return Server(
        systemIdentifier: control.systemIdentifier, segmentSize: control.segmentSize, dataDirectory: directory)
    }
    throw TidemarkError(
      .walFileInvalid, "no pg_control tells which cluster asks for WAL", object: destination,
      next: "set postgres.data-directory in the configuration")
  }
}
