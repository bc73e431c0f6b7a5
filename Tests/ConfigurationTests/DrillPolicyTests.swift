// The drill's policy: what it may say, what is refused, and which answers fulfil it.
import Diagnostics
import TestSupport
import Testing

@testable import Configuration

@Suite("The drill's policy")
struct DrillPolicyTests {
  private func policy(_ lines: String) throws -> DrillPolicy {
    try DrillPolicy(yaml: "assertions:\n  - {name: a, database: d, query: SELECT 1, \(lines)}\n", file: "policy.yaml")
  }

  @Test("the example that comes with Tidemark is valid") func example() throws {
    let policy = try DrillPolicy(contentsOf: "\(TestTools.packageRoot)/policies/drill.yaml")
    #expect(policy.assertions.count == 5)
    #expect(policy.assertions[1].query.contains("\n"))
    #expect(policy.assertions[1].timeout == .seconds(300))
    #expect(policy.assertions[3].severity == .remark)
  }

  @Test(
    "an expectation holds for its answers and for no others",
    arguments: [
      ("equals: 7", ["7"], ["7.0", "8", "", nil]),
      ("at-least: 1.5", ["1.5", "2", "1e3"], ["1", "", "many", "inf", nil]),
      ("at-most: 0", ["0", "-3"], ["1", "none", nil]), ("matches: '^a.c$'", ["abc"], ["xabc", "", nil]),
      ("not-empty: true", ["f", " "], ["", nil]),
    ] as [(String, [String?], [String?])])
  func expectations(_ text: String, _ holding: [String?], _ failing: [String?]) throws {
    let expectation = try policy("expectation: {\(text)}").assertions[0].expectation
    for answer in holding { #expect(expectation.holds(for: answer), "\(answer ?? "NULL")") }
    for answer in failing { #expect(!expectation.holds(for: answer), "\(answer ?? "NULL")") }
  }

  @Test(
    "what can't be meant is refused with its place",
    arguments: [
      ("expectation: {equals: 1, at-least: 2}", "exactly one of"), ("expectation: {at-least: many}", "is not a number"),
      ("expectation: {matches: '('}", "is not a regular expression"), ("severity: finding", "expectation is missing"),
      ("expectation: {not-empty: false}", "can only be true"),
      ("expectation: {equals: 1}, severity: fatal", "neither 'finding' nor 'remark'"),
      ("expectation: {equal: 1}", "nearest known one is 'equals'"),
      ("expectation: {equals: 1}, timeout: 5", "duration"),
    ])
  func refusals(_ lines: String, _ words: String) throws {
    let error = try #require(throws: TidemarkError.self) { try policy(lines) }
    #expect(error.code == .configurationInvalid)
    #expect(error.cause?.contains(words) == true, "\(error.cause ?? "")")
    #expect(error.cause?.contains("line 2") == true, "\(error.cause ?? "")")
  }

  @Test("two assertions of one name, and a file without any, are refused") func names() throws {
    let twice =
      "assertions:\n"
      + String(
        repeating: "  - {name: a, database: d, query: SELECT 1, expectation: {equals: 1}}\n", count: 2)
    #expect(throws: TidemarkError.self) { try DrillPolicy(yaml: twice, file: "policy.yaml") }
    #expect(throws: TidemarkError.self) { try DrillPolicy(yaml: "assertion: []\n", file: "policy.yaml") }
  }
}
