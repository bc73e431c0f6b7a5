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
  /// - Parameter inspect: is given the path of the whole, checked content before it can be replayed, and may refuse it, or
  ///   answer that it isn't for whoever asks: then it is `absent`.
  /// - Throws: `object-damaged` and its kin when no good copy is left; `region-unreachable` when it isn't known whether
  ///   the file exists.
  package func fetch(
    _ file: WALFileName, to destination: String, inspect: (_ path: String) throws(TidemarkError) -> Bool = { _ in true }
  ) throws(TidemarkError) -> WALFetchOutcome {
    let name = repository.layout.lineage(systemIdentifier).wal(file)
    let temporary = "\(destination).tidemark-\(getpid())"
    do throws(TidemarkError) {
      let header: SealedHeader
      let byteCount: Int
      do throws(TidemarkError) {
        (header, byteCount) = try repository.readSealed(
          file.objectKind, name, limit: Self.segmentByteCountMax, to: temporary)
      } catch {
        // Of this file alone: what `inspect` misses is another one.
        if error.code == .objectNotFound { return .absent }
        throw error
      }
      try Self.requireDigest(header, name)
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
  private static func requireDigest(_ header: SealedHeader, _ name: ObjectName) throws(TidemarkError) {
    guard header.attributes.plaintextDigest != nil else {
      throw TidemarkError(.objectDamaged, "the header of a WAL file lacks the file's digest", object: name.text)
    }
  }

  /// The system identifier of the cluster that a WAL file is restored into: its control file, beside the destination or
  /// in the configured data directory.
  /// - Throws: `wal-file-invalid` when there is no control file.
  package static func systemIdentifier(
    destination: String, dataDirectory: String?
  ) throws(TidemarkError) -> SystemIdentifier {
    // `%p` lies in pg_wal below the data directory, which is PostgreSQL's working directory.
    for candidate in [
      "\(directoryName(destination))/../global/pg_control", "global/pg_control",
      dataDirectory.map { "\($0)/global/pg_control" } ?? "",
    ] where !candidate.isEmpty && fileExists(candidate) {
      let control = try ControlFile(rereading: { () throws(TidemarkError) in try readFile(candidate, limit: 64 << 10) })
      return control.systemIdentifier
    }
    throw TidemarkError(
      .walFileInvalid, "no pg_control tells which cluster asks for WAL", object: destination,
      next: "set postgres.data-directory in the configuration")
  }
}
