// In a systemd unit its credentials stand for files of the same names, and nothing else changes.
import Configuration
import Diagnostics
import SystemSupport
import TestSupport
import Testing

@Suite("The configuration in a systemd unit")
struct UnitConfigurationTests {
  private func configuration(east: String = "/etc/tidemark/crm.writer/east.credentials") throws -> TidemarkConfiguration
  {
    try TidemarkConfiguration(
      yaml: """
        cluster: crm
        repository:
          regions:
            - {name: west, endpoint: "https://west.example", bucket: west, region: us-1, credentials-file: /etc/tidemark/crm.writer/west.credentials}
            - {name: east, endpoint: "https://east.example", bucket: east, region: us-1, credentials-file: \(east)}
        encryption: {identity-file: /etc/tidemark/crm.reader/identity.key, writer-key-file: /etc/tidemark/crm.writer/writer.key}
        notifications: [{name: ops, url-file: /etc/tidemark/ops.url, secret-file: /etc/tidemark/ops.secret}]
        """, file: "crm.yaml")
  }

  private func credentialsFiles(_ configuration: TidemarkConfiguration) -> [String?] {
    configuration.repository.regions.map { region in
      guard case .bucket(let bucket) = region.store else { return nil }
      return bucket.credentialsFile
    }
  }

  @Test("what the unit was given stands for the files of the same names; the others stay")
  func replacement() throws {
    let temporary = try TemporaryDirectory()
    let directory = temporary.path
    for name in ["writer.key", "west.credentials", "ops.url", "other"] {
      try DurableFile.write([1], to: "\(directory)/tidemark_\(name)")
    }
    try DurableFile.write([1], to: "\(directory)/identity.key")
    let before = try configuration()
    let after = try before.inUnit {
      ["CREDENTIALS_DIRECTORY": directory, "TIDEMARK_STATE_DIRECTORY": "/var/lib/tidemark-pruner"][$0]
    }
    #expect(after.encryption.writerKeyFile == "\(directory)/tidemark_writer.key")
    // Without the prefix it is another unit's convention.
    #expect(after.encryption.identityFile == "/etc/tidemark/crm.reader/identity.key")
    #expect(
      credentialsFiles(after) == [
        "\(directory)/tidemark_west.credentials", "/etc/tidemark/crm.writer/east.credentials",
      ])
    #expect(after.notifications.map(\.means) == [.webhookFile("\(directory)/tidemark_ops.url")])
    #expect(after.notifications.map(\.secretFile) == ["/etc/tidemark/ops.secret"])
    #expect(after.stateDirectory == "/var/lib/tidemark-pruner")
    #expect(before.drillDirectory == "/var/lib/tidemark/drill")
    #expect(after.drillDirectory == "/var/lib/tidemark-pruner/drill")
    #expect(try before.inUnit { _ in nil } == before)
    withExtendedLifetime(temporary) {}
  }

  @Test("two files of the same name are refused: one credential can't stand for both")
  func ambiguity() throws {
    let directory = try TemporaryDirectory()
    try DurableFile.write([1], to: "\(directory.path)/tidemark_west.credentials")
    let same = try configuration(east: "/elsewhere/west.credentials")
    do {
      _ = try same.inUnit { ["CREDENTIALS_DIRECTORY": directory.path][$0] }
      Issue.record("it was accepted")
    } catch {
      #expect(error.code == .configurationInvalid)
      #expect(error.cause?.contains("/elsewhere/west.credentials") == true)
    }
    #expect(throws: TidemarkError.self) { try same.inUnit { ["TIDEMARK_STATE_DIRECTORY": "relative"][$0] } }
  }
}
