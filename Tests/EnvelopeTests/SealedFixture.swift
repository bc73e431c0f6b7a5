// Keys and objects that the tests share.
import Diagnostics
import SystemSupport

@testable import Envelope

/// A writer, an identity and what they seal.
struct SealedFixture {
  static let name = "crm/7301/wal/00000001/0000000100000000000000A3"
  let writer: WriterKey
  let identity = Identity()

  init() throws { writer = try WriterKey() }

  /// Sealed with the chosen frames' own contents, so that a test decides where frames end.
  func seal(
    _ frames: [[UInt8]], kind: ObjectKind = .walSegment, name: String = Self.name,
    attributes: SealedAttributes = SealedAttributes(), recipients: [RecipientPublicKey]? = nil
  ) throws -> [UInt8] {
    var object = try SealedObjectWriter(
      kind: kind, name: name, created: 1_700_000_000_000_000, recipients: recipients ?? [identity.recipient],
      writer: writer, attributes: attributes)
    var compressor = try FrameCompressor()
    for frame in frames {
      var output = [UInt8](repeating: 0, count: FrameCompressor.outputByteCountMax(frame.count))
      let (codec, count) = try frame.withUnsafeBytes { input in
        try output.withUnsafeMutableBytes { try compressor.compress(input, into: $0, level: 1) }
      }
      let content = codec == .stored ? frame : Array(output.prefix(count))
      _ = try content.withUnsafeBytes {
        try object.appendFrame(codec: codec, $0, plaintextByteCount: frame.count)
      }
    }
    return try object.finish().inOnePiece()
  }

  func open(_ bytes: [UInt8], name: String = Self.name, kind: ObjectKind = .walSegment) throws -> [UInt8] {
    try SealedObject.open(
      bytes, expectedName: name, expectedKind: kind, trustedWriters: [writer.publicKey], identities: [identity]
    ).readAll(limit: 1 << 30)
  }

  @discardableResult
  func verify(_ bytes: [UInt8], name: String = Self.name) throws -> VerifiedObject {
    try SealedObject.verify(bytes, expectedName: name, trustedWriters: [writer.publicKey])
  }
}

/// The bytes of hexadecimal digits; spaces don't count.
func bytes(hexadecimal text: String) -> [UInt8] {
  let digits = text.compactMap(\.hexDigitValue)
  return stride(from: 0, to: digits.count - 1, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
}

/// The code of the error that `body` throws, `nil` when it throws none.
func code(of body: () throws -> Void) -> ErrorCode? {
  do {
    try body()
    return nil
  } catch { return TidemarkError.wrapping(error).code }
}
