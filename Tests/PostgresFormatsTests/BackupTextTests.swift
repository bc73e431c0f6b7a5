// The small text files of a backup and of a timeline: real ones are in RealWALTests and BaseBackupArchiveTests, here is
// what must be refused, and what PostgreSQL's readers let through.
import Diagnostics
import TestSupport
import Testing

@testable import PostgresFormats

@Suite("Labels, maps and histories")
struct BackupTextTests {
  private static let label = """
    START WAL LOCATION: 16/B3000028 (file 0000000300000016000000B3)
    CHECKPOINT LOCATION: 16/B3000060
    BACKUP METHOD: streamed
    BACKUP FROM: standby
    START TIME: 2026-11-24 03:15:00 CET
    LABEL: a: b
    START TIMELINE: 3

    """

  private func label(_ old: String = "", _ new: String = "") throws -> BackupLabel {
    try BackupLabel(parsing: Array(Self.label.replacing(old.isEmpty ? "\u{1}" : old, with: new).utf8))
  }

  @Test("a label is read, lines of later versions and repeated ones aside") func label() throws {
    let label = try label(
      "LABEL: a: b", "LABEL: a: b\nLABEL: other\nSOMETHING NEW: 5\nINCREMENTAL FROM LSN: 16/A0000028")
    #expect(label.startLSN == (try LSN(text: "16/B3000028")))
    #expect(label.startSegment.description == "0000000300000016000000B3")
    #expect(label.checkpointLSN == (try LSN(text: "16/B3000060")))
    #expect(label.startTimeline == TimelineID(3))
    #expect(label.isFromStandby && label.method == "streamed" && label.label == "a: b")
    #expect(label.startTime == "2026-11-24 03:15:00 CET")
    #expect(label.incrementalFromLSN == (try LSN(text: "16/A0000028")))
  }

  @Test(
    "a label that recovery could misread is refused",
    arguments: [
      ("16/B3000028 (", "0/0 ("), ("16/B3000028", "16-B3000028"), ("(file ", "file "), ("B3)", "B3"),
      ("000B3)", "000b3)"),
      ("16/B3000060", "16/B3000000"), ("CHECKPOINT LOCATION", "CHECKPOINT"), ("TIMELINE: 3", "TIMELINE: 4"),
      ("TIMELINE: 3", "TIMELINE: 0"), ("TIMELINE: 3", "TIMELINE: x"), ("FROM: standby", "FROM: elsewhere"),
      ("BACKUP METHOD: streamed\n", ""), ("START TIME: 2026-11-24 03:15:00 CET\n", ""),
      ("LABEL: a: b", "LABEL: a\nINCREMENTAL FROM LSN: x"),
    ])
  func badLabel(_ old: String, _ new: String) {
    let error = #expect(throws: TidemarkError.self) { try label(old, new) }
    #expect(error?.code == .streamInvalid && error?.object == "backup_label")
  }

  @Test("a label that isn't text, or endless, is refused") func noLabel() {
    #expect(code { _ = try BackupLabel(parsing: [0xFF, 0xFE]) } == .streamInvalid)
    #expect(code { _ = try BackupLabel(parsing: [UInt8](repeating: 65, count: 1 << 20)) } == .streamInvalid)
    #expect(code { _ = try BackupLabel(parsing: [UInt8]()) } == .streamInvalid)
  }

  // MARK: Tablespace maps

  @Test("locations with blanks, line breaks and backslashes make the round") func mapRoundTrip() throws {
    let map = TablespaceMap(entries: [
      .init(oid: 16385, location: "/srv/a b"), .init(oid: 4_294_967_295, location: "/srv/\\new\nline\r"),
    ])
    #expect(try TablespaceMap(parsing: map.fileBytes) == map)
    #expect(try TablespaceMap(parsing: []).entries == [])
    #expect(try TablespaceMap(parsing: Array("1 /a/\r\n\n2 /b\n".utf8)).entries.map(\.location) == ["/a", "/b"])
  }

