// A backup whose predecessor was cut into blocks of another size, as an update of Tidemark can leave it.
import BackupRepository
import Envelope
import Foundation
import PostgresFormats
import SystemSupport
import TestSupport
import Testing

@Suite("Block sizes")
struct BlockSizeTests {
  @Test("after a backup with blocks of another size the next one is full and says why; the one after it isn't")
  func otherSize() throws {
    let installation = try Installation(.v15, usesS3: false)
    let server = installation.server
    try server.psql("CREATE TABLE orders AS SELECT g AS id, md5(g::text) AS name FROM generate_series(1, 20000) g")
    let first = try installation.json(["backup"])
    #expect((first["remarks"] as? [String])?.isEmpty == true)
    let label = try #require(first["label"] as? String)
    try cut(installation, label, into: 1 << 16)

    let second = try installation.json(["backup"])
    let remarks = try #require(second["remarks"] as? [String])
    #expect(remarks == ["this backup is full, since \(label) has blocks of 64 KiB, and this version makes 16 KiB"])
    #expect(second["newBytes"] as? Int == second["databaseBytes"] as? Int)
    let third = try installation.json(["backup"])
    #expect((third["remarks"] as? [String])?.isEmpty == true)
    #expect((third["newBytes"] as? Int ?? .max) * 10 < (third["databaseBytes"] as? Int ?? 0))

    // With an older backup of the right size behind it, the newest is passed over alone.
    try cut(installation, try #require(third["label"] as? String), into: 1 << 16)
    let fourth = try installation.json(["backup"])
    let (older, newer) = (try #require(second["label"] as? String), try #require(third["label"] as? String))
    #expect(
      fourth["remarks"] as? [String]
        == [
          "this backup builds on \(older), since the newer \(newer) has blocks of 64 KiB, and this version makes 16 KiB"
        ]
    )
    #expect((fourth["newBytes"] as? Int ?? .max) * 10 < (fourth["databaseBytes"] as? Int ?? 0))
    let sum = "SELECT sum(id), md5(string_agg(name, '' ORDER BY id)) FROM orders"
    let expected = try server.psql(sum)
    try installation.restore("restored", ["--to-backup-end"]) { query in
      let restored = try query(sum)
      #expect(restored == expected)
    }
  }

  /// Gives the backup's manifest another block size, sealed and signed as a writer of that size would have.
  private func cut(_ installation: Installation, _ label: String, into blockSize: Int) throws {
    let identities = try KeyFile.identities("\(installation.root)/identity.key")
    let writer = try KeyFile.writer("\(installation.root)/writer.key")
    let cluster = "\(installation.root)/west/backups/tidemark/crm"
    let system = try #require(
      try FileManager.default.contentsOfDirectory(atPath: cluster).first { UInt64($0) != nil }.flatMap(UInt64.init))
    let name = try ClusterLayout(cluster: "crm").lineage(SystemIdentifier(rawValue: system)).manifest(
      BackupLabelName(label))
    let sealed = [UInt8](try Data(contentsOf: URL(filePath: "\(installation.root)/west/backups/tidemark/\(name.text)")))
    let opened = try SealedObject.open(
      sealed, expectedName: name.text, expectedKind: .manifest, trustedWriters: [writer.publicKey],
      identities: identities)
    var manifest = try BackupManifest(decoding: opened.readAll(limit: 1 << 20))
    manifest.blockSize = blockSize
    let changed = try SealedObject.seal(
      kind: .manifest, name: name.text, plaintext: manifest.encoded(),
      recipients: identities.map(\.recipient) + [writer.ownRecipient], writer: writer, level: 3,
      created: wallClockMicroseconds())
    for region in ["west", "east"] {
      // In place: the file stays its owner's.
      let handle = try FileHandle(
        forWritingTo: URL(filePath: "\(installation.root)/\(region)/backups/tidemark/\(name.text)"))
      try handle.truncate(atOffset: 0)
      try handle.write(contentsOf: Data(changed))
      try handle.close()
    }
  }
}
