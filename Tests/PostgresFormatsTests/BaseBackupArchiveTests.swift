// A real base backup's archives, label, tablespace map and manifest: each byte accounted for by the server's checksums.
import Crypto
import Diagnostics
import Foundation
import SystemSupport
import TestSupport
import Testing

@testable import PostgresFormats

@Suite("Base backups by real servers")
struct BaseBackupArchiveTests {
  /// What the server recorded of each file.
  private func manifest(_ path: String, pieces: Int) throws -> (ServerManifest, [String: ServerManifest.File]) {
    var files: [String: ServerManifest.File] = [:]
    var numbers = SeededNumbers(UInt64(pieces))
    var reader = ServerManifestReader()
    try inPieces(contents(path), longest: pieces, &numbers) { try reader.feed($0) { files[$0.path] = $0 } }
    let manifest = try reader.finish()
    #expect(manifest.fileCount == files.count)
    return (manifest, files)
  }

  @Test(
    "archives hold what the manifest says, and map and label what the server says",
    arguments: ServerVersion.allAvailable)
  func archives(_ version: ServerVersion) throws {
    let server = try PostgresServer(version)
    let location = "\(server.temporaryPath)/blanks and \\ back\\slashes"
    try DurableFile.createDirectories(location)
    try PostgresServer.give(location)
    try server.psql("CREATE TABLESPACE roomy LOCATION '\(location)'")
    try server.psql("CREATE TABLE t TABLESPACE roomy AS SELECT g, md5(g::text) FROM generate_series(1, 20000) g")
    try server.psql("CREATE UNLOGGED TABLE u AS SELECT 1")
    // A name at the limit of what the server's tar writer takes (99 bytes), as an extension might leave one.
    let deep = "base/" + String(repeating: "f", count: 94)
    try DurableFile.write([1, 2, 3], to: "\(server.dataDirectory)/\(deep)")
    try PostgresServer.give(server.dataDirectory)
    let oid = try server.psql("SELECT oid FROM pg_tablespace WHERE spcname = 'roomy'")

    let directory = "\(server.temporaryPath)/backup"
    try server.run(
      "pg_basebackup",
      [
        "-U", "postgres", "-D", directory, "-Ft", "-X", "none", "-c", "fast", "-l", "nightly: größer",
        "--manifest-checksums=CRC32C",
      ])
    let (manifest, files) = try manifest("\(directory)/backup_manifest", pieces: 1000)
    var seen = 0
    var special: [String: [UInt8]] = [:]
    for (archive, prefix) in [("base.tar", ""), ("\(oid).tar", "pg_tblspc/\(oid)/")] {
      let listing = try TarListing.reading(contents("\(directory)/\(archive)"), longest: 70_000)
      for member in listing.members where !member.isDirectory && member.target == nil {
        if ["backup_label", "tablespace_map"].contains(member.path) { special[member.path] = member.data }
        // The map and pg_control are in the manifest like all else.
        let file = try #require(files[prefix + member.path], "\(member.path)")
        #expect(file.size == member.size)
        let checksum = member.data.withUnsafeBytes { CRC32C.of($0) }
        #expect(file.checksum == .crc32c(checksum), "\(member.path)")
        seen += 1
      }
      #expect(listing.members.allSatisfy { $0.mode == ($0.isDirectory ? 0o700 : $0.target == nil ? 0o600 : $0.mode) })
      if prefix.isEmpty {
        #expect(listing.members.contains { $0.path == deep && $0.data == [1, 2, 3] })
        // With a tablespace map the server sends no links.
        #expect(listing.members.contains { $0.path == "pg_tblspc" && $0.isDirectory })
        #expect(listing.members.allSatisfy { $0.target == nil })
        #expect(listing.members.contains { $0.path == "pg_wal" && $0.isDirectory })
        #expect(!listing.members.contains { $0.path == "postmaster.pid" })
      }
    }
    #expect(seen == files.count)

    let map = try TablespaceMap(parsing: try #require(special["tablespace_map"]))
    #expect(map.entries == [TablespaceMap.Entry(oid: try #require(UInt32(oid)), location: location)])
    #expect(map.fileBytes == special["tablespace_map"])

    let label = try BackupLabel(parsing: try #require(special["backup_label"]))
    #expect(label.label == "nightly: größer")
    #expect(label.method == "streamed" && !label.isFromStandby && label.startTimeline == TimelineID(1))
    #expect(label.startSegment == WALSegmentName(timeline: TimelineID(1), containing: label.startLSN, size: .standard))
    #expect(label.incrementalFromLSN == nil)

    let range = try #require(manifest.walRanges.first)
    #expect(manifest.walRanges.count == 1 && range.timeline == TimelineID(1) && range.start == label.startLSN)
    #expect(manifest.version == (version == .v15 ? 1 : 2))
    let system = try server.psql("SELECT system_identifier FROM pg_control_system()")
    #expect(manifest.systemIdentifier == (version == .v15 ? nil : SystemIdentifier(text: system)))
    try everyDigestKind(server)
    try spoiltManifests(contents("\(directory)/backup_manifest"))
  }

  /// SHA-2 digests and none at all.
  private func everyDigestKind(_ server: PostgresServer) throws {
    for algorithm in server.version == .v15 ? ["NONE", "SHA224", "SHA256"] : ["SHA384", "SHA512"] {
      let directory = "\(server.temporaryPath)/\(algorithm)"
      try server.run(
        "pg_basebackup",
        ["-U", "postgres", "-D", directory, "-Ft", "-X", "none", "-c", "fast", "--manifest-checksums=\(algorithm)"])
      let (_, files) = try manifest("\(directory)/backup_manifest", pieces: 1 << 20)
      #expect(files.values.allSatisfy { $0.checksum.algorithm == algorithm })
      let version = try #require(files["PG_VERSION"])
      #expect(version.size == 3)
      if algorithm == "SHA256" {
        let text = Array("\(server.version.rawValue)\n".utf8)
        #expect(version.checksum == .sha2(bitCount: 256, Array(SHA256.hash(data: text))))
      }
    }
  }

  /// No byte of a manifest can change, and no line be missing, without its being noticed.
  private func spoiltManifests(_ good: [UInt8]) throws {
    var numbers = SeededNumbers(77)
    for attempt in 0..<30 {
      var bad = good
      if attempt.isMultiple(of: 3) {
        bad = Array(good.prefix(Int.random(in: 0..<good.count, using: &numbers)))
      } else {
        let position =
          attempt.isMultiple(of: 2)
          ? Int.random(in: 0..<good.count, using: &numbers)
          : Int.random(in: (good.count - 100)..<good.count, using: &numbers)
        bad[position] ^= 1 << UInt8.random(in: 0...7, using: &numbers)
      }
      var reader = ServerManifestReader()
      let failure = code {
        try bad.withUnsafeBytes { try reader.feed($0) { _ in } }
        _ = try reader.finish()
      }
      // Upper and lower case of the checksum's own digits are the same number.
      let isCase = bad.count == good.count && zip(good, bad).allSatisfy { $0 == $1 || $0 ^ $1 == 0x20 }
      #expect([.manifestMismatch, .pathUnsafe].contains(failure) || (failure == nil && isCase))
    }
  }
}
