// Creation that never overwrites: by `If-None-Match: *` where the store honours it, by a HEAD before the PUT where it
// doesn't (two writers at the same moment could then both believe to have created; the later bytes stay).
// Source: Amazon S3 User Guide, "Add preconditions to S3 operations with conditional requests"; API Reference, PutObject.
import Diagnostics
import ObjectStorage
import SystemSupport

extension S3Store {
  package var sendsMD5: Bool { true }

  package func create(
    _ key: ObjectKey, _ body: ObjectBody, deadline: Deadline
  ) throws(TidemarkError) -> CreationOutcome {
    let operation = try creation(of: key, body)
    while true {
      let support = conditionalCreation
      if support != .honoured, try head(key, deadline: deadline) != nil { return .exists }
      switch try put(operation, support, deadline: deadline) {
      case .created: return .created
      case .exists: return .exists
      // Known from now on: once more, without the condition.
      case .conditionUnknown: continue
      }
    }
  }

  package func honoursConditionalCreation(probe: ObjectKey, deadline: Deadline) throws(TidemarkError) -> Bool {
    let operation = try creation(
      of: probe, ObjectBody(Array("Tidemark probes conditional creation.\n".utf8)))
    for _ in 0..<2 {
      switch try put(operation, .honoured, deadline: deadline) {
      case .created: continue
      case .exists:
        remember(.honoured)
        return true
      case .conditionUnknown: return false
      }
    }
    remember(.ignored)
    return false
  }

  func creation(of key: ObjectKey, _ body: ObjectBody) throws(TidemarkError) -> S3Operation {
    guard body.byteCount <= objectByteCountMax else {
      throw TidemarkError(
        .internalFault, "the object is larger than any may be", object: key.text,
        cause: "\(body.byteCount) bytes, limit \(objectByteCountMax)")
    }
    var operation = S3Operation("create the object", "PUT", key)
    operation.body = body.pieces
    operation.headers = [
      ("Content-MD5", try body.digest(.md5, Digest.md5).base64), ("Content-Type", "application/octet-stream"),
    ]
    // Under TLS nobody on the way can change the body, and Content-MD5 finds what goes wrong behind its end: what AWS's own
    // SDKs sign then, too. It is a third of what an upload's digests cost.
    operation.bodyDigest =
      address.isEncrypted ? S3Operation.unsignedBody : try body.digest(.sha256, Digest.sha256).hexadecimal
    return operation
  }

  private enum PutOutcome {
    case created
    case exists
    /// The store doesn't implement the condition; that is remembered.
    case conditionUnknown
  }

  private func put(
    _ operation: S3Operation, _ support: S3Configuration.ConditionalCreation, deadline: Deadline
  ) throws(TidemarkError) -> PutOutcome {
    var operation = operation
    if support != .ignored { operation.headers.append(("If-None-Match", "*")) }
    let key = operation.key
    // The answer that was lost may have been a success.
    let outcome = try perform(operation, deadline: deadline) { (_, _) throws(TidemarkError) -> Bool in
      guard support != .honoured, let key else { return false }
      return try self.head(key, deadline: deadline) != nil
    }
    switch outcome {
    case .settled: return .exists
    case .done(let exchange):
      // A web server that isn't S3 may answer anything with 200.
      guard exchange.headers["etag"] != nil else { throw invalid("HTTP \(exchange.status) without an ETag", operation) }
      return .created
    case .refused(let refusal):
      if refusal.status == 412 {
        if support == .unknown { remember(.honoured) }
        return .exists
      }
      if support != .ignored, refusal.isNotImplemented {
        remember(.ignored)
        return .conditionUnknown
      }
      throw refused(refusal, operation)
    }
  }

  private func remember(_ support: S3Configuration.ConditionalCreation) {
    state.withLock { $0.conditionalCreation = support }
  }
}
