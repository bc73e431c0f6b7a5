// The page's charts as inline SVG: phases along the time, bytes by region, RTO and RPO of all drills against the
// objectives. Each stands above a table with its numbers, so that a chart never carries what isn't written.
import Foundation

extension DrillPage {
  private static let width = 760.0
  private static let labelWidth = 110.0
  /// Room for the number behind a bar.
  private static let numberWidth = 150.0
  private static var plotWidth: Double { width - labelWidth - numberWidth }

  // MARK: Phases

  /// Bars that follow each other as the phases did; those of the recovery itself have the stronger colour.
  func phases(_ report: DrillReport) -> String {
    if report.phases.isEmpty { return "<p>None was completed.</p>" }
    let total = max(report.phases.reduce(0) { $0 + $1.seconds }, 0.001)
    let row = 24.0
    let scale = Self.plotWidth / total
    var bars = ""
    var elapsed = 0.0
    for (index, phase) in report.phases.enumerated() {
      let y = Double(index) * row + 4
      let x = Self.labelWidth + elapsed * scale
      let length = max(2, phase.seconds * scale)
      elapsed += phase.seconds
      bars += """
        <text x="\(Self.labelWidth - 8)" y="\(Self.n(y + 13))" text-anchor="end">\(Self.escaped(phase.name))</text>\
        <rect class="\(phase.countsForRTO ? "recovery" : "proof")" x="\(Self.n(x))" y="\(Self.n(y))" \
        width="\(Self.n(length))" height="16" rx="2"/>\
        <text x="\(Self.n(x + length + 6))" y="\(Self.n(y + 13))">\(DrillComparison.seconds(phase.seconds))</text>
        """
    }
    let height = Double(report.phases.count) * row + 8
    var mark = ""
    var labelHeight = 18.0
    if let rto = report.rtoSeconds {
      // The end of the recovery; where the objective lies within the drill, that too.
      mark += Self.verticalLine(Self.labelWidth + min(rto, total) * scale, height, "RTO", "reached", 13)
      if let objective = report.rtoObjectiveSeconds, objective < total {
        // Names of lines that are close to each other stand one below the other.
        let isClose = abs(min(rto, total) - objective) * scale < 60
        labelHeight = isClose ? 32 : 18
        mark += Self.verticalLine(
          Self.labelWidth + objective * scale, height, "objective", "objective", isClose ? 27 : 13)
      }
    }
    let rows = report.phases.map { phase in
      "<tr><td>\(Self.escaped(phase.name))</td><td>\(phase.countsForRTO ? "recovery" : "proof")</td>"
        + "<td class=\"number\">\(DrillComparison.seconds(phase.seconds))</td>"
        + "<td class=\"number\">\(phase.bytes > 0 ? DrillComparison.bytes(Double(phase.bytes)) : "")</td>"
        + "<td class=\"number\">"
        + (phase.bytes > 0 ? DrillComparison.bytes(Double(phase.bytes) / max(phase.seconds, 0.001)) + "/s" : "")
        + "</td></tr>"
    }
    return """
      <p class="legend"><span class="key recovery"></span> recovery, counts for the RTO \
      <span class="key proof"></span> proofs and cleaning up</p>
      <svg viewBox="0 0 \(Self.n(Self.width)) \(Self.n(height + labelHeight))" role="img" aria-label="Phases of the drill">\(mark)\(bars)</svg>
      <table><thead><tr><th>Phase</th><th>Part of</th><th class="number">Time</th><th class="number">Bytes</th>\
      <th class="number">Rate</th></tr></thead><tbody>\(rows.joined())</tbody></table>
      """
  }

  private static func verticalLine(_ x: Double, _ height: Double, _ label: String, _ kind: String, _ drop: Double)
    -> String
  {
    """
    <line class="\(kind)" x1="\(n(x))" y1="0" x2="\(n(x))" y2="\(n(height))"/>\
    <text class="\(kind)" x="\(n(x))" y="\(n(height + drop))" text-anchor="middle">\(label)</text>
    """
  }

  // MARK: Regions

