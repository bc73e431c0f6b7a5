// Reading, whole or in part, and looking. A truncated answer is resumed where it ended, with If-Match, so that the parts
// are of one object. An absence is believed only with S3's own code, which a HEAD can't carry.
// Source: Amazon S3 API Reference, GetObject and HeadObject; RFC 9110 §14 (ranges).
import Diagnostics
import ObjectStorage
import SystemSupport

extension S3Store {
  /// How often an object may appear between a HEAD and the GET that asks again.
  private static let lookCountMax = 3

  package func read(
    _ key: ObjectKey, range: ByteRange?, deadline: Deadline, buffer: ReceiveBuffer?
  ) throws(TidemarkError) -> [UInt8] {
    var operation = S3Operation("read the object", "GET", key)
    operation.answersWithDocument = false
    operation.bodyByteCountMax = objectByteCountMax
    operation.buffer = buffer
    switch range {
    case nil: break
    case .bytes(let offset, let count):
      guard offset >= 0, count >= 0 else { throw TidemarkError(.internalFault, "not a range", object: key.text) }
      operation.range = .bytes(start: offset, count: count)
    case .suffix(let count):
      guard count >= 0 else { throw TidemarkError(.internalFault, "not a range", object: key.text) }
      operation.range = .suffix(count: count)
    }
    if operation.range == .suffix(count: 0) || operation.range.isEmpty {
      // HTTP has no empty range. The object must exist nevertheless.
      guard try information(key, deadline: deadline) != nil else { throw notFound(operation, nil) }
      return []
    }

    let wanted = operation.range
    var arrived = ArrivedBytes()
    let outcome = try perform(operation, deadline: deadline) { (operation, exchange) throws(TidemarkError) -> Bool in
      guard (200..<300).contains(exchange.status) else { return false }
      return arrived.resume(&operation, exchange, wanted: wanted)
    }
    switch outcome {
    case .settled: return arrived.bytes
    case .done(let exchange): return try checked(exchange, after: arrived, wanted: wanted, operation)
    case .refused(let refusal):
      if refusal.code == "NoSuchKey" { throw notFound(operation, refusal) }
      // The range begins at or after the end: what there is of it is nothing.
      if refusal.status == 416, arrived.bytes.isEmpty {
        guard case .suffix(let count) = wanted else { return [] }
        // rclone refuses a suffix that is longer than the object; the whole object is meant (RFC 9110 §14.1.2).
        return Array(try read(key, range: nil, deadline: deadline).suffix(Int(clamping: count)))
      }
      if refusal.status == 412 { throw invalid("the object changed while it was read", operation) }
      throw refused(refusal, operation)
    }
  }

  package func information(_ key: ObjectKey, deadline: Deadline) throws(TidemarkError) -> ObjectInformation? {
    var operation = S3Operation("look for the object", "GET", key)
    operation.answersWithDocument = false
    operation.range = .bytes(start: 0, count: 1)
    for _ in 0..<Self.lookCountMax {
      if let information = try head(key, deadline: deadline) { return information }
      // HEAD's 404 says neither whether the bucket is there nor whether S3 said it: ask with a body.
      switch try perform(operation, deadline: deadline) {
      // It was created in between.
      case .done, .settled: continue
      case .refused(let refusal):
        if refusal.code == "NoSuchKey" { return nil }
        if refusal.status == 416 { continue }
        throw refused(refusal, operation)
      }
    }
    throw invalid("HEAD says that the object isn't there, GET that it is", operation)
  }

  package func seems(toHold key: ObjectKey, deadline: Deadline) throws(TidemarkError) -> Bool {
    try head(key, deadline: deadline) != nil
  }

  /// HEAD alone: `nil` for any 404. Good enough before a PUT, which meets a missing bucket itself.
  func head(_ key: ObjectKey, deadline: Deadline) throws(TidemarkError) -> ObjectInformation? {
    let operation = S3Operation("look for the object", "HEAD", key)
    switch try perform(operation, deadline: deadline) {
    case .settled: return nil
    case .refused(let refusal):
      if refusal.status == 404 { return nil }
      throw try explained(refusal, operation, deadline: deadline)
    case .done(let exchange):
      guard let byteCount = exchange.headers["content-length"].flatMap({ Int64($0) }), byteCount >= 0 else {
        throw invalid("an answer without Content-Length", operation)
      }
      let modified = exchange.headers["last-modified"].flatMap(Timestamp.http) ?? 0
      return ObjectInformation(key: key, byteCount: byteCount, modified: modified)
    }
  }

