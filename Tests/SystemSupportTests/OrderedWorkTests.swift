// Work that is done ahead is bounded and handed over in order, and nobody waits for ever when it fails or ends.
import Diagnostics
import Synchronization
import SystemSupport
import Testing

@Suite("Ordered work", .timeLimit(.minutes(1))) struct OrderedWorkTests {
  @Test("results come in their order, and no thread is further ahead than allowed")
  func order() throws {
    let work = OrderedWork<Int>(count: 500, aheadCount: 5)
    let taken = Counter()
    let furthest = Mutex(0)
    let threads = (0..<3).map { number in
      WorkerThread("worker-\(number)") {
        while let index = work.claim() {
          // `taken` may be one behind what the work knows.
          let ahead = index - taken.value
          furthest.withLock { $0 = max($0, ahead) }
          work.put(index * index, at: index)
        }
      }
    }
    for index in 0..<500 {
      #expect(try work.take(index) == index * index)
      taken.add(1)
    }
    for thread in threads { try thread.join() }
    #expect(furthest.withLock { $0 } <= 5)
  }

  @Test("a failure reaches the taker, and nobody claims any more")
  func failure() {
    let work = OrderedWork<Int>(count: 3, aheadCount: 3)
    #expect(work.claim() == 0)
    work.fail(TidemarkError(.objectDamaged, "bad"))
    work.fail(TidemarkError(.localIO, "later"))
    #expect(work.claim() == nil)
    #expect(thrownCode { _ = try work.take(0) } == .objectDamaged)
  }

  @Test("cancelling frees who waits to claim")
  func cancelling() throws {
    let work = OrderedWork<Int>(count: 3, aheadCount: 1)
    #expect(work.claim() == 0)
    let waiting = WorkerThread("waiting") { work.claim() }
    work.cancel()
    #expect(try waiting.join() == nil)
  }
}
