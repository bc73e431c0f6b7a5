// A store in memory that plays a faulty server: it fails, stalls, forgets, loses answers and damages what it holds, as a
// test tells it to. Otherwise it keeps the contract of ObjectStore.
import Diagnostics
import Glibc
import ObjectStorage
import Synchronization
import SystemSupport

final class ScriptedStore: ObjectStore {
  enum Behaviour: Sendable, Equatable {
    case healthy
    /// Every request is refused at once.
    case fails(ErrorCode)
    /// Every request hangs until its deadline.
    case stalls
  }

  struct State {
    var objects: [String: [UInt8]] = [:]
    var behaviour = Behaviour.healthy
    /// This many requests fail before `behaviour` applies.
    var failureCount = 0
    /// Creations that happen, but whose answer is lost.
    var lostAnswerCount = 0
    /// Reads that return a damaged body although the object is whole.
    var damagedReadCount = 0
    var refusesCreation = false
    var refusesDeletion = false
    var requests: [String] = []
  }

  let location: String
  private let state = Mutex(State())
  let clockOffset: Duration? = nil
  var statistics: StoreStatistics { StoreStatistics() }

  init(_ name: String) { location = "scripted://\(name)" }

  /// Changes what the store does or holds.
  func script(_ change: (inout State) -> Void) { state.withLock { change(&$0) } }
  var requests: [String] { state.withLock { $0.requests } }
  var keys: [String] { state.withLock { $0.objects.keys.sorted() } }
  func object(_ key: String) -> [UInt8]? { state.withLock { $0.objects[key] } }

  /// Flips one bit of what is held.
  func damage(_ key: String) { state.withLock { $0.objects[key]?[0] ^= 1 } }

  private func begin(_ request: String, _ deadline: Deadline) throws(TidemarkError) {
    let behaviour = state.withLock { state -> Behaviour in
      state.requests.append(request)
      if state.failureCount > 0 {
        state.failureCount -= 1
        return .fails(.regionUnreachable)
      }
      return state.behaviour
    }
    switch behaviour {
    case .healthy: return
    case .fails(let code): throw TidemarkError(code, "the script says so")
    case .stalls:
      while !deadline.hasPassed { usleep(2000) }
      throw TidemarkError(.regionUnreachable, "no answer in time")
    }
  }

  func create(_ key: ObjectKey, _ body: ObjectBody, deadline: Deadline) throws(TidemarkError) -> CreationOutcome {
    try begin("create \(key)", deadline)
    let (outcome, isLost, isRefused) = state.withLock { state -> (CreationOutcome, Bool, Bool) in
      if state.refusesCreation { return (.exists, false, true) }
      if state.objects[key.text] != nil { return (.exists, false, false) }
      state.objects[key.text] = body.bytes
      if state.lostAnswerCount == 0 { return (.created, false, false) }
      state.lostAnswerCount -= 1
      return (.created, true, false)
    }
    if isRefused { throw TidemarkError(.accessDenied, "no objects are created here") }
    if isLost { throw TidemarkError(.regionUnreachable, "the connection was closed") }
    return outcome
  }

  func read(
    _ key: ObjectKey, range: ByteRange?, deadline: Deadline, buffer: ReceiveBuffer?
  ) throws(TidemarkError) -> [UInt8] {
    try begin("read \(key)", deadline)
    let found = state.withLock { state -> [UInt8]? in
      guard var bytes = state.objects[key.text] else { return nil }
      if state.damagedReadCount > 0 {
        state.damagedReadCount -= 1
        bytes[0] ^= 1
      }
      return bytes
    }
    guard let bytes = found else { throw TidemarkError(.objectNotFound, "there is no such object", object: key.text) }
    switch range {
    case nil: return bytes
    case .bytes(let offset, let count): return Array(bytes.dropFirst(Int(offset)).prefix(Int(count)))
    case .suffix(let count): return Array(bytes.suffix(Int(count)))
    }
  }

  func information(_ key: ObjectKey, deadline: Deadline) throws(TidemarkError) -> ObjectInformation? {
    try begin("information \(key)", deadline)
    return object(key.text).map { ObjectInformation(key: key, byteCount: Int64($0.count), modified: 0) }
  }

  func list(
    prefix: String, startingAfter: String?, deadline: Deadline, _ body: (ObjectInformation) throws -> Bool
  ) throws(TidemarkError) {
    try begin("list \(prefix)", deadline)
    let after = ObjectKeyText(startingAfter ?? "")
    let found = state.withLock { state in
      state.objects.filter { $0.key.hasPrefix(prefix) && after < ObjectKeyText($0.key) }.mapValues(\.count)
    }
    for (key, count) in found.sorted(by: { ObjectKeyText($0.key) < ObjectKeyText($1.key) }) {
      do {
        let information = ObjectInformation(key: try ObjectKey(key), byteCount: Int64(count), modified: 0)
        if try !body(information) { return }
      } catch { throw TidemarkError.wrapping(error) }
    }
  }

  func delete(_ keys: [ObjectKey], deadline: Deadline) throws(TidemarkError) -> [DeletionFailure] {
    try begin("delete \(keys.map(\.text).joined(separator: " "))", deadline)
    return state.withLock { state in
      if state.refusesDeletion { return keys.map { DeletionFailure(key: $0, reason: "AccessDenied") } }
      for key in keys { state.objects[key.text] = nil }
      return []
    }
  }

  func honoursConditionalCreation(probe: ObjectKey, deadline: Deadline) throws(TidemarkError) -> Bool { true }
}

/// Text in the order of its UTF-8 bytes.
private struct ObjectKeyText: Comparable {
  let text: String
  init(_ text: String) { self.text = text }
  static func < (left: Self, right: Self) -> Bool { left.text.utf8.lexicographicallyPrecedes(right.text.utf8) }
}
