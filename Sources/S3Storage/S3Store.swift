// A bucket as an object store. Each request is signed with credentials taken at that moment, retried while a repetition
// can help and the deadline allows, and believed only when the answer is S3's: a proxy's page is never an absence.
// Methods stand in S3Store+*.swift; the one place where requests are made is S3Store+Request.swift.
import Diagnostics
import ObjectStorage
import Synchronization
import SystemSupport

package final class S3Store: ObjectStore {
  let configuration: S3Configuration
  let address: S3Address
  let transport: HTTPTransport
  let state: Mutex<State>

  struct State {
    var statistics = StoreStatistics()
    var clockOffset: Duration?
    var conditionalCreation: S3Configuration.ConditionalCreation
    /// Set when the store answered that it doesn't know DeleteObjects.
    var lacksBulkDeletion = false
  }

  /// Loads what requests need, for whoever has something else to do before the first one.
  /// - Throws: `local-io`.
  package static func loadLibrary() throws(TidemarkError) { try HTTPTransport.loadLibrary() }

  /// - Throws: `configuration-invalid` for an endpoint or bucket that can't be one.
  package init(configuration: S3Configuration) throws(TidemarkError) {
    self.configuration = configuration
    address = try S3Address(configuration)
    transport = HTTPTransport(
      limits: configuration.limits, certificateAuthorityFile: configuration.certificateAuthorityFile)
    state = Mutex(State(conditionalCreation: configuration.conditionalCreation))
  }

  package var location: String { "s3://\(configuration.bucket) at \(configuration.endpoint)" }
  package var clockOffset: Duration? { state.withLock { $0.clockOffset } }
  package var statistics: StoreStatistics { state.withLock { $0.statistics } }

  /// What is known of conditional creation by now.
  package var conditionalCreation: S3Configuration.ConditionalCreation { state.withLock { $0.conditionalCreation } }
}
