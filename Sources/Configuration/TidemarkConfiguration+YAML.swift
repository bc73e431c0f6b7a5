// Reads the configuration from YAML: known keys only, every value checked, every problem reported with its line.
// YAML's own errors (bad indentation, a key twice, a second document) are reported the same way.
import Diagnostics
import Glibc
import SystemSupport
import Yams

extension TidemarkConfiguration {
  /// Where the configuration is when nobody says otherwise.
  package static let defaultPath = "/etc/tidemark/tidemark.yaml"
  /// Larger than any sensible configuration.
  static let byteCountMax = 1 << 20

  /// The file to read: `option` (of `--config`), else `$TIDEMARK_CONFIG`, else ``defaultPath``.
  package static func path(option: String?) -> String {
    if let option { return option }
    guard let value = getenv("TIDEMARK_CONFIG").map({ String(cString: $0) }), !value.isEmpty else { return defaultPath }
    return value
  }

  /// Reads the file at `path`.
  /// - Throws: `configuration-unreadable`, `configuration-invalid`.
  package init(contentsOf path: String) throws(TidemarkError) {
    let bytes: [UInt8]
    do throws(TidemarkError) {
      bytes = try readFile(path, limit: Self.byteCountMax)
    } catch {
      throw Self.unreadable(path, error)
    }
    guard let yaml = String(validating: bytes, as: UTF8.self) else {
      throw TidemarkError(.configurationInvalid, "the configuration is not UTF-8 text", object: path)
    }
    self = try TidemarkConfiguration(yaml: yaml, file: path).inUnit(environment: Self.environmentValue)
  }

  /// Reads `yaml`; `file` is named in errors.
  /// - Throws: `configuration-invalid` with every problem found.
  package init(yaml: String, file: String) throws(TidemarkError) {
    let root = try Self.compose(yaml, file: file)
    let problems = ConfigurationProblems(file: file)
    let section = ConfigurationSection(root, path: "", keys: Self.keys, problems: problems)
    self.file = file
    cluster = section.name("cluster")
    postgres = Postgres(section.section("postgres", keys: Postgres.keys))
    if !section.has("repository") { section.refuse("repository", "is missing") }
    repository = Repository(section.section("repository", keys: Repository.keys))
    encryption = Encryption(section.section("encryption", keys: Encryption.keys))
    let compressionSection = section.section("compression", keys: ["level"])
    compression = Compression(level: compressionSection.number("level", in: 1...19) ?? 3)
    attachments = section.absolutePaths("attachments")
    limits = Limits(section.section("limits", keys: Limits.keys))
    let objectivesSection = section.section("objectives", keys: ["rto", "rpo"])
    objectives = Objectives(
      rto: objectivesSection.positiveDuration("rto"), rpo: objectivesSection.positiveDuration("rpo"))
    retention =
      section.has("retention") ? RetentionPolicy(section.section("retention", keys: RetentionPolicy.keys)) : nil
    retentionFile = section.absolutePath("retention-file")
    if section.has("retention"), section.has("retention-file") {
      section.refuse("retention-file", "stands beside 'retention': say it in one place")
    }
    status = StatusThresholds(section.section("status", keys: StatusThresholds.keys))
    stateDirectory = section.absolutePath("state-directory") ?? "/var/lib/tidemark"
    drill = Drill(section.section("drill", keys: Drill.keys))
    metricsDirectory =
      section.section("metrics", keys: ["textfile-directory"]).absolutePath("textfile-directory")
    let receivers = section.sections("notifications", keys: NotificationSettings.keys)
    notifications = receivers.map(NotificationSettings.init)
    for (index, receiver) in notifications.enumerated()
    where notifications[..<index].contains(where: { $0.name == receiver.name }) {
      receivers[index].refuse("name", "'\(receiver.name)' is the name of another notification already")
    }
    try problems.throwIfAny()
  }

  private static let keys = [
    "cluster", "postgres", "repository", "encryption", "compression", "attachments", "limits", "objectives",
    "retention", "retention-file", "status", "drill", "metrics", "notifications",
    "state-directory",
  ]

