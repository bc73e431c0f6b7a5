// Days, weeks, months and years in UTC, for grandfather, father and son. A zone with summer time would move backups
// between days twice a year.

/// A period of the calendar.
struct CalendarPeriod: Hashable {
  /// Ascending with time, among periods of the same kind.
  var number: Int64
  var name: String

  static func day(_ seconds: Double) -> CalendarPeriod {
    let day = Self.dayNumber(seconds)
    return CalendarPeriod(number: day, name: text(day))
  }

  /// From Monday to Sunday, as ISO 8601 has it.
  static func week(_ seconds: Double) -> CalendarPeriod {
    // 1970-01-01 was a Thursday.
    let week = floorDivide(dayNumber(seconds) + 3, 7)
    return CalendarPeriod(number: week, name: "the week of \(text(week * 7 - 3))")
  }

  static func month(_ seconds: Double) -> CalendarPeriod {
    let (year, month, _) = civil(dayNumber(seconds))
    return CalendarPeriod(number: year * 12 + month - 1, name: "\(year)-\(two(month))")
  }

  static func year(_ seconds: Double) -> CalendarPeriod {
    let (year, _, _) = civil(dayNumber(seconds))
    return CalendarPeriod(number: year, name: "\(year)")
  }

  private static func dayNumber(_ seconds: Double) -> Int64 {
    // A manifest's time can be any number: what no calendar has becomes its edge.
    Int64((max(-1e12, min(1e12, seconds.isNaN ? 0 : seconds)) / 86400).rounded(.down))
  }

  private static func text(_ day: Int64) -> String {
    let (year, month, day) = civil(day)
    return "\(year)-\(two(month))-\(two(day))"
  }

  private static func two(_ number: Int64) -> String { number < 10 ? "0\(number)" : "\(number)" }

  private static func floorDivide(_ dividend: Int64, _ divisor: Int64) -> Int64 {
    dividend >= 0 ? dividend / divisor : (dividend - divisor + 1) / divisor
  }

  /// Year, month and day of a number of days since 1970-01-01 (Gregorian; years begin in March within, so that leap
  /// days come last).
  private static func civil(_ days: Int64) -> (year: Int64, month: Int64, day: Int64) {
    let shifted = days + 719_468
    let era = floorDivide(shifted, 146_097)
    let ofEra = shifted - era * 146_097
    let yearOfEra = (ofEra - ofEra / 1460 + ofEra / 36_524 - ofEra / 146_096) / 365
    let ofYear = ofEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let index = (5 * ofYear + 2) / 153
    let month = index < 10 ? index + 3 : index - 9
    return (yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, ofYear - (153 * index + 2) / 5 + 1)
  }
}
