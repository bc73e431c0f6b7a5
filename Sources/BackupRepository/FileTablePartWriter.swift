// Writes one part of the file table. Entries are sealed as soon as they fill a frame, so that memory holds a part once
// and compressed, however many files a cluster has.
import Diagnostics
import Envelope

package struct FileTablePartWriter: ~Copyable {
  private var encoder: FileTablePartEncoder
  private var object: SealedObjectWriter
  private let level: Int

  package init(_ repository: Repository, _ name: ObjectName, blockSize: Int) throws(TidemarkError) {
    object = try repository.sealedObject(.fileTable, name)
    level = repository.compressionLevel
    encoder = FileTablePartEncoder(blockSize: blockSize)
  }

  package var isFull: Bool { encoder.isFull }

  /// - Throws: as ``FileTablePartEncoder/append(_:)``, and what sealing throws.
  package mutating func append(_ entry: FileTableEntry) throws(TidemarkError) {
    try encoder.append(entry)
    while encoder.bytes.count >= SealedObject.framePlaintextByteCountMax {
      try sealFrame(encoder.take(SealedObject.framePlaintextByteCountMax))
    }
  }

  /// The finished object, in pieces.
  package consuming func finish() throws(TidemarkError) -> [[UInt8]] {
    let rest = encoder.take(encoder.bytes.count)
    if !rest.isEmpty { try sealFrame(rest) }
    return try object.finish()
  }

  /// Compresses with a context of its own: frames of the table are few, and a context is as large as some of them.
  private mutating func sealFrame(_ plaintext: [UInt8]) throws(TidemarkError) {
    var compressor = try FrameCompressor()
    let room = FrameCompressor.outputByteCountMax(plaintext.count)
    let output = UnsafeMutableRawBufferPointer.allocate(byteCount: room, alignment: 64)
    defer { output.deallocate() }
    try plaintext.withUnsafeBufferPointer { buffer throws(TidemarkError) in
      let input = UnsafeRawBufferPointer(buffer)
      let (codec, count) = try compressor.compress(input, into: output, level: level)
      _ = try object.appendFrame(
        codec: codec, codec == .stored ? input : UnsafeRawBufferPointer(rebasing: output[..<count]),
        plaintextByteCount: input.count)
    }
  }
}
