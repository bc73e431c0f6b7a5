// The stores that the conformance suite runs against: a directory, three real S3 servers, and two of them behind a proxy
// that injects faults at random. All are started once.
import Diagnostics
import Glibc
import ObjectStorage
import S3Storage
import SystemSupport
import TestSupport

enum TestedStore: String, CaseIterable, CustomStringConvertible {
  case directory, rclone, rcloneTLS, moto
  /// Behind a proxy that injects what a store must get over by itself.
  case rcloneFaulty, motoFaulty

  var description: String { rawValue }

  /// Whether the store itself refuses to create what exists.
  var isConditional: Bool { self == .directory || self == .moto || self == .motoFaulty }
  /// Whether an answer may be lost: a creation that succeeded may then find the object there.
  var isFaulty: Bool { self == .rcloneFaulty || self == .motoFaulty }
  /// What the first creation of an object may say.
  var creations: [CreationOutcome] { isFaulty ? [.created, .exists] : [.created] }

  static let bucket = "tidemark-test"

  /// A store of its own, with small pages, and a prefix that no other test uses.
  func open(listPageSize: Int = 3) throws -> (store: any ObjectStore, prefix: String) {
    let prefix = "t\(UInt32.random(in: 0...UInt32.max))"
    switch self {
    case .directory:
      let store = DirectoryStore(root: "\(try Servers.directory.get().path)/\(prefix)")
      try store.prepare()
      return (store, prefix)
    case .rclone, .rcloneTLS, .moto, .rcloneFaulty, .motoFaulty:
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
    case .rcloneFaulty: endpoint = try Servers.rcloneProxy.get().endpoint
    case .motoFaulty: endpoint = try Servers.motoProxy.get().endpoint
    }
    var limits = S3Limits()
    if isFaulty { limits.silence = .seconds(1) }
    return S3Configuration(
      endpoint: endpoint, bucket: Self.bucket, region: "us-east-1", credentials: credentials,
      certificateAuthorityFile: authority, limits: limits, listPageSize: listPageSize)
  }
}

/// Started at first use, ended with the test process.
enum Servers {
  static let directory = Result { try TemporaryDirectory() }
  static let certificate = Result { try TestCertificate() }
  static let rclone = Result { try RcloneServer(buckets: [TestedStore.bucket]) }
  static let rcloneTLS = Result { try RcloneServer(buckets: [TestedStore.bucket], certificate: certificate.get()) }
  static let rcloneProxy = Result { try faulty(rclone.get().port, Fault.passing) }
  /// moto checks neither Content-MD5 nor the signed digest, so it would keep what the line spoilt, as no S3 does.
  static let motoProxy = Result { try faulty(moto.get().port, Fault.passing.filter { $0 != .spoiltRequest }) }
  /// One request in twelve meets a fault.
  private static func faulty(_ port: UInt16, _ faults: [Fault]) throws -> FaultProxy {
    let seed = getenv("TIDEMARK_FAULT_SEED").flatMap { UInt64(String(cString: $0)) }
    let proxy = try FaultProxy(upstream: port, seed: seed ?? .random(in: 1...999_999))
    print("faults before port \(port) come from seed \(proxy.seed): TIDEMARK_FAULT_SEED repeats them")
    proxy.set(.random(probability: 0.08, among: faults))
    return proxy
  }
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
  func keys(prefix: String, startingAfter: String? = nil, deadline: Deadline = patience) throws -> [String] {
    var keys: [String] = []
    try list(prefix: prefix, startingAfter: startingAfter, deadline: deadline) {
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
