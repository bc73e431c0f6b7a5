// The metrics that Tidemark leaves behind. A name never changes its meaning or unit; docs/metrics.md lists them all.

package enum Metric: String, Sendable, CaseIterable {
  package enum Kind: String, Sendable {
    case gauge, counter
  }

  // Every command.
  case commandLastRun = "tidemark_command_last_run_timestamp_seconds"
  case commandLastSuccess = "tidemark_command_last_success_timestamp_seconds"
  case commandDuration = "tidemark_command_last_duration_seconds"
  case commandExitStatus = "tidemark_command_last_exit_status"
  case commandRuns = "tidemark_command_runs_total"
  case regionBytes = "tidemark_region_bytes"
  case regionRequests = "tidemark_region_requests"
  case regionFailures = "tidemark_region_failures"

  // Backups.
  case backupLastSuccess = "tidemark_backup_last_success_timestamp_seconds"
  case backupDuration = "tidemark_backup_duration_seconds"
  case backupBytes = "tidemark_backup_bytes"
  case backupNewBytes = "tidemark_backup_new_bytes"
  case backupStoredBytes = "tidemark_backup_stored_bytes"
  case backupWALWait = "tidemark_backup_wal_wait_seconds"
  case backupSuspect = "tidemark_backup_suspect"

  // WAL.
  case walPushLastSuccess = "tidemark_wal_push_last_success_timestamp_seconds"
  case walPushDuration = "tidemark_wal_push_duration_seconds"
  case walPushFiles = "tidemark_wal_push_files_total"
  case walPushStoredBytes = "tidemark_wal_push_stored_bytes_total"

  // Restores and drills.
  case restoreRTO = "tidemark_restore_rto_seconds"
  case drillLastRun = "tidemark_drill_last_run_timestamp_seconds"
  case drillLastSuccess = "tidemark_drill_last_success_timestamp_seconds"
  case drillRTO = "tidemark_drill_rto_seconds"
  case drillRPO = "tidemark_drill_rpo_seconds"
  case drillFindings = "tidemark_drill_findings"
  case drillPhase = "tidemark_drill_phase_seconds"

  // Checks and comparisons.
  case findings = "tidemark_findings"

  // The state of the host, whichever command looked last.
  case debts = "tidemark_debts"
  case regionFailing = "tidemark_region_failing_seconds"
  case objectiveRTO = "tidemark_objective_rto_seconds"
  case objectiveRPO = "tidemark_objective_rpo_seconds"

  package var kind: Kind { rawValue.hasSuffix("_total") ? .counter : .gauge }

  /// Prometheus wants the same words in every file.
  package var help: String {
    switch self {
    case .commandLastRun: "When the command ended last, whatever its result."
    case .commandLastSuccess: "When the command ended last with status 0."
    case .commandDuration: "How long its last run took."
    case .commandExitStatus: "The exit status of its last run (docs/exit-statuses.md)."
    case .commandRuns: "Runs by result: ok, findings or error."
    case .regionBytes: "Bytes that its last run moved to and from the region."
    case .regionRequests: "Requests of its last run to the region."
    case .regionFailures: "Requests of its last run that failed."
    case .backupLastSuccess: "When the last complete backup ended."
    case .backupDuration: "How long the last complete backup took."
    case .backupBytes: "Bytes of the database's files in it."
    case .backupNewBytes: "Bytes of blocks that earlier backups didn't have."
    case .backupStoredBytes: "Bytes that it stored in each region."
    case .backupWALWait: "How long it waited for its WAL to be archived."
    case .backupSuspect: "1 when the server found damaged pages in it."
    case .walPushLastSuccess: "When a WAL file was archived last."
    case .walPushDuration: "How long that took."
    case .walPushFiles: "WAL files that were archived."
    case .walPushStoredBytes: "Bytes of sealed WAL that were stored in each region."
    case .restoreRTO: "The recovery time of the last restore that came up."
    case .drillLastRun: "When a drill from the region ended last."
    case .drillLastSuccess: "When one without findings ended last."
    case .drillRTO: "The recovery time of the last drill that came up."
    case .drillRPO: "The data loss that the last drill to the latest moment measured."
    case .drillFindings: "Findings of the last drill."
    case .drillPhase: "How long each phase of the last drill took."
    case .findings: "Findings of the command's last complete run."
    case .debts: "Objects that the region lacks, as far as this host knows."
    case .regionFailing: "For how long the region has been failing; 0 when it answers."
    case .objectiveRTO: "The configured recovery time objective."
    case .objectiveRPO: "The configured recovery point objective."
    }
  }
}
