// What the credentials may do that a writer's shouldn't: replace an object, and delete one. Tried out on a probe of its
// own, with requests that can harm nothing else. A refusal is the good answer here; only silence is an error.
// Source: Amazon S3 User Guide, "Enforce conditional writes on Amazon S3 buckets"; API Reference, DeleteObject.
import Diagnostics
import ObjectStorage
import SystemSupport

extension S3Store {
  package func permissions(probe: ObjectKey, deadline: Deadline) throws(TidemarkError) -> StorePermissions {
    let text = ObjectBody(Array("Tidemark probes what these credentials may do.\n".utf8))
    _ = try create(probe, text, deadline: deadline)
    // The same bytes without a condition: where they are accepted, others would have been too.
    var replacement = try creation(of: probe, text)
    replacement.doing = "replace the probe"
    var replaced = StorePermissions.Replacement.refused
    if let exchange = try allowed(replacement, deadline: deadline) {
      // A versioned bucket names the new version; before versioning was switched on, all are the version "null".
      let version = exchange.headers["x-amz-version-id"] ?? "null"
      replaced = version == "null" ? .destroys : .hides
    }
    // A single deletion, not one in bulk: some stores answer a bulk deletion that isn't allowed with 200.
    let mayDelete = try allowed(S3Operation("delete the probe", "DELETE", probe), deadline: deadline) != nil
    return StorePermissions(replacement: replaced, mayDelete: mayDelete)
  }

  /// The answer; `nil` when these credentials may not do this.
  private func allowed(_ operation: S3Operation, deadline: Deadline) throws(TidemarkError) -> HTTPExchange? {
    do throws(TidemarkError) {
      switch try perform(operation, deadline: deadline) {
      case .done(let exchange): return exchange
      case .settled: return nil
      case .refused(let refusal): throw refused(refusal, operation)
      }
    } catch {
      // The probe was created with the same credentials just now, so this refusal is about the operation.
      if error.code == .accessDenied { return nil }
      throw error
    }
  }
}
