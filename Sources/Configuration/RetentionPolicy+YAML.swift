// Reads the retention policy: the `retention` section of the configuration, or the same keys in a file of its own.
import Diagnostics
import SystemSupport
import Yams

extension RetentionPolicy {
  static let keys = ["newest", "count", "window", "daily", "weekly", "monthly", "yearly", "grace"]
  private static let countMax = 100_000

  init(_ section: ConfigurationSection) {
    newest = section.number("newest", in: 1...Self.countMax) ?? newest
    count = section.number("count", in: 1...Self.countMax)
    window = section.positiveDuration("window")
    daily = section.number("daily", in: 0...Self.countMax) ?? 0
    weekly = section.number("weekly", in: 0...Self.countMax) ?? 0
    monthly = section.number("monthly", in: 0...Self.countMax) ?? 0
    yearly = section.number("yearly", in: 0...Self.countMax) ?? 0
    grace = section.value("grace", Quantities.duration) ?? grace
  }

  /// Reads a policy's own file, such as `policies/retention.yaml`.
  /// - Throws: `configuration-unreadable`, `configuration-invalid` with every problem.
  package init(contentsOf path: String) throws(TidemarkError) {
    let bytes: [UInt8]
    do throws(TidemarkError) { bytes = try readFile(path, limit: 1 << 20) } catch {
      throw TidemarkError(
        .configurationUnreadable, "cannot read the retention policy", object: path, cause: error.cause,
        next: "write it after policies/retention.yaml, or correct 'retention-file'")
    }
    guard let yaml = String(validating: bytes, as: UTF8.self) else {
      throw TidemarkError(.configurationInvalid, "the retention policy is not UTF-8 text", object: path)
    }
    try self.init(yaml: yaml, file: path)
  }

  /// Reads `yaml`; `file` is named in errors.
  package init(yaml: String, file: String) throws(TidemarkError) {
    let root = try TidemarkConfiguration.compose(yaml, file: file)
    let problems = ConfigurationProblems(file: file)
    self.init(ConfigurationSection(root, path: "", keys: Self.keys, problems: problems))
    try problems.throwIfAny()
  }
}

extension StatusThresholds {
  static let keys = ["backup-age", "wal-age", "drill-age", "verify-age", "debts"]

  init(_ section: ConfigurationSection) {
    backupAge = section.positiveDuration("backup-age") ?? backupAge
    walAge = section.positiveDuration("wal-age")
    drillAge = section.positiveDuration("drill-age")
    verifyAge = section.positiveDuration("verify-age")
    debts = section.number("debts", in: 0...1_000_000) ?? 0
  }
}
