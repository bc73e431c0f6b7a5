// A whole configuration is read as written, and a short one gets the documented defaults.
import Configuration
import Diagnostics
import Foundation
import Testing

/// The smallest configuration that is accepted.
let shortest = """
  cluster: crm
  repository:
    regions:
      - {name: here, endpoint: "http://127.0.0.1:9000", bucket: crm, region: us-east-1}
  """

@Suite("Configuration")
struct ConfigurationTests {
  @Test("every key is read as written")
  func everyKey() throws {
    let configuration = try TidemarkConfiguration(
      yaml: """
        cluster: crm
        postgres:
          connection: host=/var/run/postgresql user=tidemark        # libpq conninfo
          data-directory: /var/lib/postgresql/15/main
          bin-directory: /usr/lib/postgresql/15/bin
          os-user: pg
        repository:
          prefix: backups/tidemark
          durability: {required: 1, degrade-after: 90s}
          regions:
            - name: us-west
              endpoint: https://s3.us-west-2.amazonaws.com/
              bucket: crm-west
              region: us-west-2
              credentials-file: /etc/tidemark/us-west.credentials
              profile: backup
              ca-file: /etc/ssl/own.pem
              connect-timeout: 500ms
              silence-limit: 1m
            - {name: us-east, endpoint: "http://[::1]:9000", bucket: crm.east, region: us-east-1,
               addressing: virtual-hosted}
            - {name: nas, endpoint: "file:///mnt/nas/"}
        encryption:
          recipients: [tidemark-recipient-abc, tidemark-recipient-def]
          identity-file: /etc/tidemark/identity.key
          writer-key-file: /etc/tidemark/writer.key
          trusted-writers: [tidemark-writer-abc]
        compression: {level: 7}
        attachments: [/etc/haproxy/haproxy.cfg]
        limits: {upload-rate: 10MB, memory: 1 GiB, workers: 3, wal-wait: 2h}
        objectives: {rto: 5m, rpo: 30s}
        state-directory: /srv/tidemark
        """, file: "f")
    #expect(configuration.cluster == "crm")
    #expect(configuration.postgres.connection == "host=/var/run/postgresql user=tidemark")
    #expect(configuration.postgres.dataDirectory == "/var/lib/postgresql/15/main")
    #expect(configuration.postgres.binDirectory == "/usr/lib/postgresql/15/bin")
    #expect(configuration.postgres.osUser == "pg")
    #expect(configuration.repository.prefix == "backups/tidemark")
    #expect(configuration.repository.durability.required == 1)
    #expect(configuration.repository.durability.degradeAfter == .seconds(90))
    #expect(configuration.repository.regions.map(\.name) == ["us-west", "us-east", "nas"])
    guard case .bucket(let west) = configuration.repository.regions[0].store,
      case .bucket(let east) = configuration.repository.regions[1].store
    else {
      Issue.record("the first two regions are buckets")
      return
    }
    #expect(west.endpoint.description == "https://s3.us-west-2.amazonaws.com")
    #expect(west.name == "crm-west")
    #expect(west.region == "us-west-2")
    #expect(west.addressing == .virtualHosted)
    #expect(west.credentialsFile == "/etc/tidemark/us-west.credentials")
    #expect(west.profile == "backup")
    #expect(west.caFile == "/etc/ssl/own.pem")
    #expect(west.connectTimeout == .milliseconds(500))
    #expect(west.silenceLimit == .seconds(60))
    #expect(east.endpoint.host == "[::1]")
    #expect(east.endpoint.port == 9000)
    #expect(east.addressing == .virtualHosted)
    #expect(configuration.repository.regions[2].store == .directory("/mnt/nas"))
    #expect(configuration.encryption.recipients == ["tidemark-recipient-abc", "tidemark-recipient-def"])
    #expect(configuration.encryption.identityFile == "/etc/tidemark/identity.key")
    #expect(configuration.encryption.writerKeyFile == "/etc/tidemark/writer.key")
    #expect(configuration.encryption.trustedWriters == ["tidemark-writer-abc"])
    #expect(configuration.compression.level == 7)
    #expect(configuration.attachments == ["/etc/haproxy/haproxy.cfg"])
    #expect(configuration.limits.uploadRate == 10_000_000)
    #expect(configuration.limits.memory == 1 << 30)
    #expect(configuration.limits.workers == 3)
    #expect(configuration.limits.walWait == .seconds(7200))
    #expect(configuration.objectives.rto == .seconds(300))
    #expect(configuration.objectives.rpo == .seconds(30))
    #expect(configuration.stateDirectory == "/srv/tidemark")
  }

