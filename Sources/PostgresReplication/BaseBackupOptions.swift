// What is asked of BASE_BACKUP, and the command's text.
import Diagnostics
import PostgresFormats

/// The options of a base backup.
/// Source: PostgreSQL manual, "Streaming Replication Protocol", BASE_BACKUP; `parse_basebackup_options` in
/// src/backend/backup/basebackup.c.
package struct BaseBackupOptions: Sendable {
  /// How the server makes the checkpoint at which the backup starts.
  package enum Checkpoint: String, Sendable {
    /// At once, at the cost of a burst of writes.
    case fast
    /// Spread over the time that `checkpoint_completion_target` sets.
    case spread
  }

  /// What `backup_label` and `pg_stat_progress_basebackup` call the backup: 1 to 1024 bytes, no control characters.
  package var label: String
  package var checkpoint = Checkpoint.fast
  /// The server's limit for the transfer in KiB/s, 32 to 1 048 576; `nil` for none.
  package var transferRateMax: Int?
  /// Whether the server verifies page checksums while it reads (it does so only in a cluster that has them).
  package var verifiesChecksums = true
  /// How long the server may say nothing between two messages of the stream.
  package var silenceLimit: Duration = .seconds(120)
  /// How long the server may take until the stream begins: the checkpoint, and the sum of all file sizes.
  package var startLimit: Duration = .seconds(7200)

  package init(label: String) { self.label = label }

  /// The command for the server.
  /// - Throws: ``ErrorCode/usage`` for a label or a rate that the server would refuse.
  func command() throws(TidemarkError) -> String {
    guard (1...1024).contains(label.utf8.count), label.utf8.allSatisfy({ $0 >= 32 && $0 != 127 }) else {
      throw TidemarkError(
        .usage, "the backup's label must have 1 to 1024 bytes and no control characters",
        object: String(label.prefix(80)))
    }
    var options = [
      "LABEL \(quoted(label))", "PROGRESS true", "CHECKPOINT '\(checkpoint.rawValue)'", "WAIT false",
      "MANIFEST 'yes'", "MANIFEST_CHECKSUMS 'CRC32C'", "TABLESPACE_MAP true",
      "VERIFY_CHECKSUMS \(verifiesChecksums)",
    ]
    if let transferRateMax {
      guard (32...1_048_576).contains(transferRateMax) else {
        throw TidemarkError(
          .usage, "the transfer rate must lie between 32 and 1048576 KiB/s", object: "\(transferRateMax)")
      }
      options.append("MAX_RATE \(transferRateMax)")
    }
    return "BASE_BACKUP ( \(options.joined(separator: ", ")) )"
  }

  /// A string constant of the replication grammar (repl_scanner.l): quotes are doubled, backslashes mean themselves.
  private func quoted(_ text: String) -> String {
    "'\(text.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "''"))'"
  }
}
