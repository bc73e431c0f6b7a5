// Ceph's S3 gateway: it enforces bucket policies, versioning and Object Lock, as the other servers of the tests don't.
// It takes about fifteen seconds to start, so suites share one.
import Diagnostics
import Glibc
import SystemSupport

package final class CephGateway: Sendable {
  private let temporary: TemporaryDirectory
  private let process: ServerProcess
  /// "http://127.0.0.1:PORT"
  package let endpoint: String
  /// Who makes the buckets.
  package static let owner = "owner"

  /// With `users` beside the owner. A user's access key is its name.
  package init(users: [String]) throws(TidemarkError) {
    let temporary = try TemporaryDirectory()
    let directory = temporary.path
    let process = try ServerProcess(
      "\(TestTools.packageRoot)/scripts/ceph-gateway", logDirectory: directory, limit: .seconds(120)
    ) { ["\(directory)/ceph", "\($0)", Self.owner] + users }
    // The port accepts before the users are there.
    let deadline = Deadline.after(.seconds(120))
    while !process.log.contains("ready") {
      if deadline.hasPassed {
        throw TidemarkError(.localIO, "Ceph's gateway doesn't start", object: directory, cause: process.log)
      }
      usleep(50_000)
    }
    endpoint = "http://127.0.0.1:\(process.port)"
    self.process = process
    self.temporary = temporary
  }

  package static func secret(of user: String) -> String { "\(user)-secret" }
  package static func arn(of user: String) -> String { "arn:aws:iam:::user/\(user)" }

  /// Creates `bucket` and applies policies/s3 to it, with the users writer, reader and pruner.
  package func createBucket(
    _ bucket: String, prefix: String, lockDays: Int = 0, isConditional: Bool = false
  ) throws(TidemarkError) {
    var arguments = ["\(TestTools.packageRoot)/policies/s3/apply", "--create", "--bucket", bucket, "--prefix", prefix]
    for role in ["writer", "reader", "pruner"] { arguments += ["--\(role)", Self.arn(of: role)] }
    arguments += ["--endpoint", endpoint, "--object-lock-days", String(lockDays)]
    if isConditional { arguments.append("--conditional") }
    try python(arguments)
  }

  /// Runs Python with boto3 and the credentials of `user`, or with those that `environment` names.
  @discardableResult
  package func python(
    _ arguments: [String], as user: String = owner, environment: [String: String]? = nil
  ) throws(TidemarkError) -> String {
    let credentials = ["AWS_ACCESS_KEY_ID": user, "AWS_SECRET_ACCESS_KEY": Self.secret(of: user)]
    let outcome = try ChildProcess.run(
      try TestTools.program("python"), arguments,
      environment: ["PATH": "/usr/bin:/bin", "HOME": temporary.path].merging(environment ?? credentials) { $1 },
      deadline: .after(.seconds(60)))
    guard outcome.succeeded else {
      throw TidemarkError(.localIO, "the S3 administration failed", object: endpoint, cause: outcome.errorText)
    }
    return outcome.outputText
  }
}