  @Test("what isn't said gets the documented default")
  func defaults() throws {
    let configuration = try TidemarkConfiguration(yaml: shortest, file: "f")
    #expect(configuration.postgres.connection == "")
    #expect(configuration.postgres.dataDirectory == nil)
    #expect(configuration.postgres.osUser == "postgres")
    #expect(configuration.repository.prefix == "tidemark")
    #expect(configuration.repository.durability.required == 1)
    #expect(configuration.repository.durability.degradeAfter == .seconds(60))
    #expect(configuration.encryption.recipients.isEmpty)
    #expect(configuration.encryption.trustedWriters.isEmpty)
    #expect(configuration.compression.level == 3)
    #expect(configuration.limits.uploadRate == nil)
    #expect(configuration.limits.memory == 256 << 20)
    #expect(configuration.limits.workers == nil)
    #expect(configuration.limits.walWait == .seconds(600))
    #expect(configuration.objectives.rto == nil)
    #expect(configuration.stateDirectory == "/var/lib/tidemark")
    guard case .bucket(let bucket) = configuration.repository.regions[0].store else {
      Issue.record("the region is a bucket")
      return
    }
    #expect(bucket.addressing == .path)
    #expect(bucket.connectTimeout == .seconds(10))
    #expect(bucket.silenceLimit == .seconds(30))
  }

  @Test("two copies are required as soon as there are two regions", arguments: [1, 2, 3])
  func requiredByDefault(count: Int) throws {
    let regions = (1...count).map { "    - {name: r\($0), endpoint: \"file:///mnt/\($0)\"}" }
    let yaml = "cluster: crm\nrepository:\n  regions:\n" + regions.joined(separator: "\n")
    let configuration = try TidemarkConfiguration(yaml: yaml, file: "f")
    #expect(configuration.repository.durability.required == min(count, 2))
  }

  @Test("a dotted bucket at Amazon over https is addressed by path, since no certificate covers it")
  func dottedBucket() throws {
    let yaml = """
      cluster: crm
      repository:
        regions: [{name: a, endpoint: "https://s3.amazonaws.com", bucket: my.crm, region: us-east-1}]
      """
    let configuration = try TidemarkConfiguration(yaml: yaml, file: "f")
    guard case .bucket(let bucket) = configuration.repository.regions[0].store else {
      Issue.record("the region is a bucket")
      return
    }
    #expect(bucket.addressing == .path)
  }

  @Test("the examples of docs/configuration.md are accepted")
  func documentedExamples() throws {
    let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent()
    let text = try String(contentsOf: root.appendingPathComponent("docs/configuration.md"), encoding: .utf8)
    let examples = text.components(separatedBy: "```yaml\n").dropFirst().map { $0.components(separatedBy: "```")[0] }
    #expect(examples.count == 2)
    for example in examples { _ = try TidemarkConfiguration(yaml: example, file: "docs/configuration.md") }
  }

  @Test("a file is read from disk, and --config goes before the environment")
  func fromDisk() throws {
    let path = NSTemporaryDirectory() + "tidemark-\(UUID().uuidString).yaml"
    try shortest.write(toFile: path, atomically: true, encoding: .utf8)
    defer { try? FileManager.default.removeItem(atPath: path) }
    let configuration = try TidemarkConfiguration(contentsOf: path)
    #expect(configuration.file == path)
    #expect(TidemarkConfiguration.path(option: path) == path)
  }
}
