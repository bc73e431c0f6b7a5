// A limit that several threads share, and what ends a wait for it.
import Diagnostics
import SystemSupport
import Testing

@Suite("Rate limiter")
struct RateLimiterTests {
  private func timed(_ body: () throws -> Void) rethrows -> Double {
    let start = ContinuousClock.now
    try body()
    return (ContinuousClock.now - start).seconds
  }

  @Test("threads together take no more than the limit, and time in which nothing was taken isn't made up for")
  func shared() throws {
    let limiter = RateLimiter(bytesPerSecond: 100_000)
    for _ in 1...2 {
      let seconds = try timed {
        try withThreads("take", count: 4) { _ in for _ in 1...5 { try limiter.take(1000) } }
      }
      #expect(seconds >= 0.199, "\(seconds)")
    }
  }

  @Test("without a limit nobody waits, and a wait that is called off ends at once")
  func ends() throws {
    let seconds = try timed {
      try RateLimiter(bytesPerSecond: nil).take(.max)
      let cancellation = Cancellation()
      let waiting = WorkerThread<Void>("wait") {
        try RateLimiter(bytesPerSecond: 1).take(3600, cancelledBy: cancellation)
      }
      cancellation.cancel()
      try waiting.join()
    }
    #expect(seconds < 30, "\(seconds)")
  }
}
