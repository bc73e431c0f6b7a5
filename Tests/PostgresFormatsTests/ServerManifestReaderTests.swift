// Manifests as no server writes them: what isn't understood is refused, and no line takes memory without a limit.
import Crypto
import Diagnostics
import TestSupport
import Testing

@testable import PostgresFormats

@Suite("Server manifests as they should not be")
struct ServerManifestReaderTests {
  /// A manifest with its own right checksum.
  private func manifest(
    version: String = "1", preamble: String = "", files: [String] = [Self.file], ranges: [String] = [Self.range]
  ) -> [UInt8] {
    let body =
      "{ \"PostgreSQL-Backup-Manifest-Version\": \(version),\n\(preamble)\"Files\": [\n"
      + files.joined(separator: ",\n") + (files.isEmpty ? "" : "\n") + "],\n\"WAL-Ranges\": [\n"
      + ranges.joined(separator: ",\n") + (ranges.isEmpty ? "" : "\n") + "],\n"
    return signed(Array(body.utf8))
  }

  private func signed(_ body: [UInt8]) -> [UInt8] {
    let digest = SHA256.hash(data: body).map { hexadecimalText($0, width: 2) }.joined().lowercased()
    return body + Array("\"Manifest-Checksum\": \"\(digest)\"}\n".utf8)
  }

  private static let file =
    "{ \"Path\": \"PG_VERSION\", \"Size\": 3, \"Last-Modified\": \"2026-11-24 01:00:00 GMT\", \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"64440205\" }"
  private static let range = "{ \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"0/2000100\" }"

  private func read(_ bytes: [UInt8], longest: Int = 1 << 20) throws -> (ServerManifest, [ServerManifest.File]) {
    var files: [ServerManifest.File] = []
    var numbers = SeededNumbers(5)
    var reader = ServerManifestReader()
    try inPieces(bytes, longest: longest, &numbers) { try reader.feed($0) { files.append($0) } }
    return (try reader.finish(), files)
  }

  @Test("the smallest manifest is read, whatever the pieces", arguments: [1, 3, 100, 1 << 16]) func smallest(
    _ longest: Int
  ) throws {
    let (manifest, files) = try read(manifest(), longest: longest)
    #expect(files == [.init(path: "PG_VERSION", size: 3, checksum: .crc32c(0x0502_4464))])
    #expect(manifest.walRanges.first?.end == LSN(rawValue: 0x200_0100))
    let (none, _) = try read(self.manifest(files: [], ranges: []))
    #expect(none.fileCount == 0 && none.walRanges.isEmpty)
  }

  @Test("names with escapes and encoded names are what they were") func escapes() throws {
    let odd =
      "{ \"Path\": \"a\\\"\\\\\\u00e4\\ud83d\\ude00\\/b\", \"Size\": 0, \"Last-Modified\": \"\" }"
    let encoded = "{ \"Encoded-Path\": \"612f62\", \"Size\": 18446744073709551615, \"Last-Modified\": \"\" }"
    let (_, files) = try read(manifest(files: [odd, encoded]))
    #expect(files.map(\.path) == ["a\"\\ä😀/b", "a/b"])
    #expect(files[1].size == .max)
    #expect(files[0].checksum == .none)
  }

  @Test("names that lead elsewhere are refused", arguments: ["/etc/passwd", "../x", "a/../b", "", "a//b", "."])
  func unsafe(_ path: String) {
    let line = "{ \"Path\": \"\(path)\", \"Size\": 0, \"Last-Modified\": \"\" }"
    #expect(code { _ = try read(manifest(files: [line])) } == .pathUnsafe)
  }

