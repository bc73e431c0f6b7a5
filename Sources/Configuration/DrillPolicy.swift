// What must be true of a restored cluster, as its owners state it: SQL queries with the answers that they expect. Read
// from a file of its own, since who knows the data need not be who runs the backups. docs/drills.md describes it.
import Diagnostics
import SystemSupport
import Yams

/// The assertions of `policies/drill.yaml`.
package struct DrillPolicy: Sendable, Equatable {
  package var assertions: [DrillAssertion]

  /// Reads the file at `path`.
  /// - Throws: `configuration-unreadable`, `configuration-invalid` with every problem.
  package init(contentsOf path: String) throws(TidemarkError) {
    let bytes: [UInt8]
    do throws(TidemarkError) { bytes = try readFile(path, limit: TidemarkConfiguration.byteCountMax) } catch {
      throw TidemarkError(
        .configurationUnreadable, "cannot read the drill's policy", object: path, cause: error.cause,
        next: "write it after policies/drill.yaml, or take 'drill.policy' out of the configuration")
    }
    guard let yaml = String(validating: bytes, as: UTF8.self) else {
      throw TidemarkError(.configurationInvalid, "the drill's policy is not UTF-8 text", object: path)
    }
    try self.init(yaml: yaml, file: path)
  }

  /// Reads `yaml`; `file` is named in errors.
  package init(yaml: String, file: String) throws(TidemarkError) {
    let problems = ConfigurationProblems(file: file)
    let section = ConfigurationSection(
      try TidemarkConfiguration.compose(yaml, file: file), path: "", keys: ["assertions"], problems: problems)
    let sections = section.sections("assertions", keys: DrillAssertion.keys)
    assertions = sections.compactMap(DrillAssertion.init)
    if !section.has("assertions") { section.refuse("assertions", "is missing") }
    for (index, assertion) in assertions.enumerated()
    where assertions[..<index].contains(where: { $0.name == assertion.name }) {
      sections[index].refuse("name", "'\(assertion.name)' is the name of another assertion already")
    }
    try problems.throwIfAny()
  }
}

/// One query and what its answer, the first column of its first row, must be.
package struct DrillAssertion: Sendable, Equatable {
  package enum Severity: String, Sendable, Codable {
    /// The drill fails.
    case finding
    /// It is reported.
    case remark
  }

  package enum Expectation: Sendable, Equatable, CustomStringConvertible {
    case equals(String)
    case atLeast(Double)
    case atMost(Double)
    /// A regular expression that is found somewhere in the answer.
    case matches(String)
    /// A row whose first column is neither NULL nor the empty text.
    case notEmpty

    package var description: String {
      func plain(_ number: Double) -> String { Int64(exactly: number).map { "\($0)" } ?? "\(number)" }
      switch self {
      case .equals(let text): return "equals \(text)"
      case .atLeast(let number): return "at least \(plain(number))"
      case .atMost(let number): return "at most \(plain(number))"
      case .matches(let pattern): return "matches \(pattern)"
      case .notEmpty: return "not empty"
      }
    }

    /// Whether `answer` is as expected; `nil` stands for NULL and for no row at all.
    package func holds(for answer: String?) -> Bool {
      guard let answer else { return false }
      switch self {
      case .equals(let text): return answer == text
      case .atLeast(let number): return Self.number(answer).map { $0 >= number } ?? false
      case .atMost(let number): return Self.number(answer).map { $0 <= number } ?? false
      // The pattern was tried when the policy was read.
      case .matches(let pattern): return (try? Regex(pattern)).map { answer.contains($0) } ?? false
      case .notEmpty: return !answer.isEmpty
      }
    }

    static func number(_ text: String) -> Double? { Double(text).flatMap { $0.isFinite ? $0 : nil } }
  }

  package var name: String
  package var database: String
  package var query: String
  package var expectation: Expectation
  package var severity: Severity
  package var timeout: Duration

  static let keys = ["name", "database", "query", "expectation", "severity", "timeout"]
  private static let expectationKeys = ["equals", "at-least", "at-most", "matches", "not-empty"]

  /// `nil` when something is wrong, which is then among the section's problems.
  init?(_ section: ConfigurationSection) {
    name = section.requiredText("name")
    database = section.requiredText("database")
    if !section.has("query") { section.refuse("query", "is missing") }
    query = section.block("query") ?? ""
    timeout = section.positiveDuration("timeout") ?? .seconds(60)
    severity = .finding
    if let text = section.text("severity") {
      if let known = Severity(rawValue: text) {
        severity = known
      } else {
        section.refuse("severity", "is neither 'finding' nor 'remark'")
      }
    }
    if !section.has("expectation") { section.refuse("expectation", "is missing") }
    guard
      let expectation = Self.expectation(section.section("expectation", keys: Self.expectationKeys), of: section)
    else { return nil }
    self.expectation = expectation
  }

  private static func expectation(
    _ section: ConfigurationSection, of assertion: ConfigurationSection
  ) -> Expectation? {
    let given = expectationKeys.filter(section.has)
    guard let key = given.first, given.count == 1 else {
      if assertion.has("expectation") {
        assertion.refuse("expectation", "must have exactly one of: \(expectationKeys.joined(separator: ", "))")
      }
      return nil
    }
    switch key {
    case "equals": return section.text(key).map(Expectation.equals)
    case "at-least", "at-most":
      let number: Double? = section.value(key) { text throws(Refusal) in
        guard let number = Expectation.number(text) else { throw Refusal("is not a number") }
        return number
      }
      return number.map(key == "at-least" ? Expectation.atLeast : Expectation.atMost)
    case "matches":
      return section.value(key) { text throws(Refusal) in
        do { _ = try Regex(text) } catch { throw Refusal("is not a regular expression") }
        return .matches(text)
      }
    default:
      if section.text(key) != "true" { section.refuse(key, "can only be true") }
      return .notEmpty
    }
  }
}
