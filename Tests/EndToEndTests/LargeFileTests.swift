// A file of more than 8 GiB, whose size doesn't fit into a tar header's octal digits, from a real server's stream to the
// restored directory. PostgreSQL sends whatever lies in its data directory, so a file of holes stands for the relation
// that PostgreSQL itself would cut into segments of 1 GiB.
import Foundation
import Glibc
import SystemSupport
import TestSupport
import Testing

@Suite("Large files", .serialized)
struct LargeFileTests {
  /// Beyond the largest number of eleven octal digits, and no multiple of a page or block.
  private static let byteCount = (8 << 30) + (17 << 20) + 12_345
  /// Where something is written: both ends, both sides of 4 and 8 GiB, and across a block's border.
  private static let places = [
    0, (4 << 30) - 5000, (4 << 30) + 65_000, (8 << 30) - 10_000, (8 << 30) - 1, (8 << 30) + (16 << 20),
    byteCount - 10_000,
  ]

  /// lseek(2)'s SEEK_DATA, which the headers declare for _GNU_SOURCE alone.
  private static let seekData: Int32 = 3

  /// As much as the restore's plan asks for.
  private static let hasRoom: Bool = {
    var space = statvfs()
    return statvfs(NSTemporaryDirectory(), &space) == 0 && Int(space.f_bavail) * Int(space.f_frsize) > 10 << 30
  }()

  @Test(
    "a file of more than 8 GiB comes through the stream and out of the restore as it was",
    .enabled(if: hasRoom, "10 GiB must be free for temporary files"))
  func large() throws {
    let installation = try Installation(.v15, usesS3: false)
    let source = "\(installation.server.dataDirectory)/large.bin"
    let output = try OpenFile(source, O_WRONLY | O_CREAT | O_EXCL, mode: 0o600)
    try #require(ftruncate(output.descriptor, Self.byteCount) == 0)
    for (number, place) in Self.places.enumerated() {
      let bytes = (0..<10_000).map { UInt8(truncatingIfNeeded: ($0 &+ number) &* 167 >> 3) }
      try #require(pwrite(output.descriptor, bytes, bytes.count, off_t(place)) == bytes.count)
    }
    try output.close()
    try PostgresServer.give(source)
    let backup = try installation.json(["backup"])
    #expect(try #require(backup["databaseBytes"] as? Int) > Self.byteCount)
    let target = "\(installation.root)/restored"
    _ = try installation.json(["restore", "--target-directory", target, "--to-backup-end", "--no-start"])
    #expect(try difference(source, "\(target)/large.bin") == nil)
    // Holes become pages that the disk has room for, as PostgreSQL expects.
    var status = stat()
    try #require(stat("\(target)/large.bin", &status) == 0)
    #expect(status.st_blocks * 512 >= Self.byteCount)
  }

  /// The first MiB in which two files differ. What is a hole in both isn't read; where a file system knows no holes,
  /// everything is.
  private func difference(_ one: String, _ other: String) throws -> Int? {
    let one = try OpenFile(one, O_RDONLY)
    let other = try OpenFile(other, O_RDONLY)
    let buffers = (0..<2).map { _ in UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096) }
    defer { for buffer in buffers { buffer.deallocate() } }
    var position = 0
    while true {
      // -1 where there is no more data.
      let next = [one.descriptor, other.descriptor].map { Int(lseek($0, position, Self.seekData)) }.filter {
        $0 >= position
      }
      guard let start = next.min() else { break }
      let counts = (
        try one.read(into: buffers[0], at: Int64(start)), try other.read(into: buffers[1], at: Int64(start))
      )
      let isEqual = counts.0 == counts.1 && memcmp(buffers[0].baseAddress!, buffers[1].baseAddress!, counts.0) == 0
      if !isEqual || counts.0 == 0 { return start }
      position = start + counts.0
    }
    return try one.byteCount() == other.byteCount() ? nil : position
  }
}
