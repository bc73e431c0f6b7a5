// Listing, one page in memory at a time. The order, the prefix and the progress of what comes are checked: a listing
// that is believed decides what is restored and what is expired.
// Source: Amazon S3 API Reference, ListObjectsV2.
import Diagnostics
import ObjectStorage
import SystemSupport

extension S3Store {
  package func list(
    prefix: String, startingAfter: String?, deadline: Deadline, _ body: (ObjectInformation) throws -> Bool
  ) throws(TidemarkError) {
    var previous = startingAfter ?? ""
    var token: String?
    while true {
      var operation = S3Operation("list the objects", "GET")
      operation.query = [("list-type", "2"), ("max-keys", "\(configuration.listPageSize)"), ("prefix", prefix)]
      if let token {
        operation.query.append(("continuation-token", token))
      } else if let startingAfter {
        operation.query.append(("start-after", startingAfter))
      }
      let page = try self.page(operation, deadline: deadline)
      for entry in page.entries {
        guard entry.key.hasPrefix(prefix) else {
          throw invalid("the listing has the key \(entry.key), which lacks the prefix \(prefix)", operation)
        }
        if let startingAfter, !startingAfter.utf8.lexicographicallyPrecedes(entry.key.utf8) {
          // A server that ignores start-after.
          continue
        }
        guard previous.isEmpty || previous.utf8.lexicographicallyPrecedes(entry.key.utf8) else {
          throw invalid("the listing isn't in order: \(entry.key) after \(previous)", operation)
        }
        previous = entry.key
        // What isn't a key of ours was put there by others.
        guard ObjectKey.isValid(entry.key) else { continue }
        let information = ObjectInformation(
          key: ObjectKey(trusted: entry.key), byteCount: entry.byteCount, modified: entry.modified)
        do {
          if try !body(information) { return }
        } catch {
          throw TidemarkError.wrapping(error)
        }
      }
      guard let next = page.next else { return }
      guard next != token else { throw invalid("the listing doesn't advance", operation) }
      token = next
    }
  }

  private struct Page {
    var entries: [(key: String, byteCount: Int64, modified: Int64)]
    /// The token of the next page.
    var next: String?
  }

  private func page(_ operation: S3Operation, deadline: Deadline) throws(TidemarkError) -> Page {
    let exchange: HTTPExchange
    switch try perform(operation, deadline: deadline) {
    case .done(let done): exchange = done
    case .settled: return Page(entries: [])
    case .refused(let refusal): throw refused(refusal, operation)
    }
    guard let root = S3Document.root(of: exchange.body), root.name == "ListBucketResult" else {
      throw invalid("the answer isn't a listing", operation)
    }
    var page = Page(entries: [])
    for object in root.children where object.name == "Contents" {
      guard let key = object["Key"]?.text, let byteCount = object.value("Size").flatMap({ Int64($0) }), byteCount >= 0
      else { throw invalid("the listing has an entry without key or size", operation) }
      page.entries.append((key, byteCount, object.value("LastModified").flatMap(Timestamp.iso8601) ?? 0))
    }
    switch root.value("IsTruncated") {
    case "false": break
    case "true":
      guard let next = root.value("NextContinuationToken"), !next.isEmpty else {
        throw invalid("the listing goes on, but doesn't say where", operation)
      }
      page.next = next
    default: throw invalid("the listing doesn't say whether it is complete", operation)
    }
    return page
  }
}