  static func unreadable(_ path: String, _ error: TidemarkError) -> TidemarkError {
    let next =
      switch error.code {
      case .localPermission: "run 'ls -l \(path)': the user that runs tidemark must be able to read it"
      default: "write it after docs/configuration.md, or name another file with --config or $TIDEMARK_CONFIG"
      }
    return TidemarkError(
      .configurationUnreadable, "cannot read the configuration", object: path, cause: error.cause, next: next)
  }

  static func compose(_ yaml: String, file: String) throws(TidemarkError) -> Node {
    let problems = ConfigurationProblems(file: file)
    do {
      // Every value is read as a text here: the expressions that tell YAML's types apart take wal-push 1.5 ms to compile.
      if let node = try Yams.compose(yaml: yaml, .basic), !yaml.isEmpty { return node }
      problems.add("", line: nil, "is empty")
    } catch let error as YamlError {
      // Only the problem and its place: the error's own text would repeat lines of the file.
      switch error {
      case .scanner(let context, let problem, let mark, _), .parser(let context, let problem, let mark, _),
        .composer(let context, let problem, let mark, _):
        let text = (context.map { "\($0.text) " } ?? "") + problem
        problems.add("", line: mark.line, "is not valid YAML at column \(mark.column): \(text)")
      case .duplicatedKeysInMapping(let duplicates, let context):
        problems.add(duplicates.joined(separator: ", "), line: context.mark.line, "is there twice")
      case .reader(let problem, _, _, _):
        problems.add("", line: nil, "is not valid YAML: \(problem)")
      default:
        problems.add("", line: nil, "is not valid YAML")
      }
    } catch {
      problems.add("", line: nil, "is not valid YAML")
    }
    try problems.throwIfAny()
    preconditionFailure("a problem was added on every path that comes here")
  }
}

extension TidemarkConfiguration.Postgres {
  static let keys = ["connection", "data-directory", "bin-directory", "os-user"]

  init(_ section: ConfigurationSection) {
    connection = section.text("connection") ?? ""
    if SecretKeys.inConnection(connection) {
      section.refuse("connection", "holds a password: remove it here and put it into ~/.pgpass (mode 0600)")
    }
    dataDirectory = section.absolutePath("data-directory")
    binDirectory = section.absolutePath("bin-directory")
    osUser = section.has("os-user") ? section.name("os-user") : "postgres"
  }
}

extension TidemarkConfiguration.Drill {
  static let keys = ["directory", "memory", "disk", "policy"]
  private static let memoryMin = 128 << 20

  init(_ section: ConfigurationSection) {
    directory = section.absolutePath("directory")
    memory = section.value("memory", Quantities.byteCount) ?? 1 << 30
    if memory < Self.memoryMin { section.refuse("memory", "is less than 128MiB") }
    let bytes = section.value("disk", Quantities.byteCount) ?? 0
    disk = bytes == 0 ? nil : bytes
    policy = section.absolutePath("policy")
  }
}

extension TidemarkConfiguration.Encryption {
  static let keys = ["recipients", "identity-file", "writer-key-file", "trusted-writers"]

  init(_ section: ConfigurationSection) {
    recipients = section.publicStrings("recipients", prefix: "tidemark-recipient-")
    identityFile = section.absolutePath("identity-file")
    writerKeyFile = section.absolutePath("writer-key-file")
    trustedWriters = section.publicStrings("trusted-writers", prefix: "tidemark-writer-")
  }
}

extension TidemarkConfiguration.Limits {
  static let keys = ["upload-rate", "memory", "workers", "wal-wait", "wal-ahead"]
  private static let memoryMin = 64 << 20
  private static let memoryMax = 1 << 40
  private static let workersMax = 1024
  private static let walAheadMax = 64

  init(_ section: ConfigurationSection) {
    let rate = section.value("upload-rate", Quantities.byteCount) ?? 0
    uploadRate = rate == 0 ? nil : rate
    memory = section.value("memory", Quantities.byteCount) ?? 256 << 20
    if !(Self.memoryMin...Self.memoryMax).contains(memory) {
      section.refuse("memory", "is not between 64MiB and 1TiB")
    }
    let count = section.number("workers", in: 0...Self.workersMax) ?? 0
    workers = count == 0 ? nil : count
    walWait = section.positiveDuration("wal-wait") ?? .seconds(600)
    walAhead = section.number("wal-ahead", in: 0...Self.walAheadMax) ?? 0
  }
}
