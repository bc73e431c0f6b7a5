// One copy of one object: that it is what its name says, by a trusted writer, whole, and with the key that every frame
// opens.
import BackupRepository
import Diagnostics
import Envelope

/// What is known of a copy that passed.
struct CheckedCopy {
  /// Equal for copies of the same object; WAL that two hosts sealed apart has the same plaintext.
  var identity: [UInt8]
  var frameCount = 0
  var isOpened = false
}

struct CopyCheck {
  let repository: Repository
  private var keys: RepositoryKeys { repository.keys }

  /// - Throws: `object-damaged`, `format-version-unknown`, `writer-not-trusted`, `signature-invalid`; `no-key-opens`
  ///   where this host has an identity and it doesn't fit; `region-unreachable` when it isn't known whether the key was
  ///   wrapped anew for it.
  func check(_ name: ObjectName, _ bytes: [UInt8]) throws(TidemarkError) -> CheckedCopy {
    let verified = try SealedObject.verify(bytes, expectedName: name.text, trustedWriters: keys.trustedWriters)
    let kind = verified.header.kind
    if let expected = Self.kind(of: name), !expected.contains(kind) {
      throw TidemarkError(
        .objectDamaged, "an object of another kind stands here", object: name.text, cause: "its header says \(kind)")
    }
    var copy = CheckedCopy(identity: verified.footer.signature)
    switch kind {
    case .walSegment, .partialSegment, .timelineHistory, .backupHistory, .rewrap:
      guard let digest = verified.header.attributes.plaintextDigest else {
        throw TidemarkError(.objectDamaged, "the header lacks the plaintext's digest", object: name.text)
      }
      copy.identity = digest.bytes
    default: break
    }
    let openers = kind.opensForWriter ? keys.openers : keys.identities
    if openers.isEmpty { return copy }
    do throws(TidemarkError) {
      let object = try repository.open(kind, name, bytes)
      let plaintext = try object.readAll(limit: Self.plaintextByteCountMax)
      if kind == .fileTable {
        var decoder = try FileTablePartDecoder(plaintext)
        while try decoder.next() != nil {}
      }
      if kind == .rewrap { _ = try DataKeyTable(decoding: plaintext) }
      copy.frameCount = object.footer.frames.count
      copy.isOpened = true
    } catch {
      // Another host's writer, and no identity here: nothing to open it with. And keys that were wrapped for others are no
      // loss: whether the objects that they belong to open is found out object by object.
      if error.code == .noKeyOpens, keys.identities.isEmpty || kind == .rewrap { return copy }
      throw error
    }
    return copy
  }

  /// As much as the largest object holds: a WAL segment of 1 GiB.
  private static let plaintextByteCountMax = 1 << 30

  /// The kinds that may stand under the name; `nil` where the layout says nothing.
  static func kind(of name: ObjectName) -> Set<ObjectKind>? {
    let parts = name.text.split(separator: "/")
    guard parts.count >= 4 else { return nil }
    switch parts[2] {
    case "packs": return [.pack]
    case "drills": return [.report]
    case "holds": return [.hold]
    case "releases": return [.release]
    case "rewraps": return [.rewrap]
    case "wal": return [.walSegment, .partialSegment, .timelineHistory, .backupHistory]
    case "backups":
      if parts.last == "manifest" { return [.manifest] }
      return parts.dropFirst(4).first == "leases" ? [.lease] : parts.dropFirst(4).first == "files" ? [.fileTable] : nil
    default: return nil
    }
  }
}

extension ObjectKind {
  /// Whether objects of this kind are sealed to the writer itself too.
  fileprivate var opensForWriter: Bool {
    switch self {
    case .manifest, .fileTable, .hold, .release, .lease, .timelineHistory: true
    default: false
    }
  }
}
