// The clear end of a sealed object: the frames' lengths and digests, and the writer's signature over header and footer.
// The digests bind the frames: AES-GCM doesn't commit to its key, and whoever holds an identity knows data keys.
import Diagnostics

/// One frame as the footer lists it.
package struct FrameDescription: Sendable, Equatable {
  package var codec: FrameCodec
  /// Where the stored bytes begin in the object.
  package var offset: Int
  /// With the tag.
  package var storedByteCount: Int
  package var plaintextByteCount: Int
  var digest: SHA256Digest
}

/// The end of an object, checked for structure. Its signature is ``SealedObject``'s to check.
package struct SealedFooter: Sendable {
  static let magic = Array("TIDEFOOT".utf8)
  static let trailerByteCount = 12
  static let signatureByteCount = 64
  static let frameEntryByteCount = 1 + 4 + 4 + 32
  /// Frames that a reader accepts: 64 GiB of plaintext in frames of 1 MiB, and 2.6 MiB of footer.
  static let frameCountMax = 1 << 16

  package let frames: [FrameDescription]
  package let signature: [UInt8]
  /// The footer up to the signature.
  let signedBytes: [UInt8]
  package let byteCount: Int

  package var plaintextByteCount: Int { frames.reduce(0) { $0 + $1.plaintextByteCount } }

  static func encode(_ frames: [FrameDescription]) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(bigEndian: UInt32(frames.count))
    for frame in frames {
      bytes.append(frame.codec.rawValue)
      bytes.append(bigEndian: UInt32(frame.storedByteCount))
      bytes.append(bigEndian: UInt32(frame.plaintextByteCount))
      bytes += frame.digest.bytes
    }
    return bytes
  }

  /// What the writer signs.
  static func message(header: [UInt8], footer: [UInt8]) -> [UInt8] {
    Array("tidemark object v1\0".utf8) + header + footer
  }

  /// How long the footer is that ends with `suffix`, whose last 12 bytes suffice.
  /// - Throws: `object-damaged`.
  package static func byteCount(endingWith suffix: [UInt8]) throws(TidemarkError) -> Int {
    guard suffix.count >= trailerByteCount, Array(suffix.suffix(8)) == magic else {
      throw TidemarkError(.objectDamaged, "the object's end is missing")
    }
    var reader = ByteReader(suffix[(suffix.count - trailerByteCount)...], what: "the footer")
    let count = Int(try reader.integer(UInt32.self))
    guard count >= 4 + signatureByteCount + trailerByteCount,
      count <= 4 + frameCountMax * frameEntryByteCount + signatureByteCount + trailerByteCount
    else { throw TidemarkError(.objectDamaged, "the footer's length is impossible") }
    return count
  }

  /// Reads the footer that is exactly `bytes`, of an object whose frames begin at `framesOffset` and end where the
  /// footer begins, at `framesEnd`; `nil` when that isn't known.
  /// - Throws: `object-damaged`.
  package static func parse(
    _ bytes: ArraySlice<UInt8>, framesOffset: Int, framesEnd: Int?
  ) throws(TidemarkError) -> SealedFooter {
    var reader = ByteReader(bytes, what: "the footer")
    let count = Int(try reader.integer(UInt32.self))
    guard count <= frameCountMax, try byteCount(endingWith: Array(bytes.suffix(trailerByteCount))) == bytes.count,
      bytes.count == 4 + count * frameEntryByteCount + signatureByteCount + trailerByteCount
    else { throw TidemarkError(.objectDamaged, "the footer's length doesn't fit its frames") }
    var frames: [FrameDescription] = []
    frames.reserveCapacity(count)
    var offset = framesOffset
    for _ in 0..<count {
      let codec = FrameCodec(rawValue: try reader.integer(UInt8.self))
      let stored = Int(try reader.integer(UInt32.self))
      let plaintext = Int(try reader.integer(UInt32.self))
      let digest = try SHA256Digest(Array(try reader.take(32)))
      // A compressed frame is shorter than its plaintext, else it would have been stored.
      let content = stored - FrameCipher.tagByteCount
      guard let codec, (1...SealedObject.framePlaintextByteCountMax).contains(plaintext),
        codec == .stored ? content == plaintext : (1..<plaintext).contains(content)
      else { throw TidemarkError(.objectDamaged, "the footer describes an impossible frame") }
      frames.append(
        FrameDescription(
          codec: codec, offset: offset, storedByteCount: stored, plaintextByteCount: plaintext, digest: digest))
      offset += stored
    }
    guard offset == framesEnd ?? offset else { throw TidemarkError(.objectDamaged, "the frames don't fill the object") }
    return SealedFooter(
      frames: frames, signature: Array(try reader.take(signatureByteCount)),
      signedBytes: Array(bytes.prefix(4 + count * frameEntryByteCount)), byteCount: bytes.count)
  }
}
