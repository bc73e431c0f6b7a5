// A real S3 server that verifies signatures: `rclone serve s3`. Its buckets are directories below `directory`, its
// objects are files. It ignores If-None-Match and answers a ranged GET with 200.
import Diagnostics
import Glibc
import SystemSupport

package final class RcloneServer: Sendable {
  package static let accessKey = "TIDEMARKTESTACCESS"
  package static let secretKey = "tidemark-test-secret"

  private let temporary: TemporaryDirectory
  private let process: ServerProcess
  /// One directory for each bucket.
  package let directory: String
  /// "http://127.0.0.1:PORT", or "https://…" with a certificate.
  package let endpoint: String

  /// Starts the server with empty `buckets`.
  package init(buckets: [String], certificate: TestCertificate? = nil) throws(TidemarkError) {
    let temporary = try TemporaryDirectory()
    let directory = "\(temporary.path)/buckets"
    for bucket in buckets { try DurableFile.createDirectories("\(directory)/\(bucket)") }
    let tls = certificate.map { ["--cert", $0.certificatePath, "--key", $0.keyPath] } ?? []
    process = try ServerProcess(
      TestTools.program("rclone"), logDirectory: temporary.path,
      environment: ["HOME": temporary.path, "PATH": "/usr/bin:/bin", "RCLONE_CONFIG": "/dev/null"]
    ) {
      ["serve", "s3", "--addr", "127.0.0.1:\($0)", "--auth-key", "\(Self.accessKey),\(Self.secretKey)"] + tls
        + [directory]
    }
    endpoint = "\(certificate == nil ? "http" : "https")://127.0.0.1:\(process.port)"
    self.temporary = temporary
    self.directory = directory
  }

  package var port: UInt16 { process.port }
  package var log: String { process.log }
  /// Kills the server: its port then refuses connections. What it stored stays until this object goes away.
  package func stop() throws(TidemarkError) { try process.stop() }
  package func freeze() { process.freeze() }
  package func thaw() { process.thaw() }
}