  @Test(
    "maps that lead elsewhere or can't be read are refused",
    arguments: [
      ("16385 /srv/../etc\n", ErrorCode.pathUnsafe), ("16385 srv\n", .pathUnsafe), ("16385 /\n", .pathUnsafe),
      ("16385 /a//b\n", .pathUnsafe), ("16385 /a\0b\n", .pathUnsafe), ("16385 /a", .streamInvalid),
      ("16385\n", .streamInvalid),
      ("0 /a\n", .streamInvalid), ("x /a\n", .streamInvalid), ("4294967296 /a\n", .streamInvalid),
      (" 1 /a\n", .streamInvalid),
      ("1 /a\n1 /b\n", .streamInvalid), ("1 /a\\", .streamInvalid),
    ])
  func badMap(_ text: String, _ expected: ErrorCode) {
    #expect(code { _ = try TablespaceMap(parsing: Array(text.utf8)) } == expected)
  }

  @Test("locations are replaced, even exchanged, and only those that are there") func remapping() throws {
    let map = TablespaceMap(entries: [.init(oid: 1, location: "/a"), .init(oid: 2, location: "/b")])
    #expect(try map.remapped([("/a", "/b"), ("/b/", "/a/")]).entries.map(\.location) == ["/b", "/a"])
    #expect(code { _ = try map.remapped([("/c", "/d")]) } == .usage)
    #expect(code { _ = try map.remapped([("/a", "/b")]) } == .usage)
    #expect(code { _ = try map.remapped([("/a", "relative")]) } == .pathUnsafe)
    #expect(code { _ = try map.remapped([("/a", "/x/../etc")]) } == .pathUnsafe)
  }

  // MARK: Timeline histories

  private func history(_ text: String, of timeline: UInt32 = 5) throws -> TimelineHistory {
    try TimelineHistory(timeline: TimelineID(timeline), parsing: Array(text.utf8))
  }

  @Test("a history is read with its comments, and its parts are the path") func history() throws {
    let history = try history(
      "# by hand\n1\t0/3000000\tno recovery target specified\n\n  2  0/5000100   before a b\r\n4\t1/0\t\n")
    #expect(history.entries.map(\.timeline.rawValue) == [1, 2, 4])
    #expect(history.entries[1].reason == "before a b")
    #expect(history.ranges.count == 4)
    #expect(history.ranges.last?.end == nil && history.ranges.last?.start == LSN(rawValue: 1 << 32))
    #expect(history.timeline(of: LSN(rawValue: 0x2FF_FFFF)) == TimelineID(1))
    #expect(history.timeline(of: LSN(rawValue: 0x300_0000)) == TimelineID(2))
    #expect(history.timeline(of: LSN(rawValue: .max)) == TimelineID(5))
    // Branches: a parent up to where it was left, and not a timeline that isn't on the way.
    #expect(history.contains(TimelineID(2), upTo: LSN(rawValue: 0x500_0100)))
    #expect(!history.contains(TimelineID(2), upTo: LSN(rawValue: 0x500_0101)))
    #expect(!history.contains(TimelineID(3), upTo: .invalid))
    #expect(history.path(from: TimelineID(4))?.map(\.timeline.rawValue) == [4, 5])
    #expect(history.path(from: TimelineID(3)) == nil)
    #expect(TimelineHistory(root: TimelineID(1)).ranges == [.init(timeline: TimelineID(1), start: .invalid, end: nil)])
  }

  @Test(
    "a history that can't be right is refused as a whole",
    arguments: [
      "", "\n\n", "# nothing\n", "1\n", "x\t0/1\t\n", "0\t0/1\t\n", "1\t0\t\n", "1\t0/1\n1\t0/2\n", "2\t0/1\n1\t0/2\n",
      "5\t0/1\n", "6\t0/1\n", "4294967296\t0/1\n", "-1\t0/1\n", "1\t0/100000000\n", "1\t0/1\u{0}\n",
    ])
  func badHistory(_ text: String) {
    let error = #expect(throws: TidemarkError.self) { try history(text) }
    #expect(error?.code == .walFileInvalid && error?.object == "00000005.history")
  }

  @Test("a history that isn't text, or endless, is refused") func noHistory() {
    #expect(code { _ = try TimelineHistory(timeline: TimelineID(2), parsing: [0x31, 0xFF]) } == .walFileInvalid)
    let endless = [UInt8](repeating: 0x0A, count: TimelineHistory.byteCountMax + 1)
    #expect(code { _ = try TimelineHistory(timeline: TimelineID(2), parsing: endless) } == .walFileInvalid)
  }
}
