// moto's S3: it honours If-None-Match and ranges, and checks no signature unless asked. It keeps everything in memory.
import Diagnostics
import Glibc
import SystemSupport

package final class MotoServer: Sendable {
  private let temporary: TemporaryDirectory
  private let process: ServerProcess
  /// "http://127.0.0.1:PORT". Its STS is there as well.
  package let endpoint: String

  package init() throws(TidemarkError) {
    let temporary = try TemporaryDirectory()
    process = try ServerProcess(
      TestTools.program("moto_server"), logDirectory: temporary.path,
      environment: ["HOME": temporary.path, "PATH": "/usr/bin:/bin"]
    ) { ["-H", "127.0.0.1", "-p", "\($0)"] }
    endpoint = "http://127.0.0.1:\(process.port)"
    self.temporary = temporary
  }

  package var port: UInt16 { process.port }
  package var log: String { process.log }
  package func stop() throws(TidemarkError) { try process.stop() }

  /// Creates `bucket`, by curl: nothing of ours makes buckets.
  package func createBucket(_ bucket: String) throws(TidemarkError) {
    let outcome = try ChildProcess.run(
      "curl", ["--silent", "--show-error", "--fail", "--request", "PUT", "\(endpoint)/\(bucket)"],
      deadline: .after(.seconds(30)))
    guard outcome.succeeded else {
      throw TidemarkError(.localIO, "cannot create the bucket", object: bucket, cause: outcome.errorText)
    }
  }
}
