// What the server warns of while it sends a base backup: files that it leaves out, and pages with wrong checksums. Nobody
// else gets to know.
import PostgresReplication
import Synchronization

final class ServerWarnings: Sendable {
  /// A damaged disk has one for each page (PostgreSQL names five of one file).
  private static let keptCountMax = 50

  private let state = Mutex<(kept: [String], total: Int)>(([], 0))

  func note(_ message: ServerMessage) {
    guard message.severity == "WARNING" else { return }
    state.withLock {
      $0.total += 1
      if $0.kept.count < Self.keptCountMax { $0.kept.append("the server warned: \(message.message)") }
    }
  }

  var remarks: [String] {
    state.withLock {
      $0.total == $0.kept.count ? $0.kept : $0.kept + ["the server warned \($0.total - $0.kept.count) times more"]
    }
  }
}
