// Moments in the forms of HTTP, of S3's documents and of its signatures.
import Glibc

/// Moments as seconds since 1970, in the forms of HTTP and AWS.
enum Timestamp {
  static func now() -> Double {
    var moment = timespec()
    clock_gettime(CLOCK_REALTIME, &moment)
    return Double(moment.tv_sec) + Double(moment.tv_nsec) * 1e-9
  }

  /// `20130524T000000Z`.
  static func basic(_ time: Int64) -> String { format(time, "%Y%m%dT%H%M%SZ") }

  /// `2013-05-24T00:00:00Z`, for people.
  static func extended(_ time: Int64) -> String { format(time, "%Y-%m-%dT%H:%M:%SZ") }

  /// An HTTP date (RFC 9110 §5.6.7, the IMF form alone): `Fri, 24 May 2013 00:00:00 GMT`.
  static func http(_ text: String) -> Int64? {
    let words = text.split(separator: " ")
    guard words.count == 6, words[5] == "GMT", let month = months.firstIndex(of: String(words[2])) else { return nil }
    return moment(date: [words[3], Substring("\(month + 1)"), words[1]], time: words[4].split(separator: ":"))
  }

  /// An ISO 8601 moment in UTC: `2013-05-24T00:00:00.000Z` or `2013-05-24T00:00:00Z`; the fraction is dropped.
  static func iso8601(_ text: String) -> Int64? {
    guard text.hasSuffix("Z") else { return nil }
    let halves = text.dropLast().split(separator: "T")
    guard halves.count == 2 else { return nil }
    let time = halves[1].prefix { $0 != "." }
    return moment(date: halves[0].split(separator: "-"), time: time.split(separator: ":"))
  }

  private static let months = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
  ]

  private static func moment(date: [Substring], time: [Substring]) -> Int64? {
    let numbers = (date + time).compactMap { Int32($0) }
    guard date.count == 3, time.count == 3, numbers.count == 6, (1970...9999).contains(numbers[0]),
      (1...12).contains(numbers[1]), (1...31).contains(numbers[2]), (0...23).contains(numbers[3]),
      (0...59).contains(numbers[4]), (0...60).contains(numbers[5])
    else { return nil }
    var parts = tm()
    parts.tm_year = numbers[0] - 1900
    parts.tm_mon = numbers[1] - 1
    parts.tm_mday = numbers[2]
    parts.tm_hour = numbers[3]
    parts.tm_min = numbers[4]
    parts.tm_sec = numbers[5]
    return Int64(timegm(&parts))
  }

  private static func format(_ time: Int64, _ pattern: String) -> String {
    var seconds = time_t(time)
    var parts = tm()
    gmtime_r(&seconds, &parts)
    return withUnsafeTemporaryAllocation(of: CChar.self, capacity: 64) { buffer in
      strftime(buffer.baseAddress!, 64, pattern, &parts)  // 64 bytes, so it has an address
      // The buffer is not empty, so it has a base address.
      return String(cString: buffer.baseAddress!)
    }
  }
}
