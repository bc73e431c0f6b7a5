// What the configuration file says, checked, with every default filled in. Plain data: no key is read here, no store is
// opened and no server is asked. There are no secrets in it by design, so that it can be printed and logged.
// docs/configuration.md describes every key for operators.

/// The whole configuration.
package struct TidemarkConfiguration: Sendable, Equatable {
  /// The file that it was read from, for messages.
  package var file: String
  /// The operator's name for the PostgreSQL cluster; a component of every object's key.
  package var cluster: String
  package var postgres: Postgres
  package var repository: Repository
  package var encryption: Encryption
  package var compression: Compression
  /// Absolute paths of files that each backup captures.
  package var attachments: [String]
  package var limits: Limits
  package var objectives: Objectives
  /// What `expire` keeps, where it is said here and not in ``retentionFile``.
  package var retention: RetentionPolicy?
  package var retentionFile: String?
  package var status: StatusThresholds
  package var drill: Drill
  /// Where node_exporter's textfile collector reads; `nil`: no metrics.
  package var metricsDirectory: String?
  package var notifications: [NotificationSettings]
  /// Where journals, locks and the agent's socket are.
  package var stateDirectory: String
  /// Where drills restore. A unit's state directory moves it, too, unless the configuration names another place.
  package var drillDirectory: String { drill.directory ?? "\(stateDirectory)/drill" }

  /// The server that is backed up, and how PostgreSQL's programs are run here.
  package struct Postgres: Sendable, Equatable {
    /// A libpq connection string; empty for libpq's own defaults. It holds no password.
    package var connection: String
    package var dataDirectory: String?
    package var binDirectory: String?
    /// Who runs PostgreSQL's programs when Tidemark itself runs as root.
    package var osUser: String
  }

  /// Where backups and WAL are kept.
  package struct Repository: Sendable, Equatable {
    /// The first components of every object's key, joined by `/`.
    package var prefix: String
    package var durability: Durability
    /// Whether credentials that may replace or delete objects are a finding of `check`.
    package var createOnly: Bool
    /// At least one, in the file's order, each name once.
    package var regions: [Region]
  }

  /// When an object counts as stored.
  package struct Durability: Sendable, Equatable {
    /// The number of regions that must hold an object: at least 1, at most the number of regions.
    package var required: Int
    /// When a region has been failing for longer than this, one region is enough and the rest is a debt.
    package var degradeAfter: Duration
  }

  /// To whom data is sealed and by whom it is signed. Empty lists: the public halves of the key files named here.
  package struct Encryption: Sendable, Equatable {
    /// Public strings, `tidemark-recipient-…`. Only their form is checked here.
    package var recipients: [String]
    package var identityFile: String?
    package var writerKeyFile: String?
    /// Public strings, `tidemark-writer-…`. Only their form is checked here.
    package var trustedWriters: [String]
  }

  package struct Compression: Sendable, Equatable {
    /// zstd's level, 1 to 19.
    package var level: Int
  }

  /// What Tidemark may use of the host. `nil`: no limit of ours.
  package struct Limits: Sendable, Equatable {
    /// Bytes per second for each region together with all others.
    package var uploadRate: Int?
    /// Bytes of buffers, whatever the database's size.
    package var memory: Int
    /// Threads that compress and seal; `nil`: one for each core.
    package var workers: Int?
    /// How long a backup waits for the archive to hold the WAL that it needs.
    package var walWait: Duration
    /// Segments that are fetched ahead of the one that a server asked for; 0 for none.
    package var walAhead: Int
  }

  /// How restores are rehearsed.
  package struct Drill: Sendable, Equatable {
    /// The scratch directory; `nil`: one below the state directory.
    package var directory: String?
    /// Bytes of memory that the scratch server is set up for.
    package var memory: Int
    /// Bytes that the scratch directory may take; `nil`: as much as its file system has.
    package var disk: Int?
    /// A file with the assertions to make.
    package var policy: String?
  }

  /// What restores and the archive are measured against.
  package struct Objectives: Sendable, Equatable {
    /// From the start of a restore to the first answered query.
    package var rto: Duration?
    /// From now back to the newest WAL that is stored.
    package var rpo: Duration?
  }
}
