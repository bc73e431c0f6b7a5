// Collects everything that is wrong with a configuration, so that an operator corrects it in one go, and turns it into
// one error with line numbers and the full path of each key.
import Diagnostics

/// The problems found so far in one file. Used by one thread while the file is read.
final class ConfigurationProblems {
  private struct Problem: Equatable {
    let line: Int?
    let text: String
  }

  private let file: String
  private var problems: [Problem] = []

  init(file: String) {
    self.file = file
  }

  /// Notes that the key at `path` `reason`, which is the rest of the sentence: "is not a number".
  func add(_ path: String, line: Int?, _ reason: String) {
    let problem = Problem(line: line, text: path.isEmpty ? "the file \(reason)" : "\(path) \(reason)")
    // A key that is looked at twice is wrong once.
    if !problems.contains(problem) { problems.append(problem) }
  }

  /// - Throws: `configuration-invalid` with every problem, in the order of the file, when there are any.
  func throwIfAny() throws(TidemarkError) {
    if problems.isEmpty { return }
    // Problems without a line are about what is missing, and come last.
    let sorted = problems.enumerated().sorted { ($0.1.line ?? .max, $0.0) < ($1.1.line ?? .max, $1.0) }
    let lines = sorted.map { _, problem in (problem.line.map { "line \($0): " } ?? "") + problem.text }
    throw TidemarkError(
      .configurationInvalid,
      lines.count == 1 ? "the configuration is wrong" : "the configuration has \(lines.count) problems",
      object: file, cause: lines.joined(separator: "\n       "),
      next: "correct the file, then run 'tidemark check'")
  }
}
