// Moments as PostgreSQL reads them: compared with a server; and the ones that must not be guessed.
import Diagnostics
import TestSupport
import Testing

@testable import PostgresFormats

@Suite("Recovery times")
struct RecoveryTimeTests {
  private static let moments = [
    "2026-11-24 03:15:00+01", "2026-11-24T02:15:00Z", "2026-11-24 02:15:00.5 UTC", "2026-11-24 02:15:00.000001+00",
    "2024-02-29 23:59:59.999999-12", "2000-01-01 00:00:00+00", "1999-12-31 23:59:59+0530", "2026-03-29 02:30+02:00",
    "1969-12-31 23:59:59.25+00", "1970-01-01 00:00:00+00", "2099-12-31 23:59:59+15:59", "2100-03-01 00:00:00-03:30",
    "1600-02-29 12:00:00+00", "9999-12-31 23:59:59.999999+00",
  ]

  @Test("every moment is the one that PostgreSQL reads, and is given back so that it reads it again")
  func moments() throws {
    let server = try PostgresServer(.v15)
    for text in Self.moments {
      let time = try RecoveryTime(text: text)
      for form in [text, time.setting, time.description] {
        let seen = try server.psql("SELECT (extract(epoch FROM '\(form)'::timestamptz) * 1000000)::numeric(30, 0)")
        #expect(seen == "\(time.microseconds)", "\(text) as \(form)")
      }
      #expect(try RecoveryTime(text: time.description) == time)
      #expect(!time.setting.contains("Z"))
    }
    // What recovery itself takes, as a setting.
    try server.psql("ALTER SYSTEM SET recovery_target_time = '\(try RecoveryTime(text: Self.moments[2]).setting)'")
  }

  @Test(
    "a time without a zone, or that isn't one, is refused",
    arguments: [
      "2026-11-24 03:15:00", "2026-11-24T03:15:00", "2026-11-24", "03:15:00+01", "yesterday", "now", "epoch",
      "infinity", "",
      "2026-11-24 03:15:00 CET", "2026-11-24 03:15:00 Europe/Berlin", "2026-02-29 00:00:00Z", "2100-02-29 00:00:00Z",
      "2026-13-01 00:00:00Z", "2026-00-01 00:00:00Z", "2026-04-31 00:00:00Z", "2026-01-00 00:00:00Z",
      "2026-11-24 24:00:00Z",
      "2026-11-24 03:60:00Z", "2026-11-24 03:15:60Z", "2026-11-24 03:15:00.1234567Z", "2026-11-24 03:15:00+16",
      "2026-11-24 03:15:00+01:60", "2026-11-24 03:15:00+1", "20261124T031500Z", "2026-11-24 03:15:00Z+01",
      "24.11.2026 03:15Z",
      " 2026-11-24 03:15:00Z", "2026-11-24 03:15:00Z'; DROP TABLE t; --", "٢٠٢٦-11-24 03:15:00Z",
      "2026-11-24 03:15:00+01:",
    ])
  func refused(_ text: String) {
    let error = #expect(throws: TidemarkError.self) { try RecoveryTime(text: text) }
    #expect(error?.code == .usage && error?.object == text)
    #expect(error?.cause?.isEmpty == false)
    #expect(error?.next?.contains("2026-11-24 03:15:00+01") == true)
  }
}
