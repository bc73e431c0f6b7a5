// The journal of debts: which object which region still lacks. One small file for each debt, durable before the object
// is acknowledged, so that several processes write it at once and kill -9 at any point loses none.
import Diagnostics
import ObjectStorage
import SystemSupport

/// An object that a region lacks.
package struct Debt: Sendable, Hashable {
  package var region: String
  package var object: ObjectName

  package init(region: String, object: ObjectName) {
    self.region = region
    self.object = object
  }
}

/// The debts that this host knows of, in `STATE/debts/REGION/NAME` with `/` written as `~` (no key contains it).
package struct DebtJournal: Sendable {
  private let directory: String

  package init(stateDirectory: String) { directory = "\(stateDirectory)/debts" }

  /// Records the debt. Returns after it is durable.
  package func record(_ debt: Debt) throws(TidemarkError) {
    try DurableFile.createDirectories("\(directory)/\(debt.region)")
    CrashPoint.reach("debt.before-record")
    _ = try DurableFile.create(Array("\(debt.object)\n".utf8), at: path(debt))
    CrashPoint.reach("debt.after-record")
  }

  /// Removes the debt: the region holds the object.
  package func settle(_ debt: Debt) throws(TidemarkError) {
    CrashPoint.reach("debt.before-settle")
    try DurableFile.remove(path(debt))
  }

  /// All debts, ordered by region and object. A file that isn't a debt's is left alone.
  package func debts() throws(TidemarkError) -> [Debt] {
    guard fileExists(directory) else { return [] }
    var debts: [Debt] = []
    for region in try directoryEntries(directory).sorted() where isDirectory("\(directory)/\(region)") {
      for name in try directoryEntries("\(directory)/\(region)").sorted() where !name.hasPrefix(".") {
        let text = name.replacing("~", with: "/")
        if ObjectKey.isValid(text) { debts.append(Debt(region: region, object: ObjectName(trusted: text))) }
      }
    }
    return debts
  }

  /// How many objects `region` is owed.
  package func count(_ region: String) throws(TidemarkError) -> Int {
    guard fileExists("\(directory)/\(region)") else { return 0 }
    return try directoryEntries("\(directory)/\(region)").count { !$0.hasPrefix(".") }
  }

  /// Whether `debt` is recorded.
  package func contains(_ debt: Debt) -> Bool { fileExists(path(debt)) }

  private func path(_ debt: Debt) -> String {
    "\(directory)/\(debt.region)/\(debt.object.text.replacing("/", with: "~"))"
  }
}
