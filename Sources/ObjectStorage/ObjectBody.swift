// The bytes of one object on their way to several stores. What a store must compute over them (digests for signatures
// and checks) is computed once, whoever needs it first, and shared: it costs as much as sending does.
import Diagnostics
import Synchronization
import SystemSupport

/// Immutable bytes, in pieces that follow one another, with the digests that were asked for so far.
package final class ObjectBody: Sendable {
  package enum Algorithm: Sendable { case sha256, md5 }

  package let pieces: [[UInt8]]
  package let byteCount: Int
  private let sha256 = SharedDigest()
  private let md5: SharedDigest

  /// - Parameter md5: of all `pieces` together, where it is known.
  package init(_ pieces: [[UInt8]], md5: [UInt8]? = nil) {
    self.pieces = pieces
    byteCount = pieces.byteCount
    self.md5 = SharedDigest(md5)
  }

  package convenience init(_ bytes: [UInt8]) { self.init([bytes]) }

  /// A copy in one piece.
  package var bytes: [UInt8] { pieces.inOnePiece() }

  /// Whether these are `bytes`.
  package func equals(_ bytes: [UInt8]) -> Bool {
    guard bytes.count == byteCount else { return false }
    var offset = 0
    return pieces.allSatisfy { piece in
      defer { offset += piece.count }
      return piece.elementsEqual(bytes[offset..<offset + piece.count])
    }
  }

  /// The digest, made by `make` unless it is known. Who comes meanwhile waits for it.
  package func digest(
    _ algorithm: Algorithm, _ make: ([[UInt8]]) throws(TidemarkError) -> [UInt8]
  ) throws(TidemarkError) -> [UInt8] {
    let shared = algorithm == .md5 ? md5 : sha256
    return try shared.value { () throws(TidemarkError) in try make(pieces) }
  }
}

/// A digest that is made by whoever needs it first. The others sleep meanwhile: a mutex that is held for the length of a
/// digest has its waiters spin in the kernel, on the cores that others need.
private final class SharedDigest: Sendable {
  private enum State {
    case unknown, inWork
    case known([UInt8])
  }
  private let state: Mutex<State>
  private let changed = Condition()

  init(_ value: [UInt8]? = nil) { state = Mutex(value.map { .known($0) } ?? .unknown) }

  func value(_ make: () throws(TidemarkError) -> [UInt8]) throws(TidemarkError) -> [UInt8] {
    while true {
      let ticket = changed.ticket()
      let (known, isOurs) = state.withLock { state -> ([UInt8]?, Bool) in
        switch state {
        case .known(let value): return (value, false)
        case .inWork: return (nil, false)
        case .unknown:
          state = .inWork
          return (nil, true)
        }
      }
      if let known { return known }
      if isOurs {
        // Whoever comes next tries again after an error.
        defer { changed.signal() }
        do throws(TidemarkError) {
          let made = try make()
          state.withLock { $0 = .known(made) }
          return made
        } catch {
          state.withLock { $0 = .unknown }
          throw error
        }
      }
      changed.wait(ticket)
    }
  }
}

extension ObjectStore {
  /// Creates an object that goes to one store alone.
  package func create(
    _ key: ObjectKey, _ bytes: [UInt8], deadline: Deadline
  ) throws(TidemarkError) -> CreationOutcome {
    try create(key, ObjectBody(bytes), deadline: deadline)
  }
}
