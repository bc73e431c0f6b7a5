// Expiry in buckets with versions and Object Lock, on moto: deletions become delete markers, the locked versions stay,
// listings are clean, and names can be used again.
import BackupRepository
import Configuration
import Diagnostics
import Foundation
import ObjectStorage
import S3Storage
import SystemSupport
import TestSupport
import Testing

@testable import Retention

@Suite("Expire in locked buckets") struct ExpireBucketTests {
  /// moto wants to see credentials, and checks no signature.
  private let authorization =
    "Authorization: AWS4-HMAC-SHA256 Credential=test/20261125/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"

  private func request(_ arguments: [String]) throws -> ProgramOutcome {
    try ChildProcess.run(
      "curl", ["--silent", "--show-error", "--fail", "-H", authorization] + arguments, deadline: .after(.seconds(30)))
  }

  private func curl(_ arguments: [String]) throws -> String {
    let outcome = try request(arguments)
    try #require(outcome.succeeded, "\(outcome.errorText)")
    return outcome.outputText
  }

  @Test("locked versions outlive their backup, which is gone for everybody else") func objectLock() throws {
    let server = try MotoServer()
    defer { _ = try? server.stop() }
    var stores: [(String, any ObjectStore)] = []
    for name in ["west", "east"] {
      let bucket = "\(server.endpoint)/crm-\(name)"
      _ = try curl(["-X", "PUT", "-H", "x-amz-bucket-object-lock-enabled: true", bucket])
      let lock =
        "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>"
        + "<Mode>COMPLIANCE</Mode><Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>"
      _ = try curl(["-X", "PUT", "-H", "Content-Type: application/xml", "-d", lock, "\(bucket)?object-lock"])
      stores.append(
        (
          name,
          try S3Store(
            configuration: S3Configuration(
              endpoint: server.endpoint, bucket: "crm-\(name)", region: "us-east-1",
              credentials: CredentialsProvider(
                fixed: Credentials(accessKey: "test", secretKey: "test", origin: "the tests"))))
        ))
    }
    let world = try SmallRepository(stores: stores)
    try world.backup("a", number: 2, age: 300)
    try world.backup("b", number: 4, age: 200, own: 1, others: ["a": [1]])
    let report = try ExpireRun(world.open(), ExpireRunTests.options()).run()
    #expect(report.findings.isEmpty)
    #expect(report.lineages.first?.expired == ["a"])
    for region in 0...1 {
      #expect(
        try world.names(region) == [
          "backups/b/files/00000001", "backups/b/manifest", "packs/a/00000001", "packs/b/00000001",
          "wal/00000001/000000010000000000000004",
        ])
    }
    // The version is still there, and nobody can delete it before its time.
    let versions = try curl(["\(server.endpoint)/crm-west?versions&prefix=tidemark/crm/7301/backups/a/manifest"])
    #expect(versions.contains("<DeleteMarker>"))
    let version = try #require(versions.firstMatch(of: /<Version>.*?<VersionId>([^<]+)/.dotMatchesNewlines())?.1)
    let forced = try request([
      "-X", "DELETE", "\(server.endpoint)/crm-west/tidemark/crm/7301/backups/a/manifest?versionId=\(version)",
    ])
    #expect(forced.errorText.contains("403"))
    // Nothing is left to do, and the name can be used again, as a repair from the other region does.
    #expect(try ExpireRun(world.open(), ExpireRunTests.options()).run().lineages.first?.expired == [])
    try world.create(.pack, world.lineage.pack(try BackupLabelName("a"), 2))
    #expect(try world.names().contains("packs/a/00000002"))
  }
}
