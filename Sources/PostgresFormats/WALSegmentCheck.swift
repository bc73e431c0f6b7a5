// The check that stands before archiving: a file passes only if its first page says that it is the segment that its
// name says, of the cluster that is expected. A re-initialised cluster, a wrong path and a recycled segment don't.
import Diagnostics

/// Compares a segment's file with its name and the cluster.
package enum WALSegmentCheck {
  /// How many of a file's first bytes the check takes.
  package static let byteCount = WALPageHeader.longByteCount

  /// - Parameters:
  ///   - first: the file's first bytes, at least ``byteCount``.
  ///   - fileByteCount: the file's size.
  ///   - systemIdentifier: the cluster's; nil where it isn't known yet.
  ///   - size: the cluster's segment size; nil takes the header's own word.
  /// - Returns: the header, with its identity.
  /// - Throws: `wal-file-invalid` for a file that isn't the segment of this name; `wal-file-foreign` for one of
  ///   another cluster.
  @discardableResult
  package static func check(
    _ name: WALSegmentName, first: UnsafeRawBufferPointer, fileByteCount: UInt64,
    systemIdentifier: SystemIdentifier?, size: WALSegmentSize? = nil
  ) throws(TidemarkError) -> WALPageHeader {
    let header: WALPageHeader
    do throws(TidemarkError) {
      header = try WALPageHeader(parsing: first)
    } catch {
      throw invalid(name, error.cause ?? error.summary)
    }
    guard let identity = header.identity else { throw invalid(name, "its first page has no long header") }
    // The cluster first: of a foreign file, nothing else is worth comparing.
    if let expected = systemIdentifier, identity.systemIdentifier != expected {
      throw TidemarkError(
        .walFileForeign, "a WAL segment of another cluster", object: name.description,
        cause: "its system identifier is \(identity.systemIdentifier), expected \(expected)",
        next: "check that archive_command stands in the configuration of the cluster that it names")
    }
    if let expected = size, identity.segmentSize != expected {
      throw invalid(name, "its header says segments of \(identity.segmentSize), expected \(expected)")
    }
    guard fileByteCount == UInt64(identity.segmentSize.byteCount) else {
      throw invalid(name, "the file has \(fileByteCount) bytes, expected \(identity.segmentSize.byteCount)")
    }
    let start = try name.startLSN(identity.segmentSize)
    _ = try name.endLSN(identity.segmentSize)
    guard header.pageAddress == start else {
      throw invalid(name, "its first page is \(header.pageAddress), expected \(start)")
    }
    // A promotion copies the beginning of its first segment from the parent, headers and all (`XLogFileCopy`, xlog.c),
    // so an older timeline is right, a newer one never.
    guard header.timeline.rawValue != 0, header.timeline <= name.timeline else {
      throw invalid(name, "its first page is of timeline \(header.timeline)")
    }
    return header
  }

  private static func invalid(_ name: WALSegmentName, _ cause: String) -> TidemarkError {
    TidemarkError(
      .walFileInvalid, "the file isn't the WAL segment that its name says", object: name.description, cause: cause)
  }
}
