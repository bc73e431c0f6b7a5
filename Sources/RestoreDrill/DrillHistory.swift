// The drills' reports in the regions: sealed and signed like every object, created once, and never changed.
import BackupRepository
import Diagnostics
import Envelope
import PostgresFormats
import SystemSupport

/// A report with what proves it.
package struct StoredDrill: Sendable {
  package var report: DrillReport
  /// The JSON document as it was signed.
  package var document: [UInt8]
  /// Its place in the regions.
  package var object: String
  /// The key id of the writer whose signature was checked.
  package var signedBy: String
}

/// A report that is there and can't be used.
package struct UnusableDrill: Sendable {
  package var object: String
  package var error: TidemarkError
}

package struct DrillHistory {
  /// Reports that comparisons and charts take into account.
  package static let countMax = 40

  let repository: Repository

  package init(_ repository: Repository) { self.repository = repository }

  /// Stores the report in every region. Returns where it is.
  @discardableResult
  package func store(_ report: DrillReport, _ document: [UInt8]) throws(TidemarkError) -> StoredDrill {
    guard let identifier = SystemIdentifier(text: report.systemIdentifier) else {
      throw TidemarkError(.internalFault, "a drill's report without a system identifier", object: report.name)
    }
    let name = repository.layout.lineage(identifier).drill(try BackupLabelName(report.name))
    let sealed = try repository.seal(.report, name, document)
    CrashPoint.reach("drill.before-report")
    try repository.regions.create(name, sealed)
    return StoredDrill(
      report: report, document: document, object: name.text, signedBy: try repository.writer().publicKey.id.description)
  }

  /// The newest reports of a lineage, oldest first.
  /// - Parameter prefix: of the name; empty for all.
  package func reports(
    _ lineage: LineageLayout, prefix: String = "", limit: Int = countMax
  ) throws(TidemarkError) -> (drills: [StoredDrill], unusable: [UnusableDrill]) {
    let listing = try repository.regions.list(prefix: lineage.drillsPrefix)
    let names = listing.entries.map(\.name).filter { $0.lastComponent.hasPrefix(prefix) }.suffix(limit)
    var drills: [StoredDrill] = []
    var unusable: [UnusableDrill] = []
    for name in names {
      do throws(TidemarkError) { drills.append(try read(name)) } catch {
        if error.code == .interrupted || error.code == .noKeyOpens { throw error }
        unusable.append(UnusableDrill(object: name.text, error: error))
      }
    }
    return (drills, unusable)
  }

  /// The newest reports of every lineage, or of `identifier`'s, oldest first.
  package func reports(
    systemIdentifier identifier: SystemIdentifier?, prefix: String = ""
  ) throws(TidemarkError) -> (drills: [StoredDrill], unusable: [UnusableDrill]) {
    var drills: [StoredDrill] = []
    var unusable: [UnusableDrill] = []
    for lineage in try repository.lineages().lineages
    where identifier == nil || lineage.systemIdentifier == identifier {
      let found = try reports(lineage, prefix: prefix)
      drills += found.drills
      unusable += found.unusable
    }
    return (drills.sorted { $0.report.name < $1.report.name }, unusable)
  }

  private func read(_ name: ObjectName) throws(TidemarkError) -> StoredDrill {
    let (document, sealed) = try repository.readSealed(.report, name, limit: DrillReport.byteCountMax)
    let report = try DrillReport(decoding: document, object: name.text)
    guard report.name == name.lastComponent else {
      throw TidemarkError(.objectDamaged, "the report is another drill's", object: name.text)
    }
    return StoredDrill(
      report: report, document: document, object: name.text,
      signedBy: try SealedHeader.parse(sealed).writer.description)
  }
}
