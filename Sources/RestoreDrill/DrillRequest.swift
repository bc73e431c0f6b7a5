// What a drill is asked to do.
import Configuration
import PointInTimeRestore
import PostgresFormats
import PostgresReplication

package struct DrillRequest: Sendable {
  package enum Moment: Sendable {
    /// The end of the archived WAL.
    case latest
    case target(RecoveryTarget)
    /// A moment within the recoverable window, chosen by the seed.
    case random(seed: UInt64)
  }
  /// The scratch directory: everything that a drill writes is in it.
  package var directory: String
  package var moment = Moment.latest
  /// Restores from this region alone; `nil`: from whichever answers.
  package var region: String?
  package var backup: String?
  package var timeline: TimelineID?
  package var systemIdentifier: SystemIdentifier?
  /// Bytes of memory that the scratch server is set up for.
  package var memory: Int
  /// Bytes that the scratch directory may take.
  package var disk: Int64?
  package var workerCount = 4
  /// Bytes of memory for the restore's own buffers.
  package var bufferByteCount = 256 << 20
  package var assertions: [DrillAssertion] = []
  package var rtoObjective: Duration?
  package var rpoObjective: Duration?
  /// Where the cluster itself answers, if it does: its position in the WAL tells what a restore would lack.
  package var live: ConnectionInfo?
  /// Whether the report goes into the regions.
  package var stores = true
  package var toolVersion = ""

  package init(directory: String, memory: Int) {
    self.directory = directory
    self.memory = memory
  }
}

/// Places on this host that no drill may touch.
package struct LivePlaces: Sendable {
  /// The cluster's own data directory, where it is known.
  package var dataDirectory: String?
  /// The roots of regions that are directories.
  package var regionDirectories: [String]

  package init(dataDirectory: String?, regionDirectories: [String]) {
    self.dataDirectory = dataDirectory
    self.regionDirectories = regionDirectories
  }
}
