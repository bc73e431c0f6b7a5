// The record that creates a tablespace, in one piece and across two segments: a drill must see it in any case.
import Diagnostics
import Testing

@testable import PostgresFormats

@Suite("Tablespaces made by WAL")
struct TablespaceCreationTests {
  /// XLOG_TBLSPC_CREATE as PostgreSQL writes it: 24 bytes of header, a short main data header, OID and path.
  private func record(_ path: String, manager: UInt8 = 5, info: UInt8 = 0) -> [UInt8] {
    let data = [1, 2, 3, 4] + Array(path.utf8) + [0]
    let total = UInt32(24 + 2 + data.count)
    var bytes = [UInt8](repeating: 0, count: 24)
    for index in 0..<4 { bytes[index] = UInt8(truncatingIfNeeded: total >> (8 * UInt32(index))) }
    bytes[16] = info
    bytes[17] = manager
    return bytes + [255, UInt8(data.count)] + data
  }

  private func location(_ record: [UInt8], _ continuation: [UInt8] = [], byteCount: Int? = nil) -> String? {
    let unfinished = UnfinishedWALRecord(
      start: LSN(rawValue: 64), byteCount: byteCount ?? record.count, bytes: record)
    let event = WALSegmentScanner.event(unfinished, continuation: continuation, version: .v15)
    if case .createTablespace(_, let location, _) = event { return location }
    return nil
  }

  @Test("a whole record tells its location; a drop and other managers' records tell none") func whole() {
    #expect(location(record("/srv/space")) == "/srv/space")
    #expect(location(record("/srv/space", info: 0x10)) == nil)
    #expect(location(record("/srv/space", manager: 4)) == nil)
  }

  @Test("a record that spans two segments is found wherever it is cut") func spanning() {
    let bytes = record("/srv/space")
    for cut in stride(from: 8, to: bytes.count, by: 8) {
      let found = location(Array(bytes[..<cut]), Array(bytes[cut...]) + [9, 9, 9], byteCount: bytes.count)
      #expect(found == "/srv/space", "cut at \(cut)")
    }
  }
}
