// The joints between threads: nothing is lost, nobody waits for ever, and limits hold.
import Diagnostics
import Glibc
import SystemSupport
import TestSupport
import Testing

@Suite("Queues, conditions and threads")
struct QueueTests {
  private static let oops = TidemarkError(.regionUnreachable, "oops")

  @Test("elements come in order, and the end after the last") func order() throws {
    let queue = BoundedQueue<Int>(limit: 1000)
    for number in 0..<500 { try queue.push(number) }
    queue.close()
    for number in 0..<500 { #expect(try queue.pop() == number) }
    #expect(try queue.pop() == nil)
    #expect(try queue.pop() == nil)
  }

  @Test("of many producers and consumers nothing is lost or doubled, and the limit holds") func many() throws {
    let queue = BoundedQueue<Int>(limit: 3)
    let (pushed, popped, sum) = (Counter(), Counter(), Counter())
    let consumers = (0..<3).map { index in
      WorkerThread<Void>("consumer-\(index)") {
        while let number = try queue.pop() {
          sum.add(number)
          // Each of the three may have taken one that it hasn't counted yet.
          #expect(pushed.value - popped.value <= 3 + 3 + 4)
          popped.add(1)
        }
      }
    }
    try withThreads("producer", count: 4) { index in
      for number in 0..<2000 {
        try queue.push(index * 2000 + number)
        pushed.add(1)
      }
    }
    queue.close()
    for consumer in consumers { try consumer.join() }
    #expect(popped.value == 8000)
    #expect(sum.value == (0..<8000).reduce(0, +))
  }

  @Test("a full queue waits until there is room") func full() throws {
    let queue = BoundedQueue<Int>(limit: 1)
    let pushed = Counter()
    let producer = WorkerThread<Void>("producer") {
      for number in 0..<2 {
        try queue.push(number)
        pushed.add(1)
      }
    }
    try #require(try eventually { pushed.value == 1 })
    #expect(try queue.pop() == 0)
    try producer.join()
    #expect(pushed.value == 2)
  }

  @Test("without room who pushes waits until the element is taken") func handedOver() throws {
    let queue = BoundedQueue<Int>(limit: 0)
    let pushed = Counter()
    let producer = WorkerThread<Void>("producer") {
      for number in 0..<200 {
        try queue.push(number)
        pushed.add(1)
      }
    }
    for number in 0..<200 {
      // Time in which a queue with room would take more.
      if number < 3 { usleep(5000) }
      #expect(pushed.value <= number)
      #expect(try queue.pop() == number)
    }
    try producer.join()
    #expect(pushed.value == 200)
    let stuck = WorkerThread<Void>("stuck") { try queue.push(1) }
    usleep(5000)
    queue.fail(Self.oops)
    #expect(throws: TidemarkError.self) { try stuck.join() }
  }

  @Test("a failure reaches whoever waits, on either side, and the first one stays") func failure() throws {
    let (empty, full) = (BoundedQueue<Int>(limit: 1), BoundedQueue<Int>(limit: 1))
    try full.push(1)
    let threads = [WorkerThread<Void>("pop") { _ = try empty.pop() }, WorkerThread<Void>("push") { try full.push(2) }]
    for queue in [empty, full] {
      queue.fail(Self.oops)
      queue.fail(TidemarkError(.localIO, "later"))
    }
    for thread in threads { #expect(throws: TidemarkError.self) { try thread.join() } }
    let error = #expect(throws: TidemarkError.self) { _ = try full.pop() }
    #expect(error?.code == .regionUnreachable)
  }

  @Test("a signal between the look and the wait isn't lost; without one the deadline ends the wait") func condition() {
    let condition = Condition()
    let ticket = condition.ticket()
    condition.signal()
    #expect(condition.wait(ticket))
    #expect(!condition.wait(condition.ticket(), until: .after(.milliseconds(5))))
    #expect(!condition.wait(condition.ticket(), until: .after(.zero)))
  }

  @Test("of several threads' errors the first one's is thrown, after all have ended") func threads() throws {
    let (ended, told) = (Counter(), Counter())
    let error = #expect(throws: TidemarkError.self) {
      try withThreads("t", count: 4, onFailure: { _ in told.add(1) }) { index in
        defer { ended.add(1) }
        if index > 1 { throw TidemarkError(.localIO, "thread \(index)") }
      }
    }
    #expect(error?.summary == "thread 2")
    #expect(ended.value == 4 && told.value == 2)
    #expect(try WorkerThread("result") { 7 }.join() == 7)
  }

  @Test("what isn't our error is a fault of ours, with its words") func foreignError() {
    struct Strange: Error {}
    let error = #expect(throws: TidemarkError.self) { try WorkerThread<Void>("x") { throw Strange() }.join() }
    #expect(error?.code == .internalFault && error?.cause == "Strange()")
  }

  // MARK: Deadlines

  @Test("deadlines pass, never pass, and are called off") func deadlines() {
    #expect(Deadline.never.remaining == nil && !Deadline.never.hasPassed)
    #expect(Deadline.after(.zero).hasPassed && Deadline.after(.seconds(-5)).remaining == .zero)
    let later = Deadline.after(.seconds(100))
    #expect(later.remaining.map { $0 > .seconds(90) && $0 <= .seconds(100) } == true)
    let cancellation = Cancellation()
    for deadline in [Deadline.never.cancelled(by: cancellation), later.cancelled(by: cancellation)] {
      #expect(!deadline.hasPassed)
    }
    cancellation.cancel()
    for deadline in [
      Deadline.never.cancelled(by: cancellation), later.cancelled(by: cancellation),
      later.cancelled(by: cancellation).earlier(.never), Deadline.never.earlier(later.cancelled(by: cancellation)),
      Deadline.never.cancelled(by: cancellation).earlier(later),
    ] {
      #expect(deadline.hasPassed)
    }
  }

  @Test("the earlier of two deadlines is the one that counts") func earlier() {
    let (soon, late) = (Deadline.after(.zero), Deadline.after(.seconds(100)))
    #expect(soon.earlier(late).hasPassed && late.earlier(soon).hasPassed)
    #expect(soon.earlier(.never).hasPassed && Deadline.never.earlier(soon).hasPassed)
    #expect(!late.earlier(.never).hasPassed && Deadline.never.earlier(.never).remaining == nil)
  }

  @Test("milliseconds are rounded up, so that no wait is too short") func milliseconds() {
    for (duration, expected) in [
      (Duration.zero, 0), (.nanoseconds(1), 1), (.milliseconds(1), 1), (.microseconds(1001), 2), (.seconds(3), 3000),
    ] as [(Duration, Int64)] {
      #expect(duration.milliseconds == expected)
    }
    #expect(Duration.milliseconds(1500).seconds == 1.5)
  }
}
