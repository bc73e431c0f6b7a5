// A whole object in memory, checked and unlocked. Frames are checked as they are read.
import Diagnostics
import SystemSupport

/// An object whose head, end and signature were checked and whose key is known.
package struct OpenedObject: Sendable {
  private let bytes: [UInt8]
  private let unlocked: UnlockedObject

  init(bytes: [UInt8], unlocked: UnlockedObject) {
    self.bytes = bytes
    self.unlocked = unlocked
  }

  package var header: SealedHeader { unlocked.verified.header }
  package var footer: SealedFooter { unlocked.verified.footer }
  package var plaintextByteCount: Int { footer.plaintextByteCount }

  /// All of the plaintext, compared with the header's digest where there is one.
  /// - Throws: `object-damaged`, also when there are more than `limit` bytes.
  package func readAll(limit: Int) throws(TidemarkError) -> [UInt8] {
    let total = plaintextByteCount
    guard total <= limit else {
      throw TidemarkError(
        .objectDamaged, "the object is larger than expected", object: header.name,
        cause: "\(total) bytes, limit \(limit)")
    }
    var failure: TidemarkError?
    var digest: SHA256Digest?
    let plaintext = [UInt8](unsafeUninitializedCapacity: total) { buffer, count in
      preferHugePages(UnsafeMutableRawBufferPointer(buffer))
      do throws(TidemarkError) {
        digest = try ParallelReader(self, into: UnsafeMutableRawBufferPointer(buffer)).run(
          digests: header.attributes.plaintextDigest != nil)
        count = total
      } catch { failure = error }
    }
    if let failure { throw failure }
    guard digest == header.attributes.plaintextDigest else {
      throw TidemarkError(
        .objectDamaged, "the plaintext isn't what the header says", object: header.name, cause: "its digest differs")
    }
    return plaintext
  }

  /// Opens the frames of one object, with reused contexts and buffer.
  package struct FrameReader: ~Copyable {
    private let object: OpenedObject
    private var opener: FrameOpener

    package init(_ object: OpenedObject) throws(TidemarkError) {
      let opener = try FrameOpener()
      self.object = object
      self.opener = opener
    }

    /// Fills `output`, which has the frame's plaintext length, with frame `index`.
    /// - Throws: `object-damaged`; `output` is then not to be used.
    package mutating func read(
      _ index: Int, into output: UnsafeMutableRawBufferPointer
    ) throws(TidemarkError) {
      let range = try object.unlocked.verified.storedRange(frame: index)
      // The footer's parser and ``SealedObject`` checked that the frames fill what lies between header and footer.
      try object.bytes.withUnsafeBufferPointer { buffer throws(TidemarkError) in
        try opener.open(
          object.unlocked, frame: index,
          stored: UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(buffer)[range]),
          into: output)
      }
    }
  }
}
