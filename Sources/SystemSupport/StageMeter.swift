// Where a pipeline's time goes: for each stage how long its threads worked, waited for input and waited for output.
// The stage that waits for neither is the one that limits the rest.
import Diagnostics
import Synchronization

/// The time of one stage, summed over its threads.
package final class StageMeter: Sendable {
  package let name: String
  private let threads = Atomic<Int>(0)
  private let elapsed = Atomic<Int64>(0)
  private let input = Atomic<Int64>(0)
  private let output = Atomic<Int64>(0)

  package init(_ name: String) { self.name = name }

  /// Runs one thread's part of the stage. What isn't spent in ``waitingForInput(_:)`` or ``waitingForOutput(_:)`` counts as
  /// work.
  package func thread<Result, Failure>(_ body: () throws(Failure) -> Result) throws(Failure) -> Result {
    threads.add(1, ordering: .relaxed)
    return try add(to: elapsed, body)
  }

  package func waitingForInput<Result: ~Copyable, Failure>(
    _ body: () throws(Failure) -> Result
  ) throws(Failure) -> Result {
    try add(to: input, body)
  }

  package func waitingForOutput<Result: ~Copyable, Failure>(
    _ body: () throws(Failure) -> Result
  ) throws(Failure) -> Result {
    try add(to: output, body)
  }

  /// The same where nobody may be counting.
  package static func waitingForInput<Result: ~Copyable, Failure>(
    _ meter: StageMeter?, _ body: () throws(Failure) -> Result
  ) throws(Failure) -> Result {
    guard let meter else { return try body() }
    return try meter.waitingForInput(body)
  }

  package var profile: StageProfile {
    let seconds = { (nanoseconds: Int64) in Double(nanoseconds) * 1e-9 }
    let waited = (input.load(ordering: .relaxed), output.load(ordering: .relaxed))
    return StageProfile(
      stage: name, threads: threads.load(ordering: .relaxed),
      workedSeconds: seconds(max(0, elapsed.load(ordering: .relaxed) - waited.0 - waited.1)),
      waitedForInputSeconds: seconds(waited.0), waitedForOutputSeconds: seconds(waited.1))
  }

  private func add<Result: ~Copyable, Failure>(
    to counter: borrowing Atomic<Int64>, _ body: () throws(Failure) -> Result
  ) throws(Failure) -> Result {
    let begin = ContinuousClock.now
    defer {
      let (seconds, attoseconds) = (ContinuousClock.now - begin).components
      counter.add(seconds * 1_000_000_000 + attoseconds / 1_000_000_000, ordering: .relaxed)
    }
    return try body()
  }
}

/// What a stage did with its time, in seconds summed over its threads.
package struct StageProfile: Sendable, Codable, Equatable {
  package var stage: String
  package var threads: Int
  package var workedSeconds: Double
  package var waitedForInputSeconds: Double
  package var waitedForOutputSeconds: Double
}

extension BoundedQueue {
  /// ``push(_:)``, counted as waiting for output.
  package func push(_ element: sending Element, _ meter: StageMeter) throws(TidemarkError) {
    let element = element
    try meter.waitingForOutput { () throws(TidemarkError) in try push(element) }
  }

  /// ``pop()``, counted as waiting for input.
  package func pop(_ meter: StageMeter) throws(TidemarkError) -> Element? {
    try meter.waitingForInput { () throws(TidemarkError) in try pop() }
  }
}
