// What the running cluster had committed when a drill began, so that the drill can tell what a restore would have lost.
// Time alone can't: on an idle cluster the newest commit is old, and nothing is lost all the same.
import Diagnostics
import PostgresFormats
import PostgresReplication

/// The running cluster at one moment. It is asked, never needed: in an emergency there is none.
struct LiveCluster: Sendable {
  /// How many of the newest transactions are compared. When more are lost, that these are is enough to say.
  private static let transactionCount = 10_000

  let systemIdentifier: String
  let lsn: LSN
  /// Of the newest transactions those that were committed.
  let committed: [UInt64]

  /// `nil` when it doesn't answer, or is a standby.
  init?(_ connection: ConnectionInfo) {
    // A server that can't be asked, or answers something else, is no live cluster to compare with: the report says so.
    guard
      let live = try? PostgresConnection(connection.with("connect_timeout", "3"), silenceLimit: .seconds(20)),
      let row = try? live.query(
        """
        SELECT system_identifier, pg_current_wal_lsn(), pg_snapshot_xmax(pg_current_snapshot())
        FROM pg_control_system() WHERE NOT pg_is_in_recovery()
        """
      ).rows.first, row.count == 3, let identifier = row[0],
      // What isn't a position is no answer.
      let lsn = row[1].flatMap({ try? LSN(text: $0) }),
      // Transactions below 3 are PostgreSQL's own (transam.h, FirstNormalTransactionId).
      let rows = try? live.query(
        """
        SELECT x FROM generate_series(greatest(3, $1::bigint - \(Self.transactionCount)), $1::bigint - 1) x
        WHERE pg_xact_status(x::text::xid8) = 'committed'
        """, [row[2]]
      ).rows
    else { return nil }
    systemIdentifier = identifier
    self.lsn = lsn
    committed = rows.compactMap { $0[0].flatMap { UInt64($0) } }
  }

  /// How many of them the restored server lacks.
  /// - Parameter first: the first transaction of its own, after its recovery.
  func lost(by restored: PostgresConnection, from first: UInt64) throws(TidemarkError) -> Int? {
    // What the restored server's own transactions did says nothing about those of the same numbers.
    let list = "{" + committed.map(String.init).joined(separator: ",") + "}"
    let answer = try restored.query(
      """
      SELECT count(*) FROM unnest($1::bigint[]) x
      WHERE CASE WHEN x < $2::bigint THEN pg_xact_status(x::text::xid8) END IS DISTINCT FROM 'committed'
      """, [list, String(first)]
    ).scalar
    return answer.flatMap { Int($0) }
  }
}
