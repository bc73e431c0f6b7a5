// The manifest: the commit object of a backup, written last. A backup without one doesn't exist. Its JSON is sealed
// to the recipients and to the writer itself. docs/repository-format.md describes each field.
import Diagnostics
import Foundation
import PostgresFormats

package struct BackupManifest: Sendable, Codable, Equatable {
  package static let currentFormat = 1

  package struct Predecessor: Sendable, Codable, Equatable {
    package var label: String
    /// Of the predecessor's sealed manifest, in hexadecimal.
    package var sha256: String

    package init(label: String, sha256: String) {
      self.label = label
      self.sha256 = sha256
    }
  }
  package struct Tablespace: Sendable, Codable, Equatable {
    package var oid: UInt32
    package var location: String

    package init(oid: UInt32, location: String) {
      self.oid = oid
      self.location = location
    }
  }
  /// The packs of one backup that this one refers to: inclusive ranges of numbers.
  package struct PackReference: Sendable, Codable, Equatable {
    package var label: String
    package var ranges: [[Int]]
    /// Bytes of the blocks in each pack, in the order of ``numbers``; 0 where it isn't known. It decides which packs a
    /// later backup refers to, nothing that a restore does.
    package var plaintextBytes: [Int64]?

    package var numbers: [Int] {
      // What was decoded was checked; this holds for what is being built too.
      ranges.flatMap { $0.count == 2 && $0[0] <= $0[1] ? Array($0[0]...$0[1]) : [] }
    }

    /// ``plaintextBytes`` by number, as far as it is known.
    package var plaintextBytesByNumber: [Int: Int64] {
      guard let plaintextBytes, plaintextBytes.count == numbers.count else { return [:] }
      return Dictionary(zip(numbers, plaintextBytes).filter { $0.1 > 0 }, uniquingKeysWith: { $1 })
    }

    package init(label: String, ranges: [[Int]], plaintextBytes: [Int64]? = nil) {
      self.label = label
      self.ranges = ranges
      self.plaintextBytes = plaintextBytes
    }
  }
  package struct Setting: Sendable, Codable, Equatable {
    package var name: String
    package var value: String
    package var source: String
    package var unit: String?
    package var file: String?

    package init(name: String, value: String, source: String, unit: String? = nil, file: String? = nil) {
      self.name = name
      self.value = value
      self.source = source
      self.unit = unit
      self.file = file
    }
  }
  /// A file outside the data directory: PostgreSQL's configuration, or an attachment.
  package struct CapturedFile: Sendable, Codable, Equatable {
    package enum Role: String, Sendable, Codable {
      case configuration, hba, ident, included, attachment
    }
    package var role: Role
    package var path: String
    package var mode: UInt32
    package var content: Data

    package init(role: Role, path: String, mode: UInt32, content: Data) {
      self.role = role
      self.path = path
      self.mode = mode
      self.content = content
    }
  }
  package struct Database: Sendable, Codable, Equatable {
    package var oid: UInt32
    package var name: String
    package var encoding: String
    package var collate: String?
    package var localeProvider: String?
    package var collationVersion: String?

    package init(
      oid: UInt32, name: String, encoding: String, collate: String? = nil, localeProvider: String? = nil,
      collationVersion: String? = nil
    ) {
      self.oid = oid
      self.name = name
      self.encoding = encoding
      self.collate = collate
      self.localeProvider = localeProvider
      self.collationVersion = collationVersion
    }
  }

  package var format = BackupManifest.currentFormat
  package var label: String
  package var cluster: String
  package var systemIdentifier: String
  package var timeline: UInt32 = 0
  package var startLSN = "0/0"
  package var stopLSN = "0/0"
  /// Seconds since 1970, fractions included; by the clock of the host that took the backup.
  package var startTime = 0.0
  package var stopTime = 0.0
  package var serverVersion = 0
  package var catalogVersion: UInt32?
  package var walSegmentSize = 0
  package var dataChecksums = false
  package var fromStandby = false
  /// Whether the server reported page checksum failures: kept, but never preferred.
  package var suspect: String?
  package var predecessor: Predecessor?
  package var blockSize = 0
  package var fileTableParts = 0
  package var fileCount = 0
  /// The labels that the file table's runs refer to by index.
  package var labels: [String] = []
  package var packs: [PackReference] = []
  /// Bytes of the cluster's files.
  package var databaseBytes: Int64 = 0
  /// Bytes of the blocks that this backup stored.
  package var newBytes: Int64 = 0
  /// Bytes of the objects that this backup created in each region.
  package var storedBytes: Int64 = 0
  package var tablespaces: [Tablespace] = []
  package var settings: [Setting] = []
  package var files: [CapturedFile] = []
  package var databases: [Database] = []
  package var bootstrapSuperuser: String?
  package var toolVersion = ""

  /// A manifest to be filled in by whoever takes the backup.
  package init(label: BackupLabelName, cluster: String, systemIdentifier: SystemIdentifier) {
    self.label = label.text
    self.cluster = cluster
    self.systemIdentifier = systemIdentifier.description
  }

  package var start: LSN { get throws(TidemarkError) { try LSN(text: startLSN) } }
  package var stop: LSN { get throws(TidemarkError) { try LSN(text: stopLSN) } }

  package func encoded() throws(TidemarkError) -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys]
    do { return [UInt8](try encoder.encode(self)) } catch {
      throw TidemarkError(.internalFault, "cannot encode the manifest", cause: "\(error)")
    }
  }

  /// - Throws: `format-version-unknown`, `object-damaged`.
  package init(decoding bytes: [UInt8]) throws(TidemarkError) {
    struct Format: Codable { var format: Int }
    do {
      let format = try JSONDecoder().decode(Format.self, from: Data(bytes)).format
      guard format == Self.currentFormat else {
        throw TidemarkError(
          .formatVersionUnknown, "the manifest has a format that this version doesn't know", cause: "format \(format)",
          next: "use the version of Tidemark that took the backup, or a newer one")
      }
      self = try JSONDecoder().decode(BackupManifest.self, from: Data(bytes))
    } catch let error as TidemarkError { throw error } catch {
      throw TidemarkError(.objectDamaged, "the manifest can't be read", cause: "\(error)")
    }
    if let fault { throw TidemarkError(.objectDamaged, "the manifest contradicts itself", object: label, cause: fault) }
  }

  /// Packs that a reader accepts in one manifest: 256 TiB in packs of 16 MiB.
  private static let packCountMax = 1 << 24

  /// What no backup's manifest says; `nil` when there is nothing of the kind.
  private var fault: String? {
    // Here and below: what can't be parsed is the fault that is told.
    if (try? BackupLabelName(label)) == nil { return "its label is none" }
    if SystemIdentifier(text: systemIdentifier) == nil { return "system identifier \(systemIdentifier)" }
    // The same.
    guard timeline > 0, let start = try? start, let stop = try? stop, start <= stop else {
      return "timeline \(timeline), WAL from \(startLSN) to \(stopLSN)"
    }
    guard fileTableParts >= 1, fileCount >= 0, blockSize >= 512, blockSize <= 1 << 20, blockSize & (blockSize - 1) == 0,
      WALSegmentSize(byteCount: walSegmentSize) != nil
    else { return "a size or count is impossible" }
    var packCount = 0
    for reference in packs {
      // The same.
      guard labels.contains(reference.label), (try? BackupLabelName(reference.label)) != nil else {
        return "packs of \(reference.label), which isn't among its labels"
      }
      for range in reference.ranges {
        guard range.count == 2, 1 <= range[0], range[0] <= range[1], range[1] <= Self.packCountMax else {
          return "an impossible range of packs"
        }
        packCount += range[1] - range[0] + 1
        if packCount > Self.packCountMax { return "more packs than any backup has" }
      }
    }
    return nil
  }
}
