// Reads the server's backup manifest as it comes, one line at a time, so that millions of files take no memory.
// Its files may be used before the end, but are proven only when ``finish()`` has compared the manifest's own SHA-256.
// Whatever it doesn't understand it refuses: a manifest read wrongly would let a damaged backup pass.
import Crypto
import Diagnostics

/// A streaming parser of the backup manifest, a state machine without I/O.
package struct ServerManifestReader {
  /// A path of 1024 bytes (PostgreSQL's MAXPGPATH), hex-encoded, with its other members, takes less.
  package static let lineByteCountMax = 64 << 10
  /// The server writes one range per timeline that the backup saw.
  package static let walRangeCountMax = 4096

  private enum Section {
    case opening, version, preamble, files, betweenSections, walRanges, checksum, finished
  }

  private var section = Section.opening
  private var manifest = ServerManifest(version: 0, systemIdentifier: nil, walRanges: [], fileCount: 0)
  private var digest = SHA256()
  private var statedDigest: [UInt8] = []
  private var lineNumber = 1
  /// The beginning of a line that came with earlier pieces.
  private var pending: [UInt8] = []
  /// Whether the last entry of a list had a comma behind it, so that another must follow.
  private var expectsEntry = false

  package init() {}

  /// Takes the next piece of the manifest and hands its files to `take`, in order.
  /// - Throws: `manifest-mismatch`, `path-unsafe`, and what `take` throws.
  package mutating func feed(
    _ piece: UnsafeRawBufferPointer, _ take: (ServerManifest.File) throws(TidemarkError) -> Void
  ) throws(TidemarkError) {
    var rest = piece[...]
    while let newline = rest.firstIndex(of: UInt8(ascii: "\n")) {
      guard pending.count + (newline - rest.startIndex) <= Self.lineByteCountMax else {
        throw invalid("a line is too long")
      }
      pending.append(contentsOf: rest[rest.startIndex...newline])
      rest = rest[(newline + 1)...]
      let line = pending
      pending.removeAll(keepingCapacity: true)
      try takeLine(line, take)
      lineNumber += 1
    }
    guard pending.count + rest.count <= Self.lineByteCountMax else { throw invalid("a line is too long") }
    pending.append(contentsOf: rest)
  }

  /// The manifest, whose checksum is proven.
  /// - Throws: `manifest-mismatch` where the manifest is cut off or its checksum differs.
  package mutating func finish() throws(TidemarkError) -> ServerManifest {
    guard section == .finished, pending.isEmpty else { throw invalid("the manifest is cut off") }
    let actual = Array(digest.finalize())
    guard actual == statedDigest else {
      throw TidemarkError(
        .manifestMismatch, "the server's backup manifest is damaged",
        cause: "its SHA-256 is \(Self.hex(actual)), it says \(Self.hex(statedDigest))")
    }
    return manifest
  }

  private mutating func takeLine(
    _ line: [UInt8], _ take: (ServerManifest.File) throws(TidemarkError) -> Void
  ) throws(TidemarkError) {
    // The checksum covers everything before its own line (pg_verifybackup, `verify_manifest_checksum`).
    if section != .checksum { digest.update(data: line) }
    var text = line.dropLast()[...]
    switch section {
    case .opening:
      // The server writes the version on the same line as the brace.
      guard text.popFirst() == UInt8(ascii: "{") else { throw invalid("it doesn't begin with a brace") }
      section = .version
      if !text.allSatisfy({ $0 == UInt8(ascii: " ") }) { try takeVersion(text) }
    case .version:
      try takeVersion(text)
    case .preamble:
      if text.elementsEqual("\"Files\": [".utf8) {
        section = .files
        expectsEntry = false
      } else {
        try takeSystemIdentifier(text)
      }
    case .files:
      if try endsList(text) {
        section = .betweenSections
      } else {
        try take(file(try entry(&text)))
        manifest.fileCount += 1
      }
    case .betweenSections:
      guard text.elementsEqual("\"WAL-Ranges\": [".utf8) else { throw invalid("WAL-Ranges is missing") }
      section = .walRanges
      expectsEntry = false
    case .walRanges:
      if try endsList(text) {
        section = .checksum
      } else {
        guard manifest.walRanges.count < Self.walRangeCountMax else { throw invalid("too many WAL ranges") }
        manifest.walRanges.append(try walRange(try entry(&text)))
      }
    case .checksum:
      try takeChecksum(text)
    case .finished:
      throw invalid("something follows the checksum")
    }
  }

  private mutating func takeVersion(_ text: ArraySlice<UInt8>) throws(TidemarkError) {
    guard text.last == UInt8(ascii: ","), let (key, value) = ManifestJSON.member(text.dropLast()),
      key.elementsEqual("PostgreSQL-Backup-Manifest-Version".utf8), case .number(let version) = value
    else { throw invalid("the version is missing") }
    guard version == 1 || version == 2 else { throw invalid("version \(version) isn't supported") }
    manifest.version = Int(version)
    section = .preamble
  }

  private mutating func takeSystemIdentifier(_ text: ArraySlice<UInt8>) throws(TidemarkError) {
    guard text.last == UInt8(ascii: ","), let (key, value) = ManifestJSON.member(text.dropLast()),
      key.elementsEqual("System-Identifier".utf8), case .number(let identifier) = value, identifier != 0,
      manifest.version >= 2, manifest.systemIdentifier == nil
    else { throw invalid("neither Files nor System-Identifier") }
    manifest.systemIdentifier = SystemIdentifier(rawValue: identifier)
  }

  private mutating func takeChecksum(_ text: ArraySlice<UInt8>) throws(TidemarkError) {
    guard text.last == UInt8(ascii: "}"), let (key, value) = ManifestJSON.member(text.dropLast()),
      key.elementsEqual("Manifest-Checksum".utf8), case .string(let digits) = value,
      let bytes = hexadecimalBytes(digits), bytes.count == SHA256.byteCount
    else { throw invalid("the manifest's checksum is missing") }
    statedDigest = bytes
    section = .finished
  }

  /// Whether `text` is the end of a list; a comma before the end, or none between entries, is refused.
  private func endsList(_ text: ArraySlice<UInt8>) throws(TidemarkError) -> Bool {
    guard text.elementsEqual("],".utf8) else { return false }
    if expectsEntry { throw invalid("an entry is missing") }
    return true
  }

  private mutating func entry(_ text: inout ArraySlice<UInt8>) throws(TidemarkError) -> ManifestJSON {
    let isFirst = section == .files ? manifest.fileCount == 0 : manifest.walRanges.isEmpty
    guard isFirst || expectsEntry else { throw invalid("a comma is missing") }
    expectsEntry = text.last == UInt8(ascii: ",")
    if expectsEntry { text.removeLast() }
    guard let object = ManifestJSON(object: text) else { throw invalid("not a flat JSON object") }
    return object
  }

  private func file(_ entry: ManifestJSON) throws(TidemarkError) -> ServerManifest.File {
    for key in entry.keys where !Self.fileKeys.contains(key) { throw invalid("\(key) isn't known") }
    let name: [UInt8]
    switch (entry.string("Path"), entry.string("Encoded-Path").map({ hexadecimalBytes($0) })) {
    case (let path?, nil): name = path
    case (nil, let path??): name = path
    default: throw invalid("a file has no path")
    }
    let path = try SafePath.relative(name)
    guard let size = entry.number("Size") else { throw invalid("\(path) has no size") }
    guard let checksum = Self.checksum(entry) else { throw invalid("\(path) has an unknown or broken checksum") }
    return ServerManifest.File(path: path, size: size, checksum: checksum)
  }

  private static let fileKeys: Set = [
    "Path", "Encoded-Path", "Size", "Last-Modified", "Checksum-Algorithm", "Checksum",
  ]

  private static func checksum(_ entry: ManifestJSON) -> ServerManifest.Checksum? {
    guard let name = entry["Checksum-Algorithm"] else { return entry["Checksum"] == nil ? .some(.none) : nil }
    guard case .string(let algorithm) = name, let bytes = entry.string("Checksum").flatMap({ hexadecimalBytes($0) })
    else { return nil }
    switch String(decoding: algorithm, as: UTF8.self) {
    case "CRC32C" where bytes.count == 4:
      // The server prints the number's bytes as they lie in its memory (`pg_checksum_final`).
      return .crc32c(bytes.reversed().reduce(0) { $0 << 8 | UInt32($1) })
    case "SHA224" where bytes.count == 28: return .sha2(bitCount: 224, bytes)
    case "SHA256" where bytes.count == 32: return .sha2(bitCount: 256, bytes)
    case "SHA384" where bytes.count == 48: return .sha2(bitCount: 384, bytes)
    case "SHA512" where bytes.count == 64: return .sha2(bitCount: 512, bytes)
    default: return nil
    }
  }

  private func walRange(_ entry: ManifestJSON) throws(TidemarkError) -> ServerManifest.WALRange {
    guard entry.keys.count == 3, let number = entry.number("Timeline"), let timeline = UInt32(exactly: number),
      timeline != 0, let start = entry.string("Start-LSN").flatMap({ LSN(utf8: $0) }),
      let end = entry.string("End-LSN").flatMap({ LSN(utf8: $0) }), start <= end
    else { throw invalid("not a WAL range") }
    return ServerManifest.WALRange(timeline: TimelineID(timeline), start: start, end: end)
  }

  private func invalid(_ cause: String) -> TidemarkError {
    TidemarkError(
      .manifestMismatch, "cannot read the server's backup manifest", object: "line \(lineNumber)", cause: cause)
  }

  private static func hex(_ bytes: [UInt8]) -> String { bytes.map { hexadecimalText($0, width: 2) }.joined() }
}
