// The mark of a restore that is under way, beside its target: from before the first byte is written until the control
// file is in place. A killed restore leaves it, and `restore --delta` goes on from there: it says whose the directory
// without a control file is, and where the cluster that stood there had its tablespaces.
import Diagnostics
import Foundation
import PostgresFormats
import SystemSupport

struct UnfinishedRestore: Sendable, Codable, Equatable {
  private static let name = "unfinished"

  private(set) var format = 1
  var systemIdentifier: String
  /// OID → location, of the cluster that was found.
  var tablespaces: [UInt32: String] = [:]
  /// Where WAL and tablespaces' directories of that cluster are kept. Written down before they are moved.
  var setAside: [String] = []

  init(systemIdentifier: String) { self.systemIdentifier = systemIdentifier }

  /// What the restore before this one left; `nil` when it came to its end, or there was none.
  init?(in sideDirectory: String) throws(TidemarkError) {
    let path = "\(sideDirectory)/\(Self.name)"
    guard fileExists(path) else { return nil }
    let bytes = try readFile(path, limit: 1 << 20)
    do { self = try JSONDecoder().decode(Self.self, from: Data(bytes)) } catch {
      throw TidemarkError(
        .configurationUnreadable, "the mark of an unfinished restore can't be read", object: path, cause: "\(error)",
        kept: "everything there, unchanged", next: "restore into an empty directory")
    }
    guard format == 1 else {
      throw TidemarkError(
        .formatVersionUnknown, "an unfinished restore is another version's", object: path, cause: "format \(format)",
        kept: "everything there, unchanged", next: "restore into an empty directory")
    }
  }

  /// Returns when it is durable.
  func write(in sideDirectory: String, _ tree: OwnedTree) throws(TidemarkError) {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys]
    let bytes: Data
    do { bytes = try encoder.encode(self) } catch {
      throw TidemarkError(.internalFault, "cannot encode the mark of an unfinished restore", cause: "\(error)")
    }
    try tree.write(String(decoding: bytes, as: UTF8.self), to: "\(sideDirectory)/\(Self.name)")
  }

  static func remove(in sideDirectory: String) throws(TidemarkError) {
    try DurableFile.remove("\(sideDirectory)/\(name)")
  }
}
