// Where a verification was when it ended before its end, and how the last whole one ended: two small files in the state
// directory, written durably.
import BackupRepository
import Diagnostics
import Foundation
import SystemSupport

/// How the last finished verification ended, for `status`.
package struct FinishedVerification: Sendable, Codable, Equatable {
  /// Seconds since 1970.
  package var finished: Int64
  package var percent: Double
  package var findingCount: Int
}

package struct VerificationJournal: Sendable {
  private let directory: String
  private let cluster: String
  private var statePath: String { "\(directory)/\(cluster).unfinished" }
  private var finishedPath: String { "\(directory)/\(cluster).finished" }

  package init(stateDirectory: String, cluster: String) {
    directory = "\(stateDirectory)/verify"
    self.cluster = cluster
  }

  /// Where to go on; `nil` when there is nothing, or nothing that can be read: then all is verified again.
  func unfinished() throws(TidemarkError) -> VerificationState? {
    guard fileExists(statePath) else { return nil }
    let bytes = try readFile(statePath)
    // Written by another version or spoilt: the verification begins anew.
    return try? JSONDecoder().decode(VerificationState.self, from: Data(bytes))
  }

  func save(_ state: VerificationState) throws(TidemarkError) {
    try DurableFile.createDirectories(directory)
    try DurableFile.write(try encode(state), to: statePath)
  }

  /// Forgets the state and keeps the outcome.
  func finish(_ state: VerificationState) throws(TidemarkError) {
    try DurableFile.createDirectories(directory)
    let outcome = FinishedVerification(
      finished: wallClockSeconds(), percent: state.percent, findingCount: state.findingCount)
    try DurableFile.write(try encode(outcome), to: finishedPath)
    try DurableFile.remove(statePath)
  }

  /// The last one that was finished; `nil` when there is none, or none that can be read.
  package func finished() -> FinishedVerification? {
    // `status` takes one that can't be read for none, and asks for a verification.
    guard fileExists(finishedPath), let bytes = try? readFile(finishedPath) else { return nil }
    // The same for one of another version.
    return try? JSONDecoder().decode(FinishedVerification.self, from: Data(bytes))
  }

  private func encode(_ value: some Encodable) throws(TidemarkError) -> [UInt8] {
    do { return [UInt8](try JSONEncoder().encode(value)) } catch {
      throw TidemarkError(.internalFault, "cannot encode the state of the verification", cause: "\(error)")
    }
  }
}
