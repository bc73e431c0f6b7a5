// The clear head of a sealed object: what it is, who wrote it, and the data key wrapped for each recipient.
// docs/repository-format.md has the format.
import Diagnostics

/// What an object is. The raw value is part of the format.
package enum ObjectKind: UInt8, Sendable, CaseIterable {
  case pack = 1
  case walSegment = 2
  case partialSegment = 3
  case timelineHistory = 4
  case backupHistory = 5
  case fileTable = 6
  case manifest = 7
  case report = 8
  case walTail = 9
}

/// What a header says in clear about the plaintext. Only WAL has a digest here: it must be compared by hosts that can't
/// open it.
package struct SealedAttributes: Sendable, Equatable {
  package var plaintextDigest: SHA256Digest?
  package var plaintextByteCount: UInt64?
  /// Unix microseconds of the latest and earliest commit or abort in a WAL segment.
  package var latestCommit: Int64?
  package var earliestCommit: Int64?
  /// Attributes of later versions, kept as they are.
  var unknown: [UInt8: [UInt8]] = [:]

  package init() {}

  func append(to bytes: inout [UInt8]) {
    var fields = unknown
    if let plaintextDigest { fields[1] = plaintextDigest.bytes }
    func field(_ value: some FixedWidthInteger) -> [UInt8] {
      var field: [UInt8] = []
      field.append(bigEndian: value)
      return field
    }
    if let plaintextByteCount { fields[2] = field(plaintextByteCount) }
    if let latestCommit { fields[3] = field(latestCommit) }
    if let earliestCommit { fields[4] = field(earliestCommit) }
    for (tag, value) in fields.sorted(by: { $0.key < $1.key }) {
      bytes.append(tag)
      bytes.append(bigEndian: UInt16(value.count))
      bytes += value
    }
  }

  init(reading reader: inout ByteReader) throws(TidemarkError) {
    var lastTag = -1
    while reader.remaining > 0 {
      let tag = try reader.integer(UInt8.self)
      guard Int(tag) > lastTag else { throw TidemarkError(.objectDamaged, "the header's attributes are out of order") }
      lastTag = Int(tag)
      let value = Array(try reader.take(Int(try reader.integer(UInt16.self))))
      var number = ByteReader(value[...], what: "an attribute")
      switch tag {
      case 1: plaintextDigest = try SHA256Digest(value)
      case 2: plaintextByteCount = try number.integer(UInt64.self)
      case 3: latestCommit = try number.integer(Int64.self)
      case 4: earliestCommit = try number.integer(Int64.self)
      default: unknown[tag] = value
      }
      if (2...4).contains(tag), value.count != 8 {
        throw TidemarkError(.objectDamaged, "an attribute has a wrong length")
      }
    }
  }
}

/// The data key, wrapped for one recipient by HPKE (RFC 9180).
struct WrappedKey: Sendable, Equatable {
  static let byteCount = 8 + 32 + 48
  var recipient: KeyID
  var encapsulated: [UInt8]
  var ciphertext: [UInt8]
}

