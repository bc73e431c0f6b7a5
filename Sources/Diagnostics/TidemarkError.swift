// The one error type. It says what happened to which object, why, what is still safe, and what to do next.
// It never carries a secret: causes are the server's or the library's words, not request headers or keys.

/// An error as an operator reads it.
///
/// Wrap at most once per layer, with ``with(object:)`` or ``with(kept:next:)``: the code and the cause stay.
package struct TidemarkError: Error, Sendable, CustomStringConvertible {
  /// The stable code, which decides the exit status.
  package var code: ErrorCode
  /// What was being done and failed, in one sentence without a full stop: "cannot create the object".
  package var summary: String
  /// The object, file or server that it happened to.
  package var object: String?
  /// The cause in the library's or the server's own words.
  package var cause: String?
  /// What is still safe.
  package var kept: String?
  /// One command or one check. Never a guess.
  package var next: String?

  package init(
    _ code: ErrorCode, _ summary: String, object: String? = nil, cause: String? = nil, kept: String? = nil,
    next: String? = nil
  ) {
    self.code = code
    self.summary = summary
    self.object = object
    self.cause = cause
    self.kept = kept
    self.next = next
  }

  /// The same error about `object`, if none was named before.
  package func with(object: String) -> TidemarkError {
    var copy = self
    if copy.object == nil { copy.object = object }
    return copy
  }

  /// The same error with what is still safe and what to do next, where these were not said before.
  package func with(kept: String? = nil, next: String? = nil) -> TidemarkError {
    var copy = self
    if copy.kept == nil { copy.kept = kept }
    if copy.next == nil { copy.next = next }
    return copy
  }

  package var exitStatus: ExitStatus { code.exitStatus }

  /// One line for logs.
  package var description: String {
    var text = summary
    if let object { text += ": \(object)" }
    if let cause { text += " (\(cause))" }
    return "\(text) [\(code.rawValue)]"
  }

  /// The lines that an operator reads on standard error.
  package var operatorText: String {
    var lines = ["error: \(summary)" + (object.map { ": \($0)" } ?? "") + " [\(code.rawValue)]"]
    if let cause { lines.append("cause: \(cause)") }
    if let kept { lines.append("kept:  \(kept)") }
    if let next { lines.append("next:  \(next)") }
    return lines.joined(separator: "\n")
  }
}

extension TidemarkError {
  /// `error` as a `TidemarkError`; anything else is a fault of Tidemark itself.
  package static func wrapping(_ error: any Error) -> TidemarkError {
    (error as? TidemarkError) ?? TidemarkError(.internalFault, "unexpected error", cause: String(describing: error))
  }
}
