// Which interrupted backups the next one looks at: names decide, since what a label holds is known only once it is read.
import BackupRepository
import BaseBackup
import Diagnostics
import PostgresFormats
import Testing

@Suite("Interrupted backups in a listing") struct InterruptedBackupListTests {
  private func found(_ names: [String], after newest: String? = nil, known: [String] = []) throws -> [String] {
    let layout = try ClusterLayout(cluster: "crm").lineage(SystemIdentifier(rawValue: 42))
    let names = try names.map { try ObjectName(layout.backupsPrefix + $0) }
    return InterruptedBackup.find(in: names, layout, after: try newest.map { try BackupLabelName($0) }, known: known)
      .map { "\($0.label): \($0.parts.map(\.lastComponent).joined(separator: " "))" }
  }

  @Test("those without a manifest after the newest, the newest first, with their parts in order") func order() throws {
    let names = [
      "20260101T000000Z-aaaa/files/00000001", "20260102T000000Z-aaaa/files/00000001",
      "20260102T000000Z-aaaa/manifest", "20260103T000000Z-aaaa/files/00000002", "20260103T000000Z-aaaa/files/00000001",
      "20260103T000000Z-aaaa/leases/00000001", "20260104T000000Z-aaaa/files/00000001",
      "20260105T000000Z-aaaa/leases/00000001",
    ]
    let later = ["20260104T000000Z-aaaa: 00000001", "20260103T000000Z-aaaa: 00000001 00000002"]
    #expect(try found(names, after: "20260102T000000Z-aaaa") == later)
    #expect(try found(names) == later + ["20260101T000000Z-aaaa: 00000001"])
  }

  @Test("one that the newest builds on is known already, whatever its label says of the time") func known() throws {
    // Begun in the same second, or by a host whose clock is ahead.
    let names = [
      "20260102T000000Z-aaaa/manifest", "20260102T000000Z-bbbb/files/00000001", "20260102T010000Z-cccc/files/00000001",
    ]
    #expect(
      try found(names, after: "20260102T000000Z-aaaa", known: ["20260102T000000Z-bbbb", "20260102T010000Z-cccc"])
        .isEmpty
    )
    #expect(try found(names, after: "20260102T000000Z-aaaa").count == 2)
    // In the same second chance decides which label comes first.
    let other = ["20260102T000000Z-aaaa/files/00000001", "20260102T000000Z-bbbb/manifest"]
    #expect(try found(other, after: "20260102T000000Z-bbbb") == ["20260102T000000Z-aaaa: 00000001"])
  }
}