  func traffic(_ report: DrillReport) -> String {
    let regions = report.regions.sorted { $0.key < $1.key }
    if regions.isEmpty { return "<p>No region was asked.</p>" }
    let most = Double(max(1, regions.map(\.value.bytes).max() ?? 1))
    var bars = ""
    for (index, region) in regions.enumerated() {
      let y = Double(index) * 26 + 4
      let length = max(1, Double(region.value.bytes) / most * Self.plotWidth)
      bars += """
        <text x="\(Self.labelWidth - 8)" y="\(Self.n(y + 13))" text-anchor="end">\(Self.escaped(Self.shortened(region.key)))</text>\
        <rect class="recovery" x="\(Self.labelWidth)" y="\(Self.n(y))" width="\(Self.n(length))" height="16" rx="2"/>\
        <text x="\(Self.n(Self.labelWidth + length + 6))" y="\(Self.n(y + 13))">\
        \(DrillComparison.bytes(Double(region.value.bytes)))</text>
        """
    }
    let rows = regions.map { name, traffic in
      "<tr><td>\(Self.escaped(name))</td><td class=\"number\">\(DrillComparison.bytes(Double(traffic.bytes)))</td>"
        + "<td class=\"number\">\(traffic.requests)</td><td class=\"number\">\(traffic.failures)</td></tr>"
    }
    let events = report.events.prefix(50).map { event in
      "\(event.region): \(event.kind.rawValue) \(event.object ?? "") \(event.detail ?? "")"
    }
    return """
      <svg viewBox="0 0 \(Self.n(Self.width)) \(Self.n(Double(regions.count) * 26 + 4))" role="img" \
      aria-label="Bytes by region">\(bars)</svg>
      <table><thead><tr><th>Region</th><th class="number">Bytes read</th><th class="number">Requests</th>\
      <th class="number">Failures</th></tr></thead><tbody>\(rows.joined())</tbody></table>
      \(events.isEmpty ? "" : "<p>What happened to them:</p>" + Self.list(events))
      """
  }

  // MARK: History

