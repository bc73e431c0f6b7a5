// Durations and byte counts as people write them in the configuration: a whole number and a unit. Nothing is guessed:
// a duration without a unit and an ambiguous "256M" are refused, and so is what doesn't fit.
import Diagnostics

/// The text forms of durations and byte counts.
enum Quantities {
  private static let durationUnits: [(String, Duration)] = [
    ("ms", .milliseconds(1)), ("s", .seconds(1)), ("m", .seconds(60)), ("h", .seconds(3600)), ("d", .seconds(86400)),
  ]
  private static let byteUnits: [(String, Int)] = [
    ("B", 1), ("kB", 1000), ("KB", 1000), ("MB", 1_000_000), ("GB", 1_000_000_000), ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40),
  ]
  /// Longer than anything that Tidemark waits for, short enough for every clock.
  private static let secondsMax: Int64 = 10 * 366 * 86400

  /// `500ms`, `60s`, `5m`, `1h`, `2d`.
  static func duration(_ text: String) throws(Refusal) -> Duration {
    let (number, unit) = split(text)
    guard let number, let length = durationUnits.first(where: { $0.0 == unit })?.1 else {
      throw Refusal("is not a duration: write a whole number and a unit, such as 500ms, 60s, 5m or 1h")
    }
    // `secondsMax` milliseconds or days still fit, so the product can't overflow.
    guard Int64(number) <= secondsMax * 1000, length * Double(number) <= .seconds(secondsMax) else {
      throw Refusal("is longer than ten years")
    }
    return length * number
  }

  /// `256MiB`, `10MB`, or a plain number of bytes.
  static func byteCount(_ text: String) throws(Refusal) -> Int {
    let (number, unit) = split(text)
    guard let number, let size = unit.isEmpty ? 1 : byteUnits.first(where: { $0.0 == unit })?.1 else {
      throw Refusal("is not a number of bytes: write a whole number, alone or with a unit such as KiB, MiB, GiB or MB")
    }
    let (bytes, overflow) = number.multipliedReportingOverflow(by: size)
    if overflow { throw Refusal("is too large") }
    return bytes
  }

  /// A whole number of decimal digits.
  static func wholeNumber(_ text: some StringProtocol) -> Int? {
    text.utf8.allSatisfy { (0x30...0x39).contains($0) } ? Int(text) : nil
  }

  private static func split(_ text: String) -> (Int?, String) {
    let digits = text.prefix { $0.isASCII && $0.isNumber }
    let unit = text[digits.endIndex...].drop { $0 == " " }
    return (wholeNumber(digits), String(unit))
  }
}

/// A byte count on the command line, in the configuration's form.
package struct ByteCount: Sendable, Equatable {
  package let value: Int

  /// - Throws: `usage` when the text isn't one, or is zero.
  package init(text: String) throws(TidemarkError) {
    let number: Int
    do throws(Refusal) { number = try Quantities.byteCount(text) } catch {
      throw TidemarkError(.usage, "'\(text)' \(error.reason)")
    }
    guard number > 0 else { throw TidemarkError(.usage, "'\(text)' is nothing") }
    value = number
  }
}
