// Moments as operators type them and as PostgreSQL takes them. A time without a zone is refused: guessing one has made
// restores miss by hours.
import Diagnostics

/// A moment in Unix microseconds.
package struct RecoveryTime: Sendable, Hashable, CustomStringConvertible {
  package let microseconds: Int64
  package init(microseconds: Int64) { self.microseconds = microseconds }

  /// Parses `YYYY-MM-DD[T ]hh:mm[:ss[.ffffff]]` and a zone: `Z`, `UTC`, `±hh`, `±hhmm` or `±hh:mm`.
  /// - Throws: `usage`.
  package init(text: String) throws(TidemarkError) {
    // Spelled out: `\d` takes digits of every script, which would then count as nothing.
    let pattern =
      /([0-9]{4})-([0-9]{2})-([0-9]{2})[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,6}))?)?\s*(?:(Z|UTC)|([+-])([0-9]{2})(?::?([0-9]{2}))?)?/
    guard let match = text.wholeMatch(of: pattern) else {
      throw Self.refused(text, "it isn't of the form 2026-11-24 03:15:00+01")
    }
    let fields = match.output
    func number(_ text: Substring?) -> Int64 { text.flatMap { Int64($0) } ?? 0 }
    guard fields.8 != nil || fields.9 != nil else {
      throw Self.refused(text, "it has no time zone")
    }
    let (year, month, day) = (number(fields.1), number(fields.2), number(fields.3))
    let (hour, minute, second) = (number(fields.4), number(fields.5), number(fields.6))
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
    let lengths: [Int64] = [31, leap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
    let (zoneHour, zoneMinute) = (number(fields.10), number(fields.11))
    guard (1...12).contains(month), (1...lengths[Int(month) - 1]).contains(day), hour < 24, minute < 60, second < 60,
      zoneHour < 16, zoneMinute < 60
    else { throw Self.refused(text, "there is no such moment") }
    let fraction = fields.7.map { String($0).padding(6) } ?? "0"
    let zone = (zoneHour * 3600 + zoneMinute * 60) * (fields.9 == "-" ? -1 : 1)
    let seconds = Self.days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - zone
    microseconds = seconds * 1_000_000 + (Int64(fraction) ?? 0)
  }

  private static func refused(_ text: String, _ cause: String) -> TidemarkError {
    TidemarkError(
      .usage, "the time can't be used", object: text, cause: cause,
      next: "give a date, a time and a zone, as in '2026-11-24 03:15:00+01' or '2026-11-24T02:15:00Z'")
  }

  /// Days from 1970-01-01 in the Gregorian calendar, years beginning in March so that leap days come last.
  private static func days(_ year: Int64, _ month: Int64, _ day: Int64) -> Int64 {
    let shifted = month <= 2 ? year - 1 : year
    let era = (shifted >= 0 ? shifted : shifted - 399) / 400
    let ofEra = shifted - era * 400
    let ofYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
    return era * 146097 + ofEra * 365 + ofEra / 4 - ofEra / 100 + ofYear - 719468
  }

  private var parts: String {
    var rest = microseconds % 1_000_000
    var seconds = microseconds / 1_000_000
    if rest < 0 {
      rest += 1_000_000
      seconds -= 1
    }
    let ofDay = ((seconds % 86400) + 86400) % 86400
    let z = (seconds - ofDay) / 86400 + 719468
    let era = (z >= 0 ? z : z - 146096) / 146097
    let ofEra = z - era * 146097
    let yearOfEra = (ofEra - ofEra / 1460 + ofEra / 36524 - ofEra / 146096) / 365
    let ofYear = ofEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let shifted = (5 * ofYear + 2) / 153
    let day = ofYear - (153 * shifted + 2) / 5 + 1
    let month = shifted < 10 ? shifted + 3 : shifted - 9
    let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
    func two(_ value: Int64) -> String { value < 10 ? "0\(value)" : "\(value)" }
    let digits = String(rest)
    let fraction = rest == 0 ? "" : "." + String(repeating: "0", count: 6 - digits.count) + digits
    return
      "\(year)-\(two(month))-\(two(day)) \(two(ofDay / 3600)):\(two(ofDay / 60 % 60)):\(two(ofDay % 60))\(fraction)"
  }

  /// As `recovery_target_time` takes it: PostgreSQL refuses a `Z` there.
  package var setting: String { parts + "+00" }
  /// ISO 8601, UTC.
  package var description: String { parts.replacing(" ", with: "T") + "Z" }
}

extension String {
  fileprivate func padding(_ count: Int) -> String {
    self + String(repeating: "0", count: Swift.max(0, count - self.count))
  }
}
