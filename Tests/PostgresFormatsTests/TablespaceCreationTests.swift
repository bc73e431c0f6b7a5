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

  @Test("a whole record tells its location; a drop and other managers' records tell none") func whole() {
    let bytes = record("/srv/space")
    #expect(WALSegmentScanner.tablespaceCreated(by: bytes, bytes.count) == "/srv/space")
    let drop = record("/srv/space", info: 0x10)
    #expect(WALSegmentScanner.tablespaceCreated(by: drop, drop.count) == nil)
    let other = record("/srv/space", manager: 4)
    #expect(WALSegmentScanner.tablespaceCreated(by: other, other.count) == nil)
  }

  @Test("a record that spans two segments is found wherever it is cut, in either order", arguments: [true, false])
  func spanning(_ isInOrder: Bool) throws {
    let bytes = record("/srv/space")
    let size = 1 << 20
    for cut in stride(from: 8, to: bytes.count, by: 8) {
      var joint = WALRecordJoint()
      let (beginning, rest) = (Array(bytes[..<cut]), Array(bytes[cut...]))
      var found: [String] = []
      let visits: [(Int, [UInt8], [UInt8])] = [(4, [], beginning), (5, rest, [])]
      for (number, head, tail) in isInOrder ? visits : visits.reversed() {
        let segment = page(number, size, head)
        found += try segment.withUnsafeBytes { buffer in
          let header = try WALPageHeader(parsing: buffer)
          return joint.tablespacesCreated(tail, header, buffer)
        }
      }
      #expect(found == ["/srv/space"], "cut at \(cut)")
    }
  }

  @Test("parts that don't belong together make no record") func strangers() throws {
    var joint = WALRecordJoint()
    let bytes = record("/srv/space")
    let first = page(4, 1 << 20, [])
    let second = page(5, 1 << 20, Array(bytes[32...]) + [0])
    let header = try first.withUnsafeBytes { try WALPageHeader(parsing: $0) }
    #expect(first.withUnsafeBytes { joint.tablespacesCreated(Array(bytes[..<32]), header, $0) } == [])
    let next = try second.withUnsafeBytes { try WALPageHeader(parsing: $0) }
    #expect(second.withUnsafeBytes { joint.tablespacesCreated([], next, $0) } == [])
  }

  /// A segment of which only the first page matters: a long header (xlog_internal.h) and the rest of a record.
  private func page(_ number: Int, _ size: Int, _ rest: [UInt8]) -> [UInt8] {
    func little(_ value: UInt64, _ count: Int) -> [UInt8] {
      (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * UInt64($0))) }
    }
    let header =
      little(0xD110, 2) + little(rest.isEmpty ? 2 : 3, 2) + little(1, 4) + little(UInt64(number * size), 8)
      + little(UInt64(rest.count), 4) + little(0, 4) + little(7, 8) + little(UInt64(size), 4) + little(8192, 4)
    return header + rest + [UInt8](repeating: 0, count: size - header.count - rest.count)
  }
}
