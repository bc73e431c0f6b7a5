// A backup from a standby: the standby can't finish the WAL segment that the backup ends in, and its promotion spoils
// the wait for it. So the primary is asked to finish it, where it can be reached, and a promotion ends the wait at once.
import Diagnostics
import PostgresFormats
import PostgresReplication

struct StandbySource {
  let connection: ConnectionInfo

  /// Has the primary, from which the standby receives its WAL, finish its current segment. It is reached with the
  /// standby's own connection parameters, at the place that the standby names.
  /// - Returns: what stood in the way, for the operator; `nil` when it was done.
  func finishSegmentOnPrimary() -> String? {
    var place = "the primary"
    do throws(TidemarkError) {
      let row = try PostgresConnection(connection).query(
        "SELECT sender_host, sender_port FROM pg_stat_wal_receiver WHERE status = 'streaming'"
      ).rows.first
      guard let row, row.count == 2, let host = row[0], let port = row[1] else {
        return "the standby doesn't say from which primary it receives its WAL (it may replay from the archive, "
          + "or the role lacks pg_monitor): the backup waits until the primary finishes its segment by itself"
      }
      place = "the primary at \(host), port \(port)"
      let primary = try PostgresConnection(
        connection.without("hostaddr").with("host", host).with("port", port))
      guard try primary.query("SELECT pg_is_in_recovery()").scalar == "f" else {
        return "\(place) is a standby itself: the backup waits until the primary finishes its segment by itself"
      }
      _ = try primary.query("SELECT pg_switch_wal()")
      return nil
    } catch {
      return "\(place) can't be asked to finish its WAL segment, the backup waits until it does: \(error.description); "
        + "GRANT EXECUTE ON FUNCTION pg_switch_wal() TO the role of this backup"
    }
  }

  /// - Throws: `stream-invalid` when the server is no standby any more. One that can't be asked is taken for one: its WAL
  ///   may arrive all the same.
  func requireStandby() throws(TidemarkError) {
    guard let connection = try? PostgresConnection(connection),
      let answer = try? connection.query("SELECT pg_is_in_recovery()").scalar, answer == "f"
    else { return }
    throw TidemarkError(
      .streamInvalid, "the standby was promoted before the backup's WAL was archived",
      object: connection.serverName, cause: "the segment that the backup ends in may never be finished",
      kept: "the earlier backups; what was uploaded is used by the next one", next: "take the backup again")
  }
}
