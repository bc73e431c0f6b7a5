// Keys that mean the same in every store: no empty component, no "." or "..", only characters that need no escaping
// anywhere, so that a key can be a file's path and never leaves the store's directory.
import Diagnostics

/// The name of an object within a store: components of `A–Z a–z 0–9 . _ -`, joined by `/`, 1000 bytes at most.
package struct ObjectKey: Hashable, Sendable, Comparable, CustomStringConvertible {
  package let text: String

  /// - Throws: `usage` when the text isn't a key.
  package init(_ text: String) throws(TidemarkError) {
    guard Self.isValid(text) else {
      throw TidemarkError(
        .usage, "not a valid object key", object: text, next: "use letters, digits, '.', '_', '-' and '/' alone")
    }
    self.text = text
  }

  /// A key of a form that the code decides.
  package init(trusted text: String) {
    precondition(Self.isValid(text), "not a valid object key: \(text)")
    self.text = text
  }

  package var description: String { text }

  package static func < (left: ObjectKey, right: ObjectKey) -> Bool {
    left.text.utf8.lexicographicallyPrecedes(right.text.utf8)
  }

  package static func isValid(_ text: String) -> Bool {
    guard (1...1000).contains(text.utf8.count) else { return false }
    return text.split(separator: "/", omittingEmptySubsequences: false).allSatisfy { component in
      !component.isEmpty && component != "." && component != ".."
        && component.utf8.allSatisfy { byte in
          (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte)
            || byte == 0x2E || byte == 0x5F || byte == 0x2D
        }
    }
  }
}
