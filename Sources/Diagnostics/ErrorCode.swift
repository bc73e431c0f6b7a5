// Stable codes of errors: tests, logs and JSON name them, so a code never changes its meaning.

/// What kind of thing went wrong. The raw value is stable and appears in logs and JSON.
package enum ErrorCode: String, Sendable, CaseIterable {
  // Usage and configuration.
  case usage = "usage"
  case configurationInvalid = "configuration-invalid"
  case configurationUnreadable = "configuration-unreadable"

  // Object stores.
  case objectNotFound = "object-not-found"
  case regionUnreachable = "region-unreachable"
  case regionThrottled = "region-throttled"
  case accessDenied = "access-denied"
  case credentialsMissing = "credentials-missing"
  case bucketMissing = "bucket-missing"
  case storeAnswerInvalid = "store-answer-invalid"
  case storeRefused = "store-refused"
  case clockSkewed = "clock-skewed"

  // Sealed objects and keys.
  case objectDamaged = "object-damaged"
  case signatureInvalid = "signature-invalid"
  case writerNotTrusted = "writer-not-trusted"
  case noKeyOpens = "no-key-opens"
  case keyFileInvalid = "key-file-invalid"
  case keyFileModeOpen = "key-file-mode-open"
  case formatVersionUnknown = "format-version-unknown"

  // PostgreSQL.
  case serverUnreachable = "server-unreachable"
  case serverRefused = "server-refused"
  case serverUnsuitable = "server-unsuitable"
  case serverSilent = "server-silent"
  /// The server answered a command with an error of its own: a full disk, a file it can't read.
  case serverFailed = "server-failed"
  case streamInvalid = "stream-invalid"
  case manifestMismatch = "manifest-mismatch"
  case checksumFailures = "checksum-failures"
  case recoveryFailed = "recovery-failed"

  // WAL.
  case walFileInvalid = "wal-file-invalid"
  case walFileForeign = "wal-file-foreign"
  case walConflict = "wal-conflict"
  case walNotArchived = "wal-not-archived"
  case walAbsent = "wal-absent"
  case walHole = "wal-hole"

  // Repository.
  case repositoryMissing = "repository-missing"
  case repositoryForeign = "repository-foreign"
  case backupNotFound = "backup-not-found"
  case backupProtected = "backup-protected"
  case lineageInUse = "lineage-in-use"
  case leaseExpired = "lease-expired"
  case durabilityNotReached = "durability-not-reached"
  case systemIdentifierForeign = "system-identifier-foreign"

  // Restore.
  case targetUnreachable = "target-unreachable"
  case targetNotEmpty = "target-not-empty"
  case targetInUse = "target-in-use"
  case pathUnsafe = "path-unsafe"
  case spaceInsufficient = "space-insufficient"

  // The host.
  case localIO = "local-io"
  case localPermission = "local-permission"
  case locked = "locked"
  case interrupted = "interrupted"
  case internalFault = "internal-fault"

  /// The exit status of a command that ends with an error of this code.
  package var exitStatus: ExitStatus {
    switch self {
    case .usage: .usage
    case .configurationInvalid, .configurationUnreadable, .bucketMissing: .configuration
    case .objectDamaged, .signatureInvalid, .writerNotTrusted, .formatVersionUnknown, .manifestMismatch,
      .checksumFailures, .streamInvalid, .walHole, .objectNotFound, .recoveryFailed:
      .damaged
    case .regionUnreachable, .regionThrottled, .storeAnswerInvalid, .storeRefused, .serverUnreachable, .serverSilent,
      .serverFailed, .durabilityNotReached, .walNotArchived, .clockSkewed:
      .unavailable
    case .accessDenied, .credentialsMissing, .noKeyOpens, .keyFileInvalid, .keyFileModeOpen, .serverRefused,
      .localPermission:
      .permission
    case .walFileInvalid, .walFileForeign, .walConflict, .systemIdentifierForeign, .repositoryForeign,
      .targetUnreachable, .targetNotEmpty, .targetInUse, .pathUnsafe, .spaceInsufficient, .backupNotFound,
      .repositoryMissing, .serverUnsuitable, .walAbsent, .backupProtected,
      .lineageInUse:
      .refused
    case .localIO: .localIO
    case .locked, .interrupted, .leaseExpired: .tryAgain
    case .internalFault: .software
    }
  }
}
