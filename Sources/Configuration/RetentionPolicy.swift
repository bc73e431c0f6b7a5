// Which backups are kept, as the operator says it: plain data, in the configuration's `retention` section or in a file
// of its own. docs/configuration.md describes each key.

/// What `expire` keeps. A backup is kept when any of the rules keeps it.
package struct RetentionPolicy: Sendable, Equatable {
  /// The newest complete backups without a suspicion that are never deleted, whatever the other rules say. At least 1.
  package var newest = 2
  /// By number: that many of the newest.
  package var count: Int?
  /// By age: every moment from now back to this can be recovered.
  package var window: Duration?
  /// Grandfather, father, son: the last backup of so many days, weeks, months and years that have one, in UTC.
  package var daily = 0
  package var weekly = 0
  package var monthly = 0
  package var yearly = 0
  /// How long data that nothing names any more stays, for whoever began to use it before.
  package var grace = Duration.seconds(86400)

  package init() {}

  /// Whether any rule says what is to be kept. Without one nothing may be deleted.
  package var hasRules: Bool {
    count != nil || window != nil || daily + weekly + monthly + yearly > 0
  }
}

/// Above which age or count `status` asks for a person. `nil`: not looked at.
package struct StatusThresholds: Sendable, Equatable {
  /// Of the newest complete backup.
  package var backupAge: Duration? = .seconds(26 * 3600)
  /// Of the newest archived WAL segment. Off: a server that nobody writes to archives none.
  package var walAge: Duration?
  /// Of the newest drill.
  package var drillAge: Duration?
  /// Of the last whole or sampled verification on this host.
  package var verifyAge: Duration?
  package var debts = 0

  package init() {}
}