package struct SealedHeader: Sendable {
  static let magic = Array("TIDEMARK".utf8)
  static let version: UInt8 = 1
  static let fixedByteCount = 20
  private static let signedByteCountMax = 8 << 10
  private static let recipientCountMax = 64
  /// What suffices to read any header.
  package static let prefixByteCountMax =
    fixedByteCount + signedByteCountMax + 1 + recipientCountMax * WrappedKey.byteCount

  package let kind: ObjectKind
  package let name: String
  /// Unix microseconds, by the writer's clock.
  package let created: Int64
  package let writer: KeyID
  package let attributes: SealedAttributes
  let wrappedKeys: [WrappedKey]
  /// The fixed part with the length of the wrapped keys zeroed, and the signed part: what is signed and what frames are
  /// bound to.
  let signedBytes: [UInt8]
  /// Where the frames begin.
  package let byteCount: Int

  package var recipients: [KeyID] { wrappedKeys.map(\.recipient) }

  /// The signed bytes of a new object.
  static func signedBytes(
    kind: ObjectKind, name: String, created: Int64, writer: KeyID, attributes: SealedAttributes
  ) -> [UInt8] {
    var signed: [UInt8] = []
    precondition(name.utf8.count <= 1024)
    signed.append(bigEndian: UInt16(name.utf8.count))
    signed += name.utf8
    signed.append(bigEndian: created)
    signed += writer.bytes
    attributes.append(to: &signed)
    precondition(signed.count <= signedByteCountMax)
    var bytes = magic + [version, kind.rawValue, 0, 0]
    bytes.append(bigEndian: UInt32(signed.count))
    bytes.append(bigEndian: UInt32(0))
    return bytes + signed
  }

  /// The whole header of a new object.
  static func encode(signedBytes: [UInt8], wrappedKeys: [WrappedKey]) -> [UInt8] {
    precondition((1...recipientCountMax).contains(wrappedKeys.count))
    var bytes = signedBytes
    var length: [UInt8] = []
    length.append(bigEndian: UInt32(1 + wrappedKeys.count * WrappedKey.byteCount))
    bytes.replaceSubrange(16..<20, with: length)
    bytes.append(UInt8(wrappedKeys.count))
    for key in wrappedKeys { bytes += key.recipient.bytes + key.encapsulated + key.ciphertext }
    return bytes
  }

  /// Reads the header at the beginning of `prefix`, which may hold more.
  /// - Throws: `object-damaged`, `format-version-unknown`.
  package static func parse(_ prefix: [UInt8]) throws(TidemarkError) -> SealedHeader {
    var reader = ByteReader(prefix[...], what: "the header")
    guard Array(try reader.take(8)) == magic else {
      throw TidemarkError(.objectDamaged, "this isn't a sealed object: it doesn't begin with 'TIDEMARK'")
    }
    let version = try reader.integer(UInt8.self)
    guard version == Self.version else {
      throw TidemarkError(
        .formatVersionUnknown, "the object has a format that this version doesn't know", cause: "version \(version)",
        next: "use a newer version of Tidemark")
    }
    guard let kind = ObjectKind(rawValue: try reader.integer(UInt8.self)), try reader.integer(UInt16.self) == 0 else {
      throw TidemarkError(.objectDamaged, "the header names a kind of object that doesn't exist")
    }
    let signedCount = Int(try reader.integer(UInt32.self))
    let wrappedCount = Int(try reader.integer(UInt32.self))
    guard signedCount <= signedByteCountMax, wrappedCount <= 1 + recipientCountMax * WrappedKey.byteCount else {
      throw TidemarkError(.objectDamaged, "the header's lengths are impossible")
    }
    let signed = try reader.take(signedCount)
    let wrapped = try reader.take(wrappedCount)
    var fields = ByteReader(signed, what: "the header")
    let nameBytes = try fields.take(Int(try fields.integer(UInt16.self)))
    guard let name = String(validating: nameBytes, as: UTF8.self) else {
      throw TidemarkError(.objectDamaged, "the header's name isn't text")
    }
    let created = try fields.integer(Int64.self)
    let writer = KeyID(bytes: Array(try fields.take(8)))
    let attributes = try SealedAttributes(reading: &fields)
    var signedBytes = Array(prefix[..<(fixedByteCount + signedCount)])
    for index in 16..<20 { signedBytes[index] = 0 }
    return SealedHeader(
      kind: kind, name: name, created: created, writer: writer, attributes: attributes,
      wrappedKeys: try parseKeys(wrapped), signedBytes: signedBytes, byteCount: reader.position)
  }

  private static func parseKeys(_ bytes: ArraySlice<UInt8>) throws(TidemarkError) -> [WrappedKey] {
    var reader = ByteReader(bytes, what: "the list of wrapped keys")
    let count = Int(try reader.integer(UInt8.self))
    guard count >= 1, reader.remaining == count * WrappedKey.byteCount else {
      throw TidemarkError(.objectDamaged, "the list of wrapped keys has a wrong length")
    }
    var keys: [WrappedKey] = []
    for _ in 0..<count {
      keys.append(
        WrappedKey(
          recipient: KeyID(bytes: Array(try reader.take(8))), encapsulated: Array(try reader.take(32)),
          ciphertext: Array(try reader.take(48))))
    }
    return keys
  }
}
