// A few frames of a pack, fetched by ranged reads: its head, its end, and of the frames between them those that are needed.
// It is a short cut and no more: where it isn't worth the requests, or a copy is damaged, the whole pack is read instead,
// which also mends the damaged copy.
import BackupRepository
import Diagnostics
import Envelope
import ObjectStorage
import SystemSupport

struct PackFrames {
  /// More frames than this are fetched with the whole pack.
  private static let frameCountMax = 8
  /// The end of a pack of 16 MiB, unless it compressed better than most.
  private static let tailByteCount = 8 << 10
  /// Frames are fetched together when no more than this lies between them.
  private static let gapByteCountMax = 64 << 10

  private let restorer: FileRestorer
  private let name: ObjectName
  /// In the order of the frames.
  private let placements: [FileRestorer.Placement]
  private let paths: [String]
  private let created: CreatedFiles
  private let ranges: FlushedRanges

  init(
    _ restorer: FileRestorer, _ name: ObjectName, _ placements: [FileRestorer.Placement], _ paths: [String],
    _ created: CreatedFiles, _ ranges: FlushedRanges
  ) {
    self.restorer = restorer
    self.name = name
    self.placements = placements
    self.paths = paths
    self.created = created
    self.ranges = ranges
  }

  /// Writes the placements and returns `nil`; otherwise the whole pack is to be read, with the regions asked first whose
  /// copies are damaged.
  func write(_ scratch: UnsafeMutableRawBufferPointer) throws(TidemarkError) -> Set<String>? {
    var frames: [Int] = []
    for placement in placements where Int(placement.frame) != frames.last { frames.append(Int(placement.frame)) }
    guard frames.count <= Self.frameCountMax else { return [] }
    var damaged: Set<String> = []
    do throws(TidemarkError) {
      let isWritten = try restorer.repository.regions.read(
        name, range: .bytes(offset: 0, count: Int64(SealedHeader.prefixByteCountMax)), limits: FileRestorer.packLimits,
        meter: restorer.meter
      ) { head, region in
        do throws(TidemarkError) { return try write(frames, head, region, scratch) } catch {
          if Self.isDamage(error) { damaged.insert(region.name) }
          throw error
        }
      }
      return isWritten && damaged.isEmpty ? nil : damaged
    } catch {
      guard Self.isDamage(error) else { throw error }
      return damaged
    }
  }

  private static func isDamage(_ error: TidemarkError) -> Bool {
    switch error.code {
    case .objectDamaged, .signatureInvalid, .writerNotTrusted, .formatVersionUnknown: true
    default: false
    }
  }

  private func write(
    _ frames: [Int], _ head: [UInt8], _ region: Region, _ scratch: UnsafeMutableRawBufferPointer
  ) throws(TidemarkError) -> Bool {
    var tail = try read(.suffix(count: Int64(Self.tailByteCount)), region)
    let footerByteCount = try SealedFooter.byteCount(endingWith: tail)
    if footerByteCount > tail.count { tail = try read(.suffix(count: Int64(footerByteCount)), region) }
    let keys = restorer.repository.keys
    let verified = try SealedObject.verify(
      head: head, tail: tail, byteCount: nil, expectedName: name.text, expectedKind: .pack,
      trustedWriters: keys.trustedWriters)
    var groups: [(bytes: Range<Int>, frames: [Int])] = []
    for frame in frames {
      let range = try verified.storedRange(frame: frame)
      if let last = groups.last, range.lowerBound - last.bytes.upperBound <= Self.gapByteCountMax {
        groups[groups.count - 1] = (last.bytes.lowerBound..<range.upperBound, last.frames + [frame])
      } else {
        groups.append((range, [frame]))
      }
    }
    let wanted = groups.reduce(0) { $0 + $1.bytes.count }
    let total = verified.footer.frames.reduce(0) { $0 + $1.storedByteCount }
    guard wanted * 2 <= total else { return false }
    let unlocked = try restorer.repository.unlock(name, verified)
    var opener = try FrameOpener()
    var writer = PlacementWriter(paths, created, ranges, restorer)
    var rest = placements[...]
    for group in groups {
      let bytes = try read(
        .bytes(offset: Int64(group.bytes.lowerBound), count: Int64(group.bytes.count)), region)
      guard bytes.count == group.bytes.count else {
        throw TidemarkError(.objectDamaged, "the object is shorter than its end says", object: name.text)
      }
      for frame in group.frames {
        let stored = try verified.storedRange(frame: frame)
        let begin = stored.lowerBound - group.bytes.lowerBound
        let plaintext = UnsafeMutableRawBufferPointer(
          rebasing: scratch[..<(try verified.frame(frame).plaintextByteCount)])
        try bytes.withUnsafeBytes { buffer in
          Result { () throws(TidemarkError) in
            try opener.open(
              unlocked, frame: frame, stored: UnsafeRawBufferPointer(rebasing: buffer[begin..<begin + stored.count]),
              into: plaintext)
          }
        }.get()
        while let placement = rest.first, Int(placement.frame) == frame {
          try writer.write(placement, of: UnsafeRawBufferPointer(plaintext), name.text)
          rest.removeFirst()
        }
      }
    }
    return true
  }

  /// Part of the region's copy.
  private func read(_ range: ByteRange, _ region: Region) throws(TidemarkError) -> [UInt8] {
    do throws(TidemarkError) {
      return try restorer.meter.waitingForInput { () throws(TidemarkError) in
        try region.request { store throws(TidemarkError) in
          try store.read(region.key(name), range: range, deadline: .after(FileRestorer.packLimits.perRegion))
        }
      }
    } catch {
      // A store in a directory has the same codes as the target's file system, whose faults no other region mends.
      guard error.code == .localIO || error.code == .localPermission else { throw error }
      throw TidemarkError(.regionUnreachable, error.summary, object: error.object, cause: error.cause)
    }
  }
}
