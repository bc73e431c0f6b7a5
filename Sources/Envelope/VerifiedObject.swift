// What is known of an object once its head, end and signature passed: enough to check frames without any identity, and
// with one to open them, also when they are fetched one by one.
import Diagnostics

/// The head and end of an object by a trusted writer. The frames are not here.
package struct VerifiedObject: Sendable {
  package let header: SealedHeader
  package let footer: SealedFooter
  let headerDigest: SHA256Digest

  init(header: SealedHeader, footer: SealedFooter, headerDigest: SHA256Digest) {
    self.header = header
    self.footer = footer
    self.headerDigest = headerDigest
  }

  package var plaintextByteCount: Int { footer.plaintextByteCount }

  /// - Throws: `object-damaged` when the object has no such frame.
  package func frame(_ index: Int) throws(TidemarkError) -> FrameDescription {
    guard footer.frames.indices.contains(index) else {
      throw TidemarkError(
        .objectDamaged, "the object has no frame \(index)", object: header.name,
        cause: "it has \(footer.frames.count) frames")
    }
    return footer.frames[index]
  }

  /// Where frame `index` is stored in the object, with its tag.
  /// - Throws: `object-damaged` when the object has no such frame.
  package func storedRange(frame index: Int) throws(TidemarkError) -> Range<Int> {
    let frame = try frame(index)
    return frame.offset..<frame.offset + frame.storedByteCount
  }

  /// Checks the stored bytes of frame `index` against the signed footer.
  /// - Throws: `object-damaged`.
  package func check(frame index: Int, stored: UnsafeRawBufferPointer) throws(TidemarkError) {
    let frame = try frame(index)
    guard stored.count == frame.storedByteCount, SHA256Digest.of(stored) == frame.digest else {
      throw TidemarkError(
        .objectDamaged, "frame \(index) is damaged", object: header.name,
        cause: stored.count == frame.storedByteCount
          ? "its digest is wrong" : "\(stored.count) bytes, expected \(frame.storedByteCount)")
    }
  }

  /// Unwraps the data key.
  /// - Parameter rewrapped: as for
  ///   ``SealedObject/open(_:expectedName:expectedKind:trustedWriters:identities:rewrapped:)``.
  /// - Throws: `no-key-opens`, `object-damaged`, and what `rewrapped` throws.
  package func unlock(
    _ identities: [Identity], rewrapped: (SealedHeader) throws(TidemarkError) -> DataKey? = { _ in nil }
  ) throws(TidemarkError) -> UnlockedObject {
    do throws(TidemarkError) {
      return UnlockedObject(verified: self, key: try DataKey.unwrap(header, headerDigest: headerDigest, identities))
    } catch {
      // The key may be a false one where a trusted writer says so: the first frame's tag then tells.
      guard error.code == .noKeyOpens, let key = try rewrapped(header) else { throw error }
      return UnlockedObject(verified: self, key: key)
    }
  }
}

/// A ``VerifiedObject`` with its data key, for ``FrameOpener``.
package struct UnlockedObject: Sendable {
  package let verified: VerifiedObject
  let key: DataKey
}