  /// Why a HEAD was refused: the same question with a body.
  private func explained(
    _ refusal: S3Refusal, _ operation: S3Operation, deadline: Deadline
  ) throws(TidemarkError) -> TidemarkError {
    var question = S3Operation(operation.doing, "GET", operation.key)
    question.answersWithDocument = false
    question.range = .bytes(start: 0, count: 1)
    switch try perform(question, deadline: deadline) {
    // It passed in the meantime, or GET is allowed and HEAD isn't.
    case .done, .settled: return refused(refusal, operation)
    case .refused(let reason): return refused(reason.code == "NoSuchKey" ? refusal : reason, operation)
    }
  }

  private func notFound(_ operation: S3Operation, _ refusal: S3Refusal?) -> TidemarkError {
    TidemarkError(
      .objectNotFound, "the object doesn't exist", object: describe(operation), cause: refusal?.text)
  }

  /// The whole of what was wanted, its length proven.
  private func checked(
    _ exchange: HTTPExchange, after arrived: ArrivedBytes, wanted: HTTPRange?, _ operation: S3Operation
  ) throws(TidemarkError) -> [UInt8] {
    guard exchange.isDelimited || exchange.totalByteCount != nil else {
      throw invalid("an answer whose end can't be known", operation)
    }
    if let next = arrived.next, exchange.bodyStart != next {
      throw invalid("the answer begins at byte \(exchange.bodyStart), not at \(next)", operation)
    }
    let bytes = arrived.bytes.isEmpty ? exchange.body : arrived.bytes + exchange.body
    let start = arrived.start ?? exchange.bodyStart
    guard bytes.count <= objectByteCountMax else { throw invalid("more bytes than any object has", operation) }
    let total = exchange.totalByteCount ?? arrived.total
    let expected: (start: Int64, count: Int64?)
    switch wanted {
    case nil: expected = (0, total)
    case .bytes(let offset, let count):
      // A server that ignores ranges, and a range that begins after the end: nothing.
      if let total, offset >= total, bytes.isEmpty { return [] }
      expected = (offset, total.map { min(count, $0 - offset) })
    case .suffix(let count): expected = (total.map { max(0, $0 - count) } ?? start, total.map { min(count, $0) })
    }
    guard start == expected.start || bytes.isEmpty, Int64(bytes.count) == expected.count ?? Int64(bytes.count) else {
      throw invalid(
        "bytes \(start) to \(start + Int64(bytes.count)) came, \(expected.count.map(String.init) ?? "?") bytes from "
          + "\(expected.start) were wanted", operation)
    }
    if case .bytes(_, let count) = wanted, Int64(bytes.count) > count {
      throw invalid("more bytes than were asked for", operation)
    }
    return bytes
  }
}

extension HTTPRange? {
  fileprivate var isEmpty: Bool { if case .bytes(_, 0) = self { true } else { false } }
}

/// What earlier, truncated answers brought.
private struct ArrivedBytes {
  private(set) var bytes: [UInt8] = []
  /// Where `bytes` begins within the object.
  private(set) var start: Int64?
  private(set) var total: Int64?
  /// Where the next answer must begin.
  var next: Int64? { start.map { $0 + Int64(bytes.count) } }

  /// Keeps what arrived and asks for the rest. Returns whether there is none.
  mutating func resume(_ operation: inout S3Operation, _ exchange: HTTPExchange, wanted: HTTPRange?) -> Bool {
    let etag = exchange.headers["etag"]
    let isNext = next == nil || next == exchange.bodyStart
    // rclone without hashes gives every object the same, empty tag.
    guard let total = exchange.totalByteCount, let etag, etag != "\"\"", !etag.hasPrefix("W/"), isNext,
      !exchange.body.isEmpty
    else { return false }
    if start == nil { start = exchange.bodyStart }
    self.total = total
    bytes += exchange.body
    var end = total
    if case .bytes(let offset, let count) = wanted, !offset.addingReportingOverflow(count).overflow {
      end = min(total, offset + count)
    }
    guard let next, next < end else { return true }
    operation.range = .bytes(start: next, count: end - next)
    operation.headers.removeAll { $0.name == "If-Match" }
    operation.headers.append(("If-Match", etag))
    return false
  }
}
