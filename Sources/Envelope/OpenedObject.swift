// A whole object in memory, checked and unlocked. Frames are checked as they are read.
import Diagnostics

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
    var plaintext: [UInt8] = []
    plaintext.reserveCapacity(min(limit, plaintextByteCount))
    try read(limit: limit) { plaintext.append(contentsOf: $0) }
    return plaintext
  }

  /// Hands the plaintext to `sink`, piece after piece, and compares the whole with the header's digest where there is one:
  /// what `sink` got counts only when this returns.
  /// - Throws: `object-damaged`, also when there are more than `limit` bytes, before the first of them; what `sink` throws.
  package func read(
    limit: Int, _ sink: (UnsafeRawBufferPointer) throws(TidemarkError) -> Void
  ) throws(TidemarkError) {
    guard plaintextByteCount <= limit else {
      throw TidemarkError(
        .objectDamaged, "the object is larger than expected", object: header.name,
        cause: "\(plaintextByteCount) bytes, limit \(limit)")
    }
    var hasher = try SHA256Hasher()
    try hasher.begin()
    let digest = header.attributes.plaintextDigest
    var frames = OpenedFrames(self)
    for index in footer.frames.indices {
      try frames.withFrame(index) { bytes throws(TidemarkError) in
        if digest != nil { try hasher.update(bytes) }
        try sink(bytes)
      }
    }
    let found = try hasher.finish()
    guard digest == nil || found == digest else {
      throw TidemarkError(
        .objectDamaged, "the plaintext isn't what the header says", object: header.name, cause: "its digest differs")
    }
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
