// Positions and names: PostgreSQL's own regression values, and the limits of each type.
import Diagnostics
import TestSupport
import Testing

@testable import PostgresFormats

@Suite("Positions and names")
struct PositionTests {
  // src/test/regress/sql/pg_lsn.sql.
  @Test(
    "text that pg_lsn takes", arguments: [("0/0", 0), ("FFFFFFFF/FFFFFFFF", UInt64.max), ("0/16AE7F8", 0x16A_E7F8)])
  func lsn(_ text: String, _ value: UInt64) throws {
    let lsn = try LSN(text: text)
    #expect(lsn.rawValue == value)
    #expect(lsn.description == text)
    #expect(lsn.isValid == (value != 0))
  }

  @Test(
    "text that pg_lsn refuses",
    arguments: [
      "G/0", "-1/0", " 0/12345678", "ABCD/", "/ABCD", "", "/", "0", "0/0/0", "0/0 ", "0x1/0", "100000000/0",
      "0/100000000", "٣/0", "+1/0",
    ])
  func noLSN(_ text: String) {
    #expect(code { _ = try LSN(text: text) } == .usage)
  }

  @Test("distances have a sign") func distance() {
    #expect(LSN(rawValue: 7).distance(from: LSN(rawValue: 10)) == -3)
    #expect(LSN(rawValue: .max).distance(from: LSN(rawValue: .max - 5)) == 5)
    #expect(LSN(rawValue: 3) < LSN(rawValue: 4))
  }

  @Test("segment sizes are the powers of two that initdb takes") func sizes() {
    for shift in 20...30 { #expect(WALSegmentSize(byteCount: 1 << shift)?.byteCount == 1 << shift) }
    for wrong in [0, -1, 1, 1 << 19, 1 << 31, 3 << 20, (16 << 20) + 1, Int.max, Int.min] {
      #expect(WALSegmentSize(byteCount: wrong) == nil)
    }
    let size = WALSegmentSize.standard
    #expect(size.description == "16MB")
    let lsn = LSN(rawValue: 0x1_0300_0123)
    #expect(size.segmentNumber(of: lsn) == 0x103)
    #expect(size.segmentStart(of: lsn) == LSN(rawValue: 0x1_0300_0000))
    #expect(size.offset(of: lsn) == 0x123)
  }

  @Test("names and positions of segments") func segmentNames() throws {
    let name = try #require(WALSegmentName("0000000A00000002000000FF"))
    #expect(name.timeline == TimelineID(10))
    #expect(name.description == "0000000A00000002000000FF")
    #expect(try name.startLSN(.standard) == LSN(text: "2/FF000000"))
    #expect(try name.endLSN(.standard) == LSN(text: "3/0"))
    #expect(try name.next(.standard).description == "0000000A0000000300000000")
    #expect(name.on(TimelineID(11)).description == "0000000B00000002000000FF")
    // The last byte of the segment before, as the end of WAL at a boundary has it.
    let boundary = try LSN(text: "3/0")
    #expect(WALSegmentName(timeline: TimelineID(10), endingAt: boundary, size: .standard) == name)
    #expect(
      WALSegmentName(timeline: TimelineID(10), containing: boundary, size: .standard) == (try name.next(.standard)))
    #expect(WALSegmentName(timeline: TimelineID(1), endingAt: .invalid, size: .standard).segment == 0)
    // The order of listings: by timeline first.
    #expect(name < name.on(TimelineID(11)))
    #expect(try name < name.next(.standard))
  }

  @Test("a name that no segment of the size has is refused, and so is the end of all positions") func impossible()
    throws
  {
    let large = try #require(WALSegmentSize(byteCount: 1 << 30))
    let name = try #require(WALSegmentName("000000010000000000000004"))
    #expect(!name.isPossible(large))
    #expect(name.isPossible(.standard))
    #expect(code { _ = try name.startLSN(large) } == .walFileInvalid)
    let last = try #require(WALSegmentName("FFFFFFFFFFFFFFFF000000FF"))
    #expect(try last.startLSN(.standard).rawValue == 0xFFFF_FFFF_FF00_0000)
    #expect(code { _ = try last.endLSN(.standard) } == .walFileInvalid)
    #expect(code { _ = try last.next(.standard) } == .walFileInvalid)
  }

  @Test("what archive_command hands over and restore_command asks for") func fileNames() throws {
    let segment = try #require(WALSegmentName("0000000200000000000000A3"))
    for (text, expected) in [
      ("0000000200000000000000A3", WALFileName.segment(segment)),
      ("0000000200000000000000A3.partial", .partial(segment)),
      ("00000002.history", .history(TimelineID(2))),
      ("00000001.history", .history(TimelineID(1))),
      ("0000000200000000000000A3.00000028.backup", .backupHistory(segment, offset: 0x28)),
    ] {
      let name = try WALFileName(text: text)
      #expect(name == expected)
      #expect(name.description == text)
      #expect(name.timeline.rawValue == (text == "00000001.history" ? 1 : 2))
    }
  }

  @Test(
    "every other name is refused",
    arguments: [
      "", "0000000200000000000000a3", "0000000200000000000000A", "0000000200000000000000A3X",
      "0000000200000000000000A3.Partial", "0000000200000000000000A3.partial.partial", "0000000200000000000000A3.backup",
      "0000000200000000000000A3.0000028.backup", "0000000200000000000000A3.0000002g.backup", "2.history",
      "0000000G.history", "00000000.history", "000000000000000000000001", "0000000a.history", "RECOVERYXLOG",
      "../../etc/passwd", "0000000200000000000000A3\0", "0000000200000000000000A3/", "archive_status",
      "00000002.history.gz", "𝟎000000200000000000000A3",
    ])
  func noFileName(_ text: String) {
    #expect(code { _ = try WALFileName(text: text) } == .walFileInvalid)
  }

  @Test("system identifiers are decimal numbers of 64 bits, and not zero") func identifiers() {
    #expect(SystemIdentifier(text: "18446744073709551615")?.rawValue == .max)
    for wrong in ["0", "", "18446744073709551616", "-1", "+1", "1 ", "0x1", "١"] {
      #expect(SystemIdentifier(text: wrong) == nil)
    }
  }

  // RFC 3720, B.4.
  @Test("CRC32C has the published values, whole and in pieces") func checksum() {
    var descending = [UInt8](0...31)
    descending.reverse()
    for (bytes, expected) in [
      ([UInt8](repeating: 0, count: 32), UInt32(0x8A91_36AA)), ([UInt8](repeating: 0xFF, count: 32), 0x62A8_AB43),
      ([UInt8](0...31), 0x46DD_794E), (descending, 0x113F_DB5C), (Array("123456789".utf8), 0xE306_9283), ([], 0),
    ] {
      #expect(bytes.withUnsafeBytes { CRC32C.of($0) } == expected)
      var checksum = CRC32C()
      for start in stride(from: 0, to: bytes.count, by: 5) {
        checksum.update(bytes[start..<min(start + 5, bytes.count)])
      }
      #expect(checksum.value == expected)
    }
  }
}
