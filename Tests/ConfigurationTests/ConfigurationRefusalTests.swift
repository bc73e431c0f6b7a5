// What a wrong configuration says: the code, the line, the key's full path, the remedy, and never a secret.
import Configuration
import Diagnostics
import Foundation
import Testing

/// The error of reading `yaml`.
private func refusal(_ yaml: String) throws -> TidemarkError {
  try #require(throws: TidemarkError.self) { try TidemarkConfiguration(yaml: yaml, file: "/etc/t.yaml") }
}

/// `shortest` with more keys of a region.
private func region(_ keys: String) -> String {
  """
  cluster: crm
  repository:
    regions:
      - {name: here, \(keys)}
  """
}

@Suite("Configuration refused")
struct ConfigurationRefusalTests {
  @Test(
    "an unknown key names its line, its path and the nearest known key",
    arguments: [
      ("clutser: x", "line 5: clutser is an unknown key: the nearest known one is 'cluster'"),
      ("state_directory: /x", "line 5: state_directory is an unknown key: the nearest known one is 'state-directory'"),
      (
        "postgres: {conection: x}",
        "line 5: postgres.conection is an unknown key: the nearest known one is 'connection'"
      ),
      ("limits:\n  wal-wat: 5m", "line 6: limits.wal-wat is an unknown key: the nearest known one is 'wal-wait'"),
    ])
  func unknownKey(addition: String, expected: String) throws {
    let error = try refusal(shortest + "\n" + addition)
    #expect(error.code == .configurationInvalid)
    #expect(error.object == "/etc/t.yaml")
    #expect(error.cause == expected)
    #expect(error.exitStatus == .configuration)
  }

  @Test("an unknown key of a region names the region's place in the list")
  func unknownRegionKey() throws {
    let error = try refusal(region("endpoint: \"file:///x\", buckt: crm"))
    #expect(error.cause == "line 4: repository.regions[0].buckt is an unknown key: the nearest known one is 'bucket'")
  }

