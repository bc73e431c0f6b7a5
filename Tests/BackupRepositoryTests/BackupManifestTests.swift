// The manifest: what is written is read, and what no backup says is refused.
import Diagnostics
import Foundation
import PostgresFormats
import Testing

@testable import BackupRepository

extension BackupManifest {
  /// A manifest as a small backup writes it.
  static func sample(_ label: String = "20261124T031500Z-3f9a", stop: String = "0/3000000") throws -> BackupManifest {
    var manifest = BackupManifest(
      label: try BackupLabelName(label), cluster: "crm", systemIdentifier: SystemIdentifier(rawValue: 7301))
    manifest.timeline = 1
    manifest.startLSN = "0/2000028"
    manifest.stopLSN = stop
    manifest.startTime = 1_700_000_000.25
    manifest.serverVersion = 150_008
    manifest.walSegmentSize = 16 << 20
    manifest.blockSize = 65536
    manifest.fileTableParts = 1
    manifest.fileCount = 12
    manifest.labels = [label, "20261123T031500Z-0001"]
    manifest.packs = [
      PackReference(label: label, ranges: [[1, 1]]),
      PackReference(
        label: "20261123T031500Z-0001", ranges: [[1, 3], [7, 7]], plaintextBytes: [9, 0, 70_000_000_000, 1]),
    ]
    manifest.predecessor = Predecessor(label: "20261123T031500Z-0001", sha256: String(repeating: "0f", count: 32))
    manifest.tablespaces = [Tablespace(oid: 16385, location: "/srv/fäst")]
    manifest.settings = [Setting(name: "port", value: "5432", source: "configuration file", file: "/etc/x.conf")]
    manifest.files = [CapturedFile(role: .hba, path: "/etc/pg_hba.conf", mode: 0o640, content: Data([0, 255, 10]))]
    manifest.databases = [Database(oid: 5, name: "crm", encoding: "UTF8", collationVersion: "2.36")]
    return manifest
  }
}

@Suite("The manifest") struct BackupManifestTests {
  /// The sample's JSON with one field changed.
  func changed(_ field: String, _ value: Any) throws -> [UInt8] {
    let encoded = try BackupManifest.sample().encoded()
    var fields = try #require(try JSONSerialization.jsonObject(with: Data(encoded)) as? [String: Any])
    #expect(fields[field] != nil)
    fields[field] = value
    return [UInt8](try JSONSerialization.data(withJSONObject: fields))
  }

  @Test("what is written is read") func roundTrip() throws {
    let manifest = try BackupManifest.sample()
    let read = try BackupManifest(decoding: try manifest.encoded())
    #expect(read == manifest)
    #expect(read.packs[1].numbers == [1, 2, 3, 7])
    #expect(read.packs[1].plaintextBytesByNumber == [1: 9, 3: 70_000_000_000, 7: 1])
    // Sizes that don't fit are as good as none: no restore depends on them.
    #expect(
      BackupManifest.PackReference(label: "a", ranges: [[1, 3]], plaintextBytes: [5]).plaintextBytesByNumber == [:])
    #expect(try read.stop == LSN(rawValue: 0x300_0000))
  }

  @Test("fields of later versions are passed over, formats are not") func versions() throws {
    var bytes = try BackupManifest.sample().encoded()
    bytes.replaceSubrange(0..<1, with: Array("{\"aNewField\":[1],".utf8))
    #expect(try BackupManifest(decoding: bytes) == BackupManifest.sample())
    #expect(thrownCode { _ = try BackupManifest(decoding: try changed("format", 2)) } == .formatVersionUnknown)
  }

  @Test("what no backup says is damage") func refusals() throws {
    let own = "20261124T031500Z-3f9a"
    func pack(_ label: String, _ ranges: [[Int]]) -> [Any] { [["label": label, "ranges": ranges] as [String: Any]] }
    let hostile: [(String, Any)] = [
      ("label", "../x"), ("label", ""), ("systemIdentifier", "0"), ("systemIdentifier", "x"), ("timeline", 0),
      ("timeline", -1), ("startLSN", "nonsense"), ("stopLSN", "0/1"), ("stopLSN", ""), ("fileTableParts", 0),
      ("fileCount", -1), ("blockSize", 0), ("blockSize", 65535), ("blockSize", 1 << 40), ("walSegmentSize", 5),
      ("packs", pack("unknown", [[1, 1]])), ("packs", pack(own, [[1]])), ("packs", pack(own, [[0, 1]])),
      ("packs", pack(own, [[2, 1]])), ("packs", pack(own, [[1, Int.max]])),
      ("packs", pack(own, Array(repeating: [1, 1 << 23], count: 3))), ("labels", []), ("files", "none"),
    ]
    for (field, value) in hostile {
      let bytes = try changed(field, value)
      #expect(thrownCode { _ = try BackupManifest(decoding: bytes) } == .objectDamaged, "\(field) \(value)")
    }
  }

  @Test("what isn't JSON is damage") func notJSON() throws {
    let whole = try BackupManifest.sample().encoded()
    for count in stride(from: 0, to: whole.count, by: 7) {
      #expect(thrownCode { _ = try BackupManifest(decoding: Array(whole[..<count])) } == .objectDamaged)
    }
  }
}
