// Deletion in bulk, for `expire` alone. Every key must be spoken of in the answer: one that isn't counts as still there.
// Source: Amazon S3 API Reference, DeleteObjects (at most 1000 keys, Content-MD5 required) and DeleteObject.
import Diagnostics
import ObjectStorage
import SystemSupport

extension S3Store {
  private static let bulkCountMax = 1000
  /// How often keys are tried again that the store couldn't delete for a passing reason.
  private static let bulkRepetitionCountMax = 5

  package func delete(_ keys: [ObjectKey], deadline: Deadline) throws(TidemarkError) -> [DeletionFailure] {
    var failures: [DeletionFailure] = []
    for start in stride(from: 0, to: keys.count, by: Self.bulkCountMax) {
      let group = Array(keys[start..<min(start + Self.bulkCountMax, keys.count)])
      if state.withLock({ $0.lacksBulkDeletion }) {
        failures += try deleteOneByOne(group, deadline: deadline)
      } else {
        failures += try deleteInBulk(group, deadline: deadline)
      }
    }
    return failures
  }

  private func deleteInBulk(_ keys: [ObjectKey], deadline: Deadline) throws(TidemarkError) -> [DeletionFailure] {
    var failures: [DeletionFailure] = []
    var rest = keys
    for repetition in 0... {
      // Keys have no character that XML would need escaped.
      let objects = rest.map { "<Object><Key>\($0)</Key></Object>" }.joined()
      let text =
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
        + "<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\(objects)</Delete>"
      var operation = S3Operation("delete objects", "POST")
      operation.query = [("delete", "")]
      operation.body = [Array(text.utf8)]
      operation.bodyDigest = try Digest.sha256(operation.body).hexadecimal
      operation.headers = [
        ("Content-MD5", try Digest.md5(operation.body).base64), ("Content-Type", "application/xml"),
      ]
      let exchange: HTTPExchange
      let outcome: Outcome
      do throws(TidemarkError) { outcome = try perform(operation, deadline: deadline) } catch {
        // Ceph's gateway asks for the permission on the bucket where a policy gives it on the objects.
        guard error.code == .accessDenied else { throw error }
        state.withLock { $0.lacksBulkDeletion = true }
        return failures + (try deleteOneByOne(rest, deadline: deadline))
      }
      switch outcome {
      case .done(let done): exchange = done
      case .settled: return failures
      case .refused(let refusal):
        guard refusal.isNotImplemented || refusal.status == 405 else { throw refused(refusal, operation) }
        state.withLock { $0.lacksBulkDeletion = true }
        return failures + (try deleteOneByOne(rest, deadline: deadline))
      }
      guard let root = S3Document.root(of: exchange.body), root.name == "DeleteResult" else {
        throw invalid("the answer isn't a deletion's result", operation)
      }
      var reasons: [String: (code: String, message: String)] = [:]
      for error in root.children where error.name == "Error" {
        reasons[error["Key"]?.text ?? ""] = (error.value("Code") ?? "", error.value("Message") ?? "")
      }
      let deleted = Set(root.children.filter { $0.name == "Deleted" }.compactMap { $0["Key"]?.text })
      var again: [ObjectKey] = []
      for key in rest {
        if let reason = reasons[key.text] {
          if reason.code == "NoSuchKey" { continue }
          let passes = ["InternalError", "SlowDown", "ServiceUnavailable"].contains(reason.code)
          if passes, repetition < Self.bulkRepetitionCountMax, !deadline.hasPassed {
            again.append(key)
          } else {
            failures.append(DeletionFailure(key: key, reason: "\(reason.code): \(reason.message)"))
          }
        } else if !deleted.contains(key.text) {
          failures.append(DeletionFailure(key: key, reason: "the store's answer doesn't mention it"))
        }
      }
      if again.isEmpty { break }
      rest = again
      try RetryPause.wait(RetryPause.length(repetition + 1, retryAfter: nil))
    }
    return failures
  }

  private func deleteOneByOne(_ keys: [ObjectKey], deadline: Deadline) throws(TidemarkError) -> [DeletionFailure] {
    var failures: [DeletionFailure] = []
    for key in keys {
      let operation = S3Operation("delete the object", "DELETE", key)
      if case .refused(let refusal) = try perform(operation, deadline: deadline), refusal.code != "NoSuchKey" {
        failures.append(DeletionFailure(key: key, reason: refusal.text))
      }
    }
    return failures
  }
}
