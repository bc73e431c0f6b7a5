// The bytes of one object on their way to several stores. What a store must compute over them (digests for signatures
// and checks) is computed once, whoever needs it first, and shared: it costs as much as sending does.
import Diagnostics
import Synchronization
import SystemSupport

/// Immutable bytes with the digests that were asked for so far.
package final class ObjectBody: Sendable {
  package enum Algorithm: Hashable, Sendable { case sha256, md5 }

  package let bytes: [UInt8]
  private let sha256 = Mutex<[UInt8]?>(nil)
  private let md5 = Mutex<[UInt8]?>(nil)

  package init(_ bytes: [UInt8]) { self.bytes = bytes }

  /// The digest, made by `make` unless it is known. Who comes meanwhile waits for it.
  package func digest(
    _ algorithm: Algorithm, _ make: ([UInt8]) throws(TidemarkError) -> [UInt8]
  ) throws(TidemarkError) -> [UInt8] {
    func known(_ value: inout [UInt8]?) throws(TidemarkError) -> [UInt8] {
      if let value { return value }
      let made = try make(bytes)
      value = made
      return made
    }
    switch algorithm {
    case .sha256: return try sha256.withLock { (value) throws(TidemarkError) in try known(&value) }
    case .md5: return try md5.withLock { (value) throws(TidemarkError) in try known(&value) }
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
