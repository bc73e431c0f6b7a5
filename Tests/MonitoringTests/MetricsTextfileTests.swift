// The textfile: what a run says replaces and adds to what earlier runs said, and readers never see half of it.
import Diagnostics
import Foundation
import SystemSupport
import TestSupport
import Testing

@testable import Monitoring

@Suite("Metrics")
struct MetricsTextfileTests {
  private let directory: TemporaryDirectory
  private let file: MetricsTextfile

  init() throws {
    directory = try TemporaryDirectory()
    file = MetricsTextfile(directory: directory.path, cluster: "crm", command: "wal-push")
  }

  private var text: String { (try? String(contentsOfFile: file.path, encoding: .utf8)) ?? "" }

  @Test("the format is Prometheus's: help, type, escaped labels, whole numbers without a point") func format() throws {
    try file.write([
      MetricSample(.debts, 3, ["cluster": "a\"b\\c\nd", "region": "west"]),
      MetricSample(.drillRTO, 1.5, ["region": "any"]),
    ])
    #expect(
      text == """
        # HELP tidemark_drill_rto_seconds The recovery time of the last drill that came up.
        # TYPE tidemark_drill_rto_seconds gauge
        tidemark_drill_rto_seconds{region="any"} 1.5
        # HELP tidemark_debts Objects that the region lacks, as far as this host knows.
        # TYPE tidemark_debts gauge
        tidemark_debts{cluster="a\\"b\\\\c\\nd",region="west"} 3

        """)
  }

  @Test("gauges are replaced, counters grow, and what a failed run doesn't say stays") func merging() throws {
    let labels = ["cluster": "crm"]
    try file.merge(
      [MetricSample(.walPushFiles, 1, labels), MetricSample(.walPushLastSuccess, 100, labels)], keeps: { _ in true })
    try file.merge([MetricSample(.commandExitStatus, 69, labels)], keeps: { _ in true })
    try file.merge(
      [MetricSample(.walPushFiles, 1, labels), MetricSample(.commandExitStatus, 0, labels)], keeps: { _ in true })
    #expect(text.contains("tidemark_wal_push_files_total{cluster=\"crm\"} 2\n"))
    #expect(text.contains("tidemark_wal_push_last_success_timestamp_seconds{cluster=\"crm\"} 100\n"))
    #expect(text.contains("tidemark_command_last_exit_status{cluster=\"crm\"} 0\n"))
    try file.merge([], keeps: { $0.metric.kind == .counter })
    #expect(!text.contains("exit_status"))
    #expect(text.contains("tidemark_wal_push_files_total"))
  }

  @Test("what a line says is read back as it was") func lines() throws {
    for sample in [
      MetricSample(.debts, 3, ["a": "x\"y\\z\nw,=\"", "b": ""]), MetricSample(.drillRPO, 0.25, [:]),
    ] { #expect(MetricSample(parsing: Substring(sample.line)) == sample) }
    #expect(MetricSample(parsing: "# HELP x") == nil)
    #expect(MetricSample(parsing: "other_metric{} 1") == nil)
    #expect(MetricSample(parsing: "tidemark_debts{a=\"1\"} many") == nil)
  }

  @Test("many processes at once lose no file, and readers see it whole") func concurrency() throws {
    let file = file
    try withThreads("metrics", count: 4) { _ in
      for _ in 0..<50 {
        // Whoever finds the lock taken for long gives up, and its command goes on.
        _ = try? file.merge([MetricSample(.walPushFiles, 1, [:])], keeps: { _ in true })
        let text = (try? String(contentsOfFile: file.path, encoding: .utf8)) ?? ""
        #expect(text.isEmpty || text.hasSuffix("\n") && text.contains("tidemark_wal_push_files_total{} "))
      }
    }
    #expect(try directoryEntries(directory.path).filter { $0.hasSuffix(".prom") }.count == 1)
  }

  @Test("a directory that isn't there is an error that names it") func missing() throws {
    let away = MetricsTextfile(directory: "\(directory.path)/away", cluster: "crm", command: "backup")
    let error = try #require(throws: TidemarkError.self) { try away.merge([], keeps: { _ in true }) }
    #expect(error.object?.contains("/away/") == true)
  }
}
