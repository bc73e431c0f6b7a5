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
  case hold = 10
  case release = 11
  case lease = 12
  case rewrap = 13

  /// The format version of an object of this kind. Kinds came with versions, so that a reader from before refuses what it
  /// doesn't know by name, and goes on reading everything else.
  var formatVersion: UInt8 { self == .rewrap ? 2 : 1 }
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
  /// At the end of the list: SHA-256 of the header's digest and the list. It is no protection against a forger, but the
  /// list isn't signed, and a host without an identity must still find a copy that rotted.
  static let listDigestByteCount = 32

  /// The bytes of a list of `count` wrapped keys.
  static func listByteCount(_ count: Int) -> Int { 1 + count * byteCount + listDigestByteCount }
  var recipient: KeyID
  var encapsulated: [UInt8]
  var ciphertext: [UInt8]
}

/// The head of an object, checked for structure. Nothing in it is proven before the signature is: see ``SealedObject``.
package struct SealedHeader: Sendable {
  static let magic = Array("TIDEMARK".utf8)
  static let versions: ClosedRange<UInt8> = 1...2
  static let fixedByteCount = 20
  private static let signedByteCountMax = 8 << 10
  private static let nameByteCountMax = 1024
  static let recipientCountMax = 64
  /// What suffices to read any header.
  package static let prefixByteCountMax =
    fixedByteCount + signedByteCountMax + WrappedKey.listByteCount(recipientCountMax)

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

  /// What stays the same when keys are wrapped anew, and stands for this object alone.
  package var digest: SHA256Digest { SHA256Digest.of(signedBytes) }

  /// The data key, with the first identity that it is wrapped for.
  /// - Throws: `no-key-opens`, `object-damaged`.
  package func dataKey(_ identities: [Identity]) throws(TidemarkError) -> DataKey {
    try DataKey.unwrap(self, headerDigest: digest, identities)
  }

  /// The signed bytes of a new object.
  /// - Throws: `internal-fault` when name or attributes are too long.
  static func signedBytes(
    kind: ObjectKind, name: String, created: Int64, writer: KeyID, attributes: SealedAttributes
  ) throws(TidemarkError) -> [UInt8] {
    var signed: [UInt8] = []
    // The limit of S3 on keys, https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html.
    guard (1...nameByteCountMax).contains(name.utf8.count) else {
      throw TidemarkError(.internalFault, "an object's name is empty or too long", object: name)
    }
    signed.append(bigEndian: UInt16(name.utf8.count))
    signed += name.utf8
    signed.append(bigEndian: created)
    signed += writer.bytes
    attributes.append(to: &signed)
    guard signed.count <= signedByteCountMax else {
      throw TidemarkError(.internalFault, "an object's attributes are too long", object: name)
    }
    var bytes = magic + [kind.formatVersion, kind.rawValue, 0, 0]
    bytes.append(bigEndian: UInt32(signed.count))
    bytes.append(bigEndian: UInt32(0))
    return bytes + signed
  }

  /// The whole header of a new object.
  /// - Throws: `configuration-invalid` unless there are 1 to 64 recipients.
  static func encode(
    signedBytes: [UInt8], headerDigest: SHA256Digest, wrappedKeys: [WrappedKey]
  ) throws(TidemarkError) -> [UInt8] {
    guard (1...recipientCountMax).contains(wrappedKeys.count) else {
      throw TidemarkError(
        .configurationInvalid,
        wrappedKeys.isEmpty ? "there is no recipient to seal to" : "there are too many recipients",
        cause: "\(wrappedKeys.count), limit \(recipientCountMax)", next: "set encryption.recipients")
    }
    var list = [UInt8(wrappedKeys.count)]
    for key in wrappedKeys { list += key.recipient.bytes + key.encapsulated + key.ciphertext }
    list += SHA256Digest.of(headerDigest.bytes + list).bytes
    var length: [UInt8] = []
    length.append(bigEndian: UInt32(list.count))
    var bytes = signedBytes
    bytes.replaceSubrange(16..<20, with: length)
    return bytes + list
  }

  /// How long the header is that begins with `prefix`, whose first 20 bytes suffice.
  /// - Throws: `object-damaged`, `format-version-unknown`.
  package static func byteCount(beginningWith prefix: [UInt8]) throws(TidemarkError) -> Int {
    var reader = ByteReader(prefix[...], what: "the header")
    let fixed = try FixedPart(reading: &reader)
    return fixedByteCount + fixed.signedByteCount + fixed.wrappedByteCount
  }

  /// Reads the header at the beginning of `prefix`, which may hold more.
  /// - Throws: `object-damaged`, `format-version-unknown`.
  package static func parse(_ prefix: [UInt8]) throws(TidemarkError) -> SealedHeader {
    var reader = ByteReader(prefix[...], what: "the header")
    let fixed = try FixedPart(reading: &reader)
    let signed = try reader.take(fixed.signedByteCount)
    let wrapped = try reader.take(fixed.wrappedByteCount)
    var fields = ByteReader(signed, what: "the header")
    let nameBytes = try fields.take(Int(try fields.integer(UInt16.self)))
    guard (1...nameByteCountMax).contains(nameBytes.count), let name = String(validating: nameBytes, as: UTF8.self)
    else {
      throw TidemarkError(.objectDamaged, "the header has no valid name")
    }
    let created = try fields.integer(Int64.self)
    let writer = KeyID(bytes: Array(try fields.take(8)))
    let attributes = try SealedAttributes(reading: &fields)
    var signedBytes = Array(prefix[..<(fixedByteCount + fixed.signedByteCount)])
    for index in 16..<20 { signedBytes[index] = 0 }
    return SealedHeader(
      kind: fixed.kind, name: name, created: created, writer: writer, attributes: attributes,
      wrappedKeys: try parseKeys(wrapped, headerDigest: SHA256Digest.of(signedBytes)), signedBytes: signedBytes,
      byteCount: reader.position)
  }

  private static func parseKeys(
    _ bytes: ArraySlice<UInt8>, headerDigest: SHA256Digest
  ) throws(TidemarkError) -> [WrappedKey] {
    var reader = ByteReader(bytes, what: "the list of wrapped keys")
    let count = Int(try reader.integer(UInt8.self))
    guard (1...recipientCountMax).contains(count), bytes.count == WrappedKey.listByteCount(count) else {
      throw TidemarkError(.objectDamaged, "the list of wrapped keys has a wrong length")
    }
    var keys: [WrappedKey] = []
    for _ in 0..<count {
      keys.append(
        WrappedKey(
          recipient: KeyID(bytes: Array(try reader.take(8))), encapsulated: Array(try reader.take(32)),
          ciphertext: Array(try reader.take(48))))
    }
    let list = bytes.dropLast(WrappedKey.listDigestByteCount)
    guard SHA256Digest.of(headerDigest.bytes + list).bytes == Array(try reader.take(WrappedKey.listDigestByteCount))
    else {
      throw TidemarkError(.objectDamaged, "the list of wrapped keys is damaged", cause: "its digest is wrong")
    }
    return keys
  }

  /// The first 20 bytes.
  private struct FixedPart {
    let kind: ObjectKind
    let signedByteCount: Int
    let wrappedByteCount: Int

    init(reading reader: inout ByteReader) throws(TidemarkError) {
      guard Array(try reader.take(8)) == magic else {
        throw TidemarkError(.objectDamaged, "this isn't a sealed object: it doesn't begin with 'TIDEMARK'")
      }
      let version = try reader.integer(UInt8.self)
      guard versions.contains(version) else {
        throw TidemarkError(
          .formatVersionUnknown, "the object has a format that this version doesn't know", cause: "version \(version)",
          next: "use a newer version of Tidemark")
      }
      guard let kind = ObjectKind(rawValue: try reader.integer(UInt8.self)), kind.formatVersion == version,
        try reader.integer(UInt16.self) == 0
      else {
        throw TidemarkError(.objectDamaged, "the header names a kind of object that doesn't exist")
      }
      self.kind = kind
      signedByteCount = Int(try reader.integer(UInt32.self))
      wrappedByteCount = Int(try reader.integer(UInt32.self))
      guard signedByteCount <= signedByteCountMax, wrappedByteCount <= WrappedKey.listByteCount(recipientCountMax)
      else {
        throw TidemarkError(.objectDamaged, "the header's lengths are impossible")
      }
    }
  }
}
