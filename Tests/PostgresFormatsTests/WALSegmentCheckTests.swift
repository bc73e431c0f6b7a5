// A file is archived as the segment of its name only when its first page says the same; walking its records ends at
// garbage, and never beyond the bytes.
import Diagnostics
import TestSupport
import Testing

@testable import PostgresFormats

@Suite("WAL segments as they should not be")
struct WALSegmentCheckTests {
  private static let name = WALSegmentName(
    timeline: TimelineID(1), containing: LSN(rawValue: 0x300_0000), size: WALSegmentSize(byteCount: 1 << 20)!)

  private func check(
    _ bytes: [UInt8], name: WALSegmentName = Self.name, count: UInt64 = 1 << 20, system: UInt64? = nil,
    size: WALSegmentSize? = nil
  ) throws {
    try bytes.withUnsafeBytes { buffer in
      _ = try WALSegmentCheck.check(
        name, first: buffer, fileByteCount: count, systemIdentifier: system.map { SystemIdentifier(rawValue: $0) },
        size: size)
    }
  }

  @Test("the segment that its name says passes, of every version") func passes() throws {
    for version in FormatVersion.allCases {
      var page = PageBytes()
      page.magic = version.pageMagic
      try check(page.header, system: page.system, size: WALSegmentSize(byteCount: 1 << 20))
      let header = try page.header.withUnsafeBytes { try WALPageHeader(parsing: $0) }
      #expect(header.version == version)
      #expect(header.byteCount == 40)
    }
    // The first segment of a timeline begins with pages of its parent.
    try check(PageBytes().header, name: Self.name.on(TimelineID(4)))
  }

  @Test("another cluster's segment is foreign, and said to be") func foreign() {
    let page = PageBytes()
    let error = #expect(throws: TidemarkError.self) { try check(page.header, system: page.system + 1) }
    #expect(error?.code == .walFileForeign)
    #expect(error?.cause?.contains("\(page.system)") == true)
    // Before anything else is compared: its size or place say nothing about a foreign file.
    #expect(code { try check(page.header, count: 5, system: page.system + 1) } == .walFileForeign)
  }

  private static let spoilt: [(String, @Sendable (inout PageBytes) -> Void)] = [
    ("the magic of PostgreSQL 14", { $0.magic = 0xD10D }), ("no magic", { $0.magic = 0 }),
    ("a page of the other byte order", { $0.magic = 0x10D1 }),
    ("a short header", { $0.flags = 0 }), ("unknown flags", { $0.flags = 0x8002 }),
    ("another position", { $0.address = 0x400_0000 }), ("a page of the middle", { $0.address = 0x300_2000 }),
    ("a newer timeline", { $0.timeline = 2 }), ("no timeline", { $0.timeline = 0 }),
    ("a size that isn't the file's", { $0.segmentSize = 2 << 20 }), ("an impossible size", { $0.segmentSize = 0 }),
    ("an odd size", { $0.segmentSize = (1 << 20) + 1 }), ("a huge size", { $0.segmentSize = .max }),
    ("an impossible page size", { $0.blockSize = 0 }), ("an odd page size", { $0.blockSize = 8191 }),
    ("a huge page size", { $0.blockSize = 1 << 17 }),
  ]

  @Test("every field that contradicts the name or the format is refused") func spoiltFields() {
    for (what, spoil) in Self.spoilt {
      var page = PageBytes()
      spoil(&page)
      let error = #expect(throws: TidemarkError.self, "\(what)") { try check(page.header) }
      #expect(error?.code == .walFileInvalid, "\(what)")
      #expect(error?.object == Self.name.description, "\(what)")
      #expect(error?.cause?.isEmpty == false, "\(what)")
    }
  }

