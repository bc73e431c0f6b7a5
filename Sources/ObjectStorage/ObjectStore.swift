// The contract of an object store. Every store keeps it, and one conformance suite proves it for each.
//
// - Objects are created once and never overwritten. `create` is safe to repeat: when an answer was lost and the
//   repetition finds the object there, the outcome is `.exists` and the caller compares.
// - A method returns when the store has acknowledged, never before. A body that was returned is complete: its length
//   was checked against what the store announced.
// - Retries with back-off happen inside, until the deadline; what is permanent (denied, missing) is thrown at once.
// - Absence is an answer: `objectNotFound` is thrown (or `nil` returned) only when the store said so.
import Diagnostics
import SystemSupport

/// A store of immutable objects: a bucket, or a directory.
package protocol ObjectStore: Sendable {
  /// Where this is, for messages: "s3://bucket at http://host:port". No secrets.
  var location: String { get }

  /// Whether `create` needs the body's MD5.
  var sendsMD5: Bool { get }

  /// Creates `key` with `body`, durably, unless it exists.
  /// - Returns: `.created`, or `.exists` with the store unchanged.
  /// - Throws: `region-unreachable`, `region-throttled`, `access-denied`, `credentials-missing`, `bucket-missing`,
  ///   `store-answer-invalid`, `store-refused`, `clock-skewed`.
  func create(_ key: ObjectKey, _ body: ObjectBody, deadline: Deadline) throws(TidemarkError) -> CreationOutcome

  /// The object's bytes, all or those of `range`. A range that reaches past the end is cut at the end. A store may use the
  /// memory of `buffer` for them.
  /// - Throws: `object-not-found` when the store says that there is none, otherwise as `create`.
  func read(
    _ key: ObjectKey, range: ByteRange?, deadline: Deadline, buffer: ReceiveBuffer?
  ) throws(TidemarkError) -> [UInt8]

  /// Whether `key` is there, at one request's cost. `true` is certain; `false` may also be the answer of a store that has
  /// no such bucket, and proves nothing.
  /// - Throws: as `create`.
  func seems(toHold key: ObjectKey, deadline: Deadline) throws(TidemarkError) -> Bool

  /// What the store knows about `key`; `nil` when it says that there is none.
  func information(_ key: ObjectKey, deadline: Deadline) throws(TidemarkError) -> ObjectInformation?

  /// Calls `body` for each object whose key begins with `prefix`, in ascending order of the keys' UTF-8 bytes,
  /// holding one page at a time. `startingAfter` skips keys up to and including that one. Ends early when `body`
  /// returns `false`. Objects created while it runs may or may not be seen.
  func list(
    prefix: String, startingAfter: String?, deadline: Deadline, _ body: (ObjectInformation) throws -> Bool
  ) throws(TidemarkError)

  /// Deletes `keys`. A key that doesn't exist counts as deleted.
  /// - Returns: the keys that are still there, each with the store's reason.
  func delete(_ keys: [ObjectKey], deadline: Deadline) throws(TidemarkError) -> [DeletionFailure]

  /// Whether the store itself refuses to create what exists. Found out by trial, with a small object at `probe`, which
  /// is left there (the credentials may not be allowed to delete).
  func honoursConditionalCreation(probe: ObjectKey, deadline: Deadline) throws(TidemarkError) -> Bool

  /// What the credentials may do beyond creating and reading. Found out by trial on an object of its own at `probe`,
  /// which is created first and may be replaced or gone afterwards: never name an object that anybody needs.
  func permissions(probe: ObjectKey, deadline: Deadline) throws(TidemarkError) -> StorePermissions

  /// The store's clock less ours when it last answered; `nil` before the first answer, and where it has no clock.
  var clockOffset: Duration? { get }

  /// What has been asked of this store so far.
  var statistics: StoreStatistics { get }
}

extension ObjectStore {
  package var sendsMD5: Bool { false }

  /// For stores where asking properly costs no more.
  package func seems(toHold key: ObjectKey, deadline: Deadline) throws(TidemarkError) -> Bool {
    try information(key, deadline: deadline) != nil
  }

  package func read(_ key: ObjectKey, range: ByteRange?, deadline: Deadline) throws(TidemarkError) -> [UInt8] {
    try read(key, range: range, deadline: deadline, buffer: nil)
  }

  /// For stores without permissions of their own, such as a directory: whoever may create there may also delete.
  package func permissions(probe: ObjectKey, deadline: Deadline) throws(TidemarkError) -> StorePermissions {
    StorePermissions(replacement: .destroys, mayDelete: true)
  }
}

/// An object is read and written in one piece. The largest is a segment of 1 GB that doesn't compress (`--wal-segsize` of
/// initdb), with its header and footer; everything else is well below 64 MiB.
package let objectByteCountMax = (1 << 30) + (1 << 20)

package enum CreationOutcome: Sendable, Equatable {
  case created
  case exists
}

/// A part of an object.
package enum ByteRange: Sendable, Equatable {
  /// `count` bytes from `offset`; fewer when the object ends before.
  case bytes(offset: Int64, count: Int64)
  /// The last `count` bytes; the whole object when it is shorter.
  case suffix(count: Int64)
}

package struct ObjectInformation: Sendable, Equatable {
  package var key: ObjectKey
  package var byteCount: Int64
  /// When the store says that it was written, in seconds since 1970.
  package var modified: Int64

  package init(key: ObjectKey, byteCount: Int64, modified: Int64) {
    self.key = key
    self.byteCount = byteCount
    self.modified = modified
  }
}

/// What a writer should not be able to do: whoever steals its credentials could do it too.
package struct StorePermissions: Sendable, Equatable {
  /// What becomes of an object at whose key a PUT without a condition is made.
  package enum Replacement: Sendable, Equatable {
    case refused
    /// It stays as an older version, which only its owner can bring forward again.
    case hides
    case destroys
  }
  package var replacement: Replacement
  /// A deletion succeeds.
  package var mayDelete: Bool

  package init(replacement: Replacement, mayDelete: Bool) {
    self.replacement = replacement
    self.mayDelete = mayDelete
  }
}

package struct DeletionFailure: Sendable, Equatable {
  package var key: ObjectKey
  package var reason: String

  package init(key: ObjectKey, reason: String) {
    self.key = key
    self.reason = reason
  }
}

/// Sums since the store was opened.
package struct StoreStatistics: Sendable, Equatable {
  package var requests = 0
  package var failures = 0
  package var bytesSent: Int64 = 0
  package var bytesReceived: Int64 = 0
  package init() {}
}
