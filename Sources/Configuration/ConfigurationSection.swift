// One mapping of the configuration's YAML, read key by key. A key that isn't known, a value of the wrong kind and a
// secret are problems; reading goes on with the default, so that all problems are found at once. Values are not
// repeated in messages where they could be secrets pasted to the wrong place.
import Yams

/// A mapping at a known place, with the keys that may be in it.
struct ConfigurationSection {
  /// The full path, empty for the whole file: `repository.regions[0]`.
  let path: String
  /// The line of the mapping; `nil` when it isn't in the file.
  let line: Int?
  let problems: ConfigurationProblems
  private let keys: [String]
  private var values: [String: Node] = [:]

  /// - Parameter node: the mapping, or `nil` when it isn't in the file: every key is then absent.
  init(_ node: Node?, path: String, keys: [String], problems: ConfigurationProblems) {
    self.path = path
    self.line = node?.mark?.line
    self.keys = keys
    self.problems = problems
    guard let node else { return }
    guard let mapping = node.mapping else {
      problems.add(path, line: line, "must be a mapping of keys to values")
      return
    }
    for (key, value) in mapping {
      let place = key.mark?.line
      guard let name = key.scalar?.string else {
        problems.add(path, line: place, "has a key that is not a plain text")
        continue
      }
      guard keys.contains(name) else {
        problems.add(pathOf(name), line: place, SecretKeys.remedy(name) ?? unknown(name))
        continue
      }
      if value.isEmptyScalar {
        problems.add(pathOf(name), line: place, "has no value: give one, or remove the key")
      } else {
        values[name] = value
      }
    }
  }

  /// Whether `key` is there with a value of whatever kind.
  func has(_ key: String) -> Bool { node(key) != nil }

  func pathOf(_ key: String) -> String { path.isEmpty ? key : "\(path).\(key)" }

  /// Notes a problem with `key`, at its line if it is in the file.
  func refuse(_ key: String, _ reason: String) {
    problems.add(pathOf(key), line: node(key)?.mark?.line ?? line, reason)
  }

  /// The text of `key`, or `nil` when it is absent.
  func text(_ key: String) -> String? {
    guard let node = node(key) else { return nil }
    guard let scalar = node.scalar else {
      refuse(key, "must be one value, not a \(node.mapping == nil ? "list" : "mapping")")
      return nil
    }
    if scalar.string.utf8.contains(where: { $0 < 0x20 || $0 == 0x7F }) {
      refuse(key, "holds a line break or a control character")
      return nil
    }
    return scalar.string
  }

  /// The text of `key`, which may have several lines.
  func block(_ key: String) -> String? {
    guard let node = node(key) else { return nil }
    guard let scalar = node.scalar else {
      refuse(key, "must be one text")
      return nil
    }
    if scalar.string.utf8.contains(where: { $0 < 0x20 && $0 != 0x0A && $0 != 0x09 || $0 == 0x7F }) {
      refuse(key, "holds a control character")
      return nil
    }
    return scalar.string
  }

  /// The text of `key`, whose absence is a problem. Returns the empty text then.
  func requiredText(_ key: String) -> String {
    if !has(key) { refuse(key, "is missing") }
    return text(key) ?? ""
  }

  /// `text(key)` put through `parse`, whose refusal is a problem.
  func value<Value>(_ key: String, _ parse: (String) throws(Refusal) -> Value) -> Value? {
    guard let text = text(key) else { return nil }
    do throws(Refusal) {
      return try parse(text)
    } catch {
      refuse(key, error.reason)
      return nil
    }
  }

  /// The texts of the list `key` with each one's path and line; none when it is absent.
  func texts(_ key: String) -> [Element] {
    elements(key).compactMap { node, path in
      guard let text = node.scalar?.string, !node.isEmptyScalar else {
        problems.add(path, line: node.mark?.line, "must be one value")
        return nil
      }
      return Element(text: text, path: path, line: node.mark?.line)
    }
  }

  struct Element {
    let text: String
    let path: String
    let line: Int?
  }

  /// The mapping `key`, with its own known keys.
  func section(_ key: String, keys: [String]) -> ConfigurationSection {
    ConfigurationSection(node(key), path: pathOf(key), keys: keys, problems: problems)
  }

  /// The mappings of the list `key`.
  func sections(_ key: String, keys: [String]) -> [ConfigurationSection] {
    elements(key).map { ConfigurationSection($0, path: $1, keys: keys, problems: problems) }
  }

  private func elements(_ key: String) -> [(Node, String)] {
    guard let node = node(key) else { return [] }
    guard let sequence = node.sequence else {
      refuse(key, "must be a list")
      return []
    }
    return sequence.enumerated().map { ($1, "\(pathOf(key))[\($0)]") }
  }

  private func node(_ key: String) -> Node? {
    precondition(keys.contains(key), "\(key) is not among the section's known keys")
    return values[key]
  }

  private func unknown(_ name: String) -> String {
    let nearest = NearestKey.find(name, in: keys).map { ": the nearest known one is '\($0)'" } ?? ""
    return "is an unknown key\(nearest)"
  }
}

extension Node {
  /// `key:` with nothing behind it, or YAML's null. A quoted "" is a value.
  fileprivate var isEmptyScalar: Bool {
    guard let scalar, scalar.style == .plain || scalar.style == .any else { return false }
    return ["", "~", "null", "Null", "NULL"].contains(scalar.string)
  }
}