  @Test("a file of the wrong length, of the wrong segment size, or cut within its header is refused") func lengths() {
    let header = PageBytes().header
    for count: UInt64 in [0, 40, (1 << 20) - 1, (1 << 20) + 1, .max] {
      #expect(code { try check(header, count: count) } == .walFileInvalid)
    }
    #expect(code { try check(header, size: .standard) } == .walFileInvalid)
    for count in 0..<40 { #expect(code { try check(Array(header.prefix(count))) } == .walFileInvalid) }
  }

  // MARK: Walking the records

  private func scan(_ bytes: [UInt8], _ name: WALSegmentName = Self.name) throws -> (
    WALSegmentSummary, [WALRecordEvent]
  ) {
    var events: [WALRecordEvent] = []
    let summary = try bytes.withUnsafeBytes { buffer in
      try WALSegmentScanner.scan(buffer, name: name) { events.append($0) }
    }
    return (summary, events)
  }

  @Test("records made by hand are walked to the last valid one") func walk() throws {
    let page = PageBytes()
    var bytes = page.segment
    // 2000-01-02 00:00:00 UTC in PostgreSQL's and in Unix microseconds.
    let time: Int64 = 86_400_000_000
    let commit = record(manager: 1, info: 0, xid: 731, previous: 0x2FF_FFF0, little(time))
    let start = page.address + 40
    bytes.replaceSubrange(40..<40 + commit.count, with: commit)
    let second = (40 + commit.count + 7) & ~7
    let abort = record(manager: 1, info: 0x20, xid: 732, previous: start, little(time + 5))
    bytes.replaceSubrange(second..<second + abort.count, with: abort)
    let third = (second + abort.count + 7) & ~7
    let name = Array("before the change".utf8) + [UInt8](repeating: 0, count: 47)
    let point = record(manager: 0, info: 0x70, previous: page.address + UInt64(second), little(time + 9) + name)
    bytes.replaceSubrange(third..<third + point.count, with: point)
    let end = (third + point.count + 7) & ~7
    // What a recycled file has behind its end: a record whose link leads elsewhere.
    let stale = record(manager: 1, info: 0, xid: 9, previous: 0x123, little(Int64.max))
    bytes.replaceSubrange(end..<end + stale.count, with: stale)
    let (summary, events) = try scan(bytes)
    let unix = time + 946_684_800_000_000
    #expect(
      events == [
        .commit(TransactionID(731), time: unix, LSN(rawValue: start)),
        .abort(TransactionID(732), time: unix + 5, LSN(rawValue: page.address + UInt64(second))),
        .restorePoint("before the change", time: unix + 9, LSN(rawValue: page.address + UInt64(third))),
      ])
    #expect(summary.end == LSN(rawValue: page.address + UInt64(end)))
    #expect(summary.latestCommit == unix + 5)
    #expect(summary.earliestCommit == unix)
    #expect(summary.unfinished == nil)
  }

  @Test("a record that ends with the segment ends it, and one that goes on is handed over") func segmentEnd() throws {
    for beyond in [0, 16] {
      var bytes = PageBytes().segment
      let last = bytes.count - 8192 + 24
      // One record fills everything up to the last page, the other the rest of the segment and perhaps more.
      let pages = bytes.count / 8192
      let filler = (8192 - 40) + (pages - 2) * (8192 - 24)
      bytes.replaceSubrange(40..<64, with: little(UInt32(filler)) + [UInt8](repeating: 0, count: 20))
      let header = record(manager: 0, info: 0, previous: 0x300_0000 + 40, [])
      bytes.replaceSubrange(last..<last + 24, with: little(UInt32(8192 - 24 + beyond)) + header[4..<24])
      let (summary, _) = try scan(bytes)
      #expect(summary.end == LSN(rawValue: 0x310_0000), "\(beyond) bytes beyond")
    }
    // Where less than a record's header is left, that much is handed over.
    var bytes = PageBytes().segment
    let pages = bytes.count / 8192
    let filler = (8192 - 40) + (pages - 2) * (8192 - 24) + (8192 - 24 - 16)
    bytes.replaceSubrange(40..<64, with: little(UInt32(filler)) + [UInt8](repeating: 0, count: 20))
    bytes.replaceSubrange(bytes.count - 16..<bytes.count - 12, with: little(UInt32(60)))
    let (summary, _) = try scan(bytes)
    #expect(summary.end == LSN(rawValue: 0x310_0000))
    #expect(summary.unfinished?.bytes == little(UInt32(60)) + [UInt8](repeating: 0, count: 12))
    #expect(summary.unfinished?.missingByteCount == 44)
  }

  @Test("the last segment of all positions can be walked") func lastPosition() throws {
    var page = PageBytes()
    page.address = 0xFFFF_FFFF_FFF0_0000
    page.remaining = .max
    let name = try #require(WALSegmentName("00000001FFFFFFFF00000FFF"))
    #expect(code { try check(page.header, name: name) } == .walFileInvalid)
    #expect(code { _ = try scan(page.segment, name) } == .walFileInvalid)
  }

  @Test("garbage behind a good header throws or ends the walk; it never crashes") func garbage() {
    var numbers = SeededNumbers(21)
    let page = PageBytes()
    for _ in 0..<60 {
      var bytes = page.segment
      for _ in 0..<Int.random(in: 1...40, using: &numbers) {
        let position = Int.random(in: 16..<bytes.count - 64, using: &numbers)
        let noise: [UInt8] = [[0xFF, 0xFF, 0xFF, 0xFF], [0, 0, 0, 0x40], numbers.bytes(48), little(UInt32.max / 2)][
          Int.random(in: 0...3, using: &numbers)]
        // Where records begin is where it matters.
        let aligned = Bool.random(using: &numbers) ? 40 + (position % 64) * 8 : position
        bytes.replaceSubrange(aligned..<aligned + noise.count, with: noise)
      }
      let failure = code {
        let (summary, _) = try scan(bytes)
        #expect(summary.end >= LSN(rawValue: page.address))
      }
      #expect(failure == nil || failure == .walFileInvalid)
    }
  }
}