  private static let badFiles = [
    "{ \"Size\": 3 }", "{ \"Path\": \"a\" }", "{ \"Path\": \"a\", \"Encoded-Path\": \"61\", \"Size\": 3 }",
    "{ \"Encoded-Path\": \"6\", \"Size\": 3 }", "{ \"Encoded-Path\": \"6g\", \"Size\": 3 }",
    "{ \"Path\": \"a\", \"Size\": -1 }", "{ \"Path\": \"a\", \"Size\": 1.5 }",
    "{ \"Path\": \"a\", \"Size\": 18446744073709551616 }",
    "{ \"Path\": \"a\", \"Size\": \"3\" }", "{ \"Path\": \"a\", \"Size\": 3, \"Size\": 4 }",
    "{ \"Path\": \"a\", \"Size\": 3, \"Owner\": \"x\" }",
    "{ \"Path\": \"a\", \"Size\": 3, \"Checksum\": \"00000000\" }",
    "{ \"Path\": \"a\", \"Size\": 3, \"Checksum-Algorithm\": \"CRC32C\" }",
    "{ \"Path\": \"a\", \"Size\": 3, \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"000000\" }",
    "{ \"Path\": \"a\", \"Size\": 3, \"Checksum-Algorithm\": \"MD5\", \"Checksum\": \"00000000\" }",
    "{ \"Path\": \"a\", \"Size\": 3, \"Checksum-Algorithm\": \"SHA256\", \"Checksum\": \"00000000\" }",
    "{ \"Path\": { \"a\": 1 }, \"Size\": 3 }", "{ \"Path\": [\"a\"], \"Size\": 3 }",
    "{ \"Path\": \"a\", \"Size\": 3 } }",
    "{ \"Path\": \"a\", \"Size\": 3 },,", "{ \"Path\": \"\\ud800\", \"Size\": 3 }",
    "{ \"Path\": \"\\q\", \"Size\": 3 }",
    "{ \"Path\": \"a\u{01}\", \"Size\": 3 }", "{ \"Path\": \"a, \"Size\": 3 }", "", "null", "{",
  ]

  @Test("entries that no server writes are refused", arguments: badFiles) func entries(_ line: String) {
    let failure = code { _ = try read(manifest(files: [line])) }
    #expect(failure == .manifestMismatch || (line.contains("\"Path\": \"a, ") && failure != nil))
  }

  @Test("the frame of the manifest is as the server writes it, or refused") func frame() {
    for bytes in [
      manifest(version: "0"), manifest(version: "3"), manifest(version: "\"1\""),
      manifest(preamble: "\"System-Identifier\": 5,\n"),
      manifest(version: "2", preamble: "\"System-Identifier\": 0,\n"),
      manifest(version: "2", preamble: "\"Host\": 5,\n"),
      manifest(version: "2", preamble: "\"System-Identifier\": 5,\n\"System-Identifier\": 5,\n"),
      manifest(ranges: ["{ \"Timeline\": 0, \"Start-LSN\": \"0/1\", \"End-LSN\": \"0/2\" }"]),
      manifest(ranges: ["{ \"Timeline\": 1, \"Start-LSN\": \"0/3\", \"End-LSN\": \"0/2\" }"]),
      manifest(ranges: ["{ \"Timeline\": 1, \"Start-LSN\": \"0\", \"End-LSN\": \"0/2\" }"]),
      manifest(ranges: ["{ \"Timeline\": 4294967296, \"Start-LSN\": \"0/1\", \"End-LSN\": \"0/2\" }"]),
      manifest() + [10], manifest() + Array("{}\n".utf8), Array(manifest().dropLast()), Array("[]\n".utf8), [], [0],
    ] {
      #expect(
        code { _ = try read(bytes) } == .manifestMismatch, "\(String(decoding: bytes.prefix(120), as: UTF8.self))")
    }
    // The checksum is over what stands before its own line, and of the right length.
    let short = Array(manifest().dropLast(4)) + Array("\"}\n".utf8)
    #expect(code { _ = try read(short) } == .manifestMismatch)
  }

  @Test("a wrong checksum names both") func checksum() {
    var bytes = manifest()
    bytes[60] ^= 1  // In the file's line, which stays one.
    let error = #expect(throws: TidemarkError.self) { _ = try read(bytes) }
    #expect(error?.code == .manifestMismatch)
  }

  @Test("an endless line and endless ranges are refused at their limits") func limits() {
    let endless =
      Array("{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n".utf8)
      + [UInt8](repeating: 0x20, count: 70_000)
    var reader = ServerManifestReader()
    let failure = code {
      var numbers = SeededNumbers(1)
      try inPieces(endless, longest: 1000, &numbers) { try reader.feed($0) { _ in } }
    }
    #expect(failure == .manifestMismatch)
    let ranges = [String](repeating: Self.range, count: ServerManifestReader.walRangeCountMax + 1)
    #expect(code { _ = try read(manifest(ranges: ranges)) } == .manifestMismatch)
  }
}
