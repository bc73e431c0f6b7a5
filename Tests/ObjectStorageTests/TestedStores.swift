// The stores that the conformance suite runs against: a directory, and three real S3 servers, started once.
import Diagnostics
import Glibc
import ObjectStorage
import S3Storage
import SystemSupport
import TestSupport

enum TestedStore: String, CaseIterable, CustomStringConvertible {
  case directory, rclone, rcloneTLS, moto

  var description: String { rawValue }

  /// Whether the store itself refuses to create what exists.
  var isConditional: Bool { self == .directory || self == .moto }

  static let bucket = "tidemark-test"

  /// A store of its own, with small pages, and a prefix that no other test uses.
  func open(listPageSize: Int = 3) throws -> (store: any ObjectStore, prefix: String) {
    let prefix = "t\(UInt32.random(in: 0...UInt32.max))"
    switch self {
    case .directory:
      let store = DirectoryStore(root: "\(try Servers.directory.get().path)/\(prefix)")
      try store.prepare()
      return (store, prefix)
    case .rclone, .rcloneTLS, .moto:
      return (try S3Store(configuration: configuration(listPageSize: listPageSize)), prefix)
    }
  }

  func configuration(listPageSize: Int = 1000) throws -> S3Configuration {
    let credentials = CredentialsProvider(
      fixed: Credentials(accessKey: RcloneServer.accessKey, secretKey: RcloneServer.secretKey, origin: "the tests"))
    let endpoint: String
    var authority: String?
    switch self {
    case .directory: throw TidemarkError(.internalFault, "a directory has no S3 configuration")
    case .rclone: endpoint = try Servers.rclone.get().endpoint
    case .rcloneTLS:
      endpoint = try Servers.rcloneTLS.get().endpoint
      authority = try Servers.certificate.get().authorityPath
    case .moto: endpoint = try Servers.moto.get().endpoint
    }
    return S3Configuration(
      endpoint: endpoint, bucket: Self.bucket, region: "us-east-1", credentials: credentials,
      certificateAuthorityFile: authority, listPageSize: listPageSize)
  }
}

/// Started at first use, ended with the test process.
enum Servers {
  static let directory = Result { try TemporaryDirectory() }
  static let certificate = Result { try TestCertificate() }
  static let rclone = Result { try RcloneServer(buckets: [TestedStore.bucket]) }
  static let rcloneTLS = Result { try RcloneServer(buckets: [TestedStore.bucket], certificate: certificate.get()) }
  static let moto = Result {
    let server = try MotoServer()
    try server.createBucket(TestedStore.bucket)
    return server
  }
}

/// Long enough for a busy machine.
var patience: Deadline { .after(.seconds(60)) }

/// Bytes that don't repeat within a kibibyte or so.
func pattern(_ count: Int, seed: Int = 1) -> [UInt8] {
  var state = UInt64(truncatingIfNeeded: seed) &* 0x9E37_79B9_7F4A_7C15 | 1
  return (0..<count).map { _ in
    state ^= state << 13
    state ^= state >> 7
    state ^= state << 17
    return UInt8(truncatingIfNeeded: state)
  }
}

extension ObjectStore {
  func keys(prefix: String, startingAfter: String? = nil) throws -> [String] {
    var keys: [String] = []
    try list(prefix: prefix, startingAfter: startingAfter, deadline: patience) {
      keys.append($0.key.text)
      return true
    }
    return keys
  }
}

/// The error that `body` throws.
func failure<Result>(of body: () throws -> Result) throws -> TidemarkError {
  do { _ = try body() } catch { return TidemarkError.wrapping(error) }
  throw TidemarkError(.internalFault, "no error was thrown")
}

func nowInSeconds() -> Double { Double(time(nil)) }
