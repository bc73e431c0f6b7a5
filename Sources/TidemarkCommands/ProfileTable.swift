// `--profile`: where a command's time went, for people. JSON has the same figures without being asked.
import SystemSupport

struct ProfileTable {
  private let stages: [StageProfile]

  init(_ stages: [StageProfile]) { self.stages = stages }

  /// A line for each stage: what share of its threads' time it worked, waited for input and waited for output.
  var text: String {
    var lines = [row("stage", "threads", "worked", "for input", "for output")]
    for stage in stages {
      let total = stage.workedSeconds + stage.waitedForInputSeconds + stage.waitedForOutputSeconds
      func share(_ seconds: Double) -> String {
        let percent = total > 0 ? Int((seconds / total * 100).rounded()) : 0
        return "\(Seconds(seconds)) \(percent) %"
      }
      lines.append(
        row(
          stage.stage, "\(stage.threads)", share(stage.workedSeconds), share(stage.waitedForInputSeconds),
          share(stage.waitedForOutputSeconds)))
    }
    if let limiting { lines.append("limited by: \(limiting)") }
    return lines.joined(separator: "\n") + "\n"
  }

  /// The stage whose threads worked for the largest share of their time.
  private var limiting: String? {
    func share(_ stage: StageProfile) -> Double {
      let total = stage.workedSeconds + stage.waitedForInputSeconds + stage.waitedForOutputSeconds
      return total > 0 ? stage.workedSeconds / total : 0
    }
    return stages.max { share($0) < share($1) }?.stage
  }

  private func row(_ cells: String...) -> String {
    let widths = [10, 8, 16, 16, 16]
    return zip(cells, widths).map { cell, width in
      cell + String(repeating: " ", count: max(1, width - cell.count))
    }.joined()
  }
}