  @Test("all problems are reported at once, in the file's order")
  func allAtOnce() throws {
    let error = try refusal(
      """
      compression: {level: 20}
      cluster: "a b"
      repository:
        durability: {required: 3}
        regions:
          - {name: a, endpoint: "file:///x"}
          - {name: a, endpoint: "file:///y"}
      attachments: [relative]
      objectives: {rto: 5}
      """)
    let problems = try #require(error.cause).split(separator: "\n").map { $0.drop { $0 == " " } }
    #expect(error.summary == "the configuration has 6 problems")
    #expect(
      problems == [
        "line 1: compression.level is not a whole number from 1 to 19",
        "line 2: cluster is not a valid name: use letters, digits, '.', '_' and '-' alone, at most 64 of them",
        "line 4: repository.durability.required is 3, but there are 2 regions",
        "line 7: repository.regions[1].name 'a' is the name of regions[0] already",
        "line 8: attachments[0] is not an absolute path: begin with '/'",
        "line 9: objectives.rto is not a duration: write a whole number and a unit, such as 500ms, 60s, 5m or 1h",
      ])
  }

  @Test(
    "a secret is refused with its right place, and isn't repeated",
    arguments: [
      ("{cluster: crm, repository: {regions: [{secret_access_key: hunter2}]}}", "'credentials-file'"),
      ("{cluster: crm, aws-session-token: hunter2}", "'credentials-file'"),
      ("{cluster: crm, postgres: {password: hunter2}}", "~/.pgpass"),
      ("{cluster: crm, postgres: {connection: \"host=a password = 'hunter2'\"}}", "~/.pgpass"),
      ("{cluster: crm, postgres: {connection: \"user=password password=hunter2\"}}", "~/.pgpass"),
      ("{cluster: crm, postgres: {connection: \"postgresql://me:hunter2@db/x\"}}", "~/.pgpass"),
      ("{cluster: crm, encryption: {private-key: hunter2}}", "'identity-file'"),
      ("{cluster: crm, encryption: {recipients: [tidemark-identity-secret-hunter2]}}", "is a private key"),
      ("{cluster: crm, encryption: {trusted-writers: [tidemark-writer-secret-hunter2]}}", "is a private key"),
      ("{cluster: crm, encryption: {trusted-writers: [hunter2]}}", "'tidemark-writer-'"),
      (
        "{cluster: crm, repository: {regions: [{name: a, endpoint: \"https://me:hunter2@s3\", bucket: crm, region: r}]}}",
        "'credentials-file'"
      ),
    ])
  func secrets(yaml: String, remedy: String) throws {
    let error = try refusal(yaml)
    let cause = try #require(error.cause)
    #expect(cause.replacing("the credentials-file", with: "'credentials-file'").contains(remedy))
    #expect(!error.operatorText.contains("hunter2"))
  }

  @Test(
    "a connection string without a password is accepted, whatever its values are",
    arguments: [
      "host=/run user='password=x' dbname=a", "postgresql://me@db/x?sslmode=require", "user=a\\ password=x", "",
    ])
  func harmlessConnections(connection: String) throws {
    let yaml = shortest + "\npostgres: {connection: '\(connection.replacing("'", with: "''"))'}"
    #expect(try TidemarkConfiguration(yaml: yaml, file: "f").postgres.connection == connection)
  }

  @Test(
    "an endpoint that can't be used is refused",
    arguments: [
      ("s3.example.com", "is not a URL"), ("ftp://s3", "unknown scheme"), ("https://", "no valid host name"),
      ("https://s3:0", "has a port"), ("https://s3:99999", "has a port"), ("https://s3:", "has a port"),
      ("https://s3/path", "has a path"), ("https://s3?x=1", "has a path"), ("https://s3 x", "no valid host name"),
      ("http://[::1", "has a port"), ("file://relative", "is not a directory"), ("file:///", "is not a directory"),
      ("", "is not a URL"),
    ])
  func endpoints(endpoint: String, reason: String) throws {
    let error = try refusal(region("endpoint: \"\(endpoint)\", bucket: crm, region: us-east-1"))
    let cause = try #require(error.cause)
    #expect(cause.hasPrefix("line 4: repository.regions[0].endpoint ") && cause.contains(reason))
  }

  @Test(
    "a region that lacks something, or says it wrongly, is refused",
    arguments: [
      ("endpoint: \"http://s3\", region: r", "bucket is missing"),
      ("endpoint: \"http://s3\", bucket: crm", "region is missing"),
      ("bucket: crm, region: r", "endpoint is missing"),
      ("endpoint: \"http://s3\", bucket: \"a/b\", region: r", "bucket is not a bucket's name"),
      ("endpoint: \"http://s3\", bucket: crm, region: r, addressing: host", "is neither 'path' nor"),
      ("endpoint: \"https://s3\", bucket: a.b, region: r, addressing: virtual-hosted", "use 'path'"),
      ("endpoint: \"http://s3\", bucket: crm, region: r, ca-file: own.pem", "ca-file is not an absolute path"),
      ("endpoint: \"http://s3\", bucket: crm, region: r, connect-timeout: 0s", "must be longer than nothing"),
      ("endpoint: \"http://s3\", bucket: crm, region: r, silence-limit: ", "silence-limit has no value"),
      ("endpoint: [a], bucket: crm, region: r", "endpoint must be one value, not a list"),
    ])
  func regions(keys: String, reason: String) throws {
    let cause = try #require(try refusal(region(keys)).cause)
    #expect(cause.contains(reason))
    #expect(!cause.contains("\n"), "one problem alone is reported")
  }

  @Test("one place under two names is not two copies")
  func samePlace() throws {
    let error = try refusal(
      """
      cluster: crm
      repository:
        regions:
          - {name: a, endpoint: "HTTP://S3.example/", bucket: crm, region: r}
          - {name: b, endpoint: "http://s3.example", bucket: crm, region: r}
      """)
    #expect(error.cause == "line 5: repository.regions[1].endpoint is the place of region 'a': one copy, not two")
  }

  @Test(
    "a value that can't be meant is refused",
    arguments: [
      ("limits: {memory: 256M}", "limits.memory is not a number of bytes"),
      ("limits: {memory: 1MiB}", "limits.memory is not between 64MiB and 1TiB"),
      ("limits: {memory: 99999999TiB}", "limits.memory is too large"),
      ("limits: {memory: 99999999999999999999}", "limits.memory is not a number of bytes"),
      ("limits: {upload-rate: -1}", "limits.upload-rate is not a number of bytes"),
      ("limits: {workers: 1.5}", "limits.workers is not a whole number from 0 to 1024"),
      ("limits: {wal-wait: 0s}", "limits.wal-wait must be longer than nothing"),
      ("limits: {wal-wait: 9999999999999d}", "limits.wal-wait is longer than ten years"),
      ("limits: {wal-wait: 5 minutes}", "limits.wal-wait is not a duration"),
      ("limits: [1]", "limits must be a mapping"),
      ("attachments: /etc/hosts", "attachments must be a list"),
      ("attachments: [{a: b}]", "attachments[0] must be one value"),
      ("state-directory: var", "state-directory is not an absolute path"),
      ("state-directory: \"/a\\nb\"", "state-directory holds a line break"),
      ("compression:", "compression has no value"),
    ])
  func values(addition: String, reason: String) throws {
    let error = try refusal(shortest + "\n" + addition)
    #expect(try #require(error.cause).hasPrefix("line 5: \(reason)"))
  }

  @Test(
    "a prefix that isn't part of an object's key is refused",
    arguments: ["/a", "a/", "a//b", "..", "a/../b", "a b", "ä", String(repeating: "a", count: 401)])
  func prefixes(prefix: String) throws {
    let yaml = "{cluster: crm, repository: {prefix: '\(prefix)', regions: [{name: a, endpoint: 'file:///x'}]}}"
    #expect(try #require(try refusal(yaml).cause).hasPrefix("line 1: repository.prefix is not valid"))
  }

  @Test(
    "a file that isn't a configuration is refused",
    arguments: [
      ("", "the file is empty"), ("# nothing\n", "the file is empty"), ("- a\n", "must be a mapping"),
      ("cluster: crm\n", "repository is missing"), ("cluster: crm\ncluster: b\n", "cluster is there twice"),
      ("cluster: [crm\n", "is not valid YAML at column"), ("a: b\n---\nc: d\n", "found another document"),
      ("{cluster: crm, repository: {regions: []}}", "repository.regions names no region"),
      ("{cluster: crm, repository: {prefix: a}}", "repository.regions is missing"),
    ])
  func notConfigurations(yaml: String, reason: String) throws {
    let error = try refusal(yaml)
    #expect(error.code == .configurationInvalid)
    #expect(try #require(error.cause).contains(reason))
  }

  @Test("YAML's own error doesn't repeat the file")
  func syntaxErrorKeepsSecrets() throws {
    let error = try refusal("cluster: crm\nsecret: hunter2: x\n")
    #expect(!error.operatorText.contains("hunter2"))
    #expect(try #require(error.cause).hasPrefix("line 2: the file is not valid YAML"))
  }

  @Test("a missing file says what to do, and a directory is no file")
  func unreadable() throws {
    for path in ["/nonexistent/tidemark.yaml", "/"] {
      let error = try #require(throws: TidemarkError.self) { try TidemarkConfiguration(contentsOf: path) }
      #expect(error.code == .configurationUnreadable)
      #expect(error.object == path)
      #expect(try #require(error.next).contains("--config"))
    }
  }

  @Test("bytes that aren't UTF-8 are refused")
  func notUTF8() throws {
    let path = NSTemporaryDirectory() + "tidemark-\(UUID().uuidString).yaml"
    try Data([0x61, 0x3A, 0x20, 0xFF]).write(to: URL(fileURLWithPath: path))
    defer { try? FileManager.default.removeItem(atPath: path) }
    let error = try #require(throws: TidemarkError.self) { try TidemarkConfiguration(contentsOf: path) }
    #expect(error.code == .configurationInvalid)
  }
}