  var historySection: String {
    let rows = history.reversed().map { report in
      let current = drills.contains { $0.report.name == report.name }
      return "<tr\(current ? " class=\"current\"" : "")><td>\(Self.moment(report.began))</td>"
        + "<td>\(report.ok ? "<span class=\"good\">✓ passed</span>" : "<span class=\"bad\">✗ failed</span>")</td>"
        + "<td class=\"name\">\(Self.escaped(report.region ?? "any"))</td><td>\(Self.escaped(report.target))</td>"
        + "<td class=\"number\">\(report.rtoSeconds.map(DrillComparison.seconds) ?? "–")</td>"
        + "<td class=\"number\">\(report.rpoSeconds.map(DrillComparison.seconds) ?? "–")</td>"
        + "<td class=\"number\">\(report.findings.count)</td></tr>"
    }
    return """
      <section><h2>All drills</h2>
      \(chart("Recovery time (RTO)", \.rtoSeconds, \.rtoObjectiveSeconds))
      \(chart("Data loss (RPO)", \.rpoSeconds, \.rpoObjectiveSeconds))
      <table><thead><tr><th>Began</th><th>Outcome</th><th>Region</th><th>Target</th><th class="number">RTO</th>\
      <th class="number">RPO</th><th class="number">Findings</th></tr></thead><tbody>\(rows.joined())</tbody></table>
      </section>
      """
  }

  /// One measure of all drills against the objective of its time: dots within it, crosses over it.
  private func chart(
    _ title: String, _ value: KeyPath<DrillReport, Double?>, _ objective: KeyPath<DrillReport, Double?>
  ) -> String {
    let measured = history.filter { $0[keyPath: value] != nil }
    guard !measured.isEmpty else { return "" }
    let (left, top, plotHeight) = (70.0, 12.0, 130.0)
    let plot = Self.width - left - 90
    let largest = measured.flatMap { [$0[keyPath: value] ?? 0, $0[keyPath: objective] ?? 0] }.max() ?? 1
    let step = Self.step(largest)
    let most = max(step, (largest / step).rounded(.up) * step)
    func y(_ seconds: Double) -> Double { top + plotHeight * (1 - seconds / most) }
    func x(_ index: Int) -> Double {
      measured.count == 1 ? left + plot / 2 : left + plot * (Double(index) + 0.5) / Double(measured.count)
    }
    var parts = ""
    for tick in 0...Int((most / step).rounded()) {
      let place = Self.n(y(Double(tick) * step))
      parts += """
        <line class="grid" x1="\(left)" y1="\(place)" x2="\(Self.n(left + plot))" y2="\(place)"/>\
        <text x="\(left - 8)" y="\(Self.n(y(Double(tick) * step) + 4))" text-anchor="end">\(Self.axis(Double(tick) * step))</text>
        """
    }
    if let aim = measured.last?[keyPath: objective] {
      parts += """
        <line class="objective" x1="\(left)" y1="\(Self.n(y(aim)))" x2="\(Self.n(left + plot))" y2="\(Self.n(y(aim)))"/>\
        <text class="objective" x="\(Self.n(left + plot + 6))" y="\(Self.n(y(aim) + 4))">objective</text>
        """
    }
    let points = measured.enumerated().map { (x($0.offset), y($0.element[keyPath: value] ?? 0)) }
    parts +=
      "<polyline class=\"course\" points=\"\(points.map { "\(Self.n($0.0)),\(Self.n($0.1))" }.joined(separator: " "))\"/>"
    for (report, point) in zip(measured, points) {
      let seconds = report[keyPath: value] ?? 0
      let isOver = report[keyPath: objective].map { seconds > $0 } ?? false
      let label = "<title>\(Self.moment(report.began)): \(DrillComparison.seconds(seconds))</title>"
      let (px, py) = point
      parts +=
        isOver
        ? "<path class=\"over\" d=\"M\(Self.n(px - 5)) \(Self.n(py - 5))l10 10m0 -10l-10 10\">\(label)</path>"
        : "<circle class=\"within\" cx=\"\(Self.n(px))\" cy=\"\(Self.n(py))\" r=\"4\">\(label)</circle>"
    }
    let base = Self.n(top + plotHeight + 18)
    let (first, last) = (Self.moment(measured[0].began), Self.moment(measured[measured.count - 1].began))
    // Days, and hours too where all drills are of one day.
    let isOneDay = first.prefix(10) == last.prefix(10)
    func day(_ moment: String) -> String { isOneDay ? String(moment.prefix(16)) : String(moment.prefix(10)) }
    if measured.count == 1 {
      parts += "<text x=\"\(Self.n(left + plot / 2))\" y=\"\(base)\" text-anchor=\"middle\">\(day(first))</text>"
    } else {
      parts += "<text x=\"\(left)\" y=\"\(base)\">\(day(first))</text>"
      parts += "<text x=\"\(Self.n(left + plot))\" y=\"\(base)\" text-anchor=\"end\">\(day(last))</text>"
    }
    return """
      <figure><figcaption>\(title): ● within the objective of its time, ✕ over it</figcaption>
      <svg viewBox="0 0 \(Self.n(Self.width)) \(Self.n(top + plotHeight + 26))" role="img" aria-label="\(title)">\(parts)</svg></figure>
      """
  }

  /// A round distance between four or so lines.
  private static func step(_ largest: Double) -> Double {
    let rounds: [Double] = [
      0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400, 172_800,
      604_800,
    ]
    return rounds.first { largest / $0 <= 5 } ?? (largest / 5)
  }

  private static func axis(_ seconds: Double) -> String {
    if seconds == 0 { return "0" }
    if seconds < 1 { return String(format: "%.1f s", seconds) }
    if seconds < 60 { return "\(Int(seconds)) s" }
    if seconds < 3600 { return String(format: "%g min", seconds / 60) }
    return String(format: "%g h", seconds / 3600)
  }

  /// A name that fits beside a bar; the table below has it whole.
  private static func shortened(_ name: String) -> String { name.count > 15 ? name.prefix(14) + "…" : name }

  /// A coordinate, which needs no more than a tenth.
  private static func n(_ value: Double) -> String { String(format: "%.1f", value) }
}
