// What one process learns about a region, the next one knows.
import Diagnostics
import Glibc
import SystemSupport
import TestSupport
import Testing

@testable import BackupRepository

@Suite("The health of a region") struct RegionHealthTests {
  let directory: TemporaryDirectory
  let path: String
  let error = TidemarkError(.regionUnreachable, "no answer")

  init() throws {
    directory = try TemporaryDirectory()
    path = "\(directory.path)/health/west"
  }

  @Test("a failure is kept for the next process until a success") func persists() throws {
    #expect(RegionHealth(path: path).failingFor == nil)
    let first = RegionHealth(path: path)
    #expect(try first.noteFailure(error, elapsed: .seconds(30)))
    #expect(try !first.noteFailure(error, elapsed: .zero))
    let next = RegionHealth(path: path)
    let failingFor = try #require(next.failingFor)
    #expect(failingFor >= .seconds(30) && failingFor < .seconds(60))
    #expect(try next.noteSuccess())
    #expect(try !next.noteSuccess())
    #expect(next.failingFor == nil)
    #expect(RegionHealth(path: path).failingFor == nil)
  }

  @Test("a probe is claimed once, by this process or another") func probes() throws {
    try RegionHealth(path: path).noteFailure(error, elapsed: .zero)
    // The failure itself was a try.
    #expect(!RegionHealth(path: path).claimProbe())
    var long = [timeval(tv_sec: 1_700_000_000, tv_usec: 0), timeval(tv_sec: 1_700_000_000, tv_usec: 0)]
    #expect(utimes(path, &long) == 0)
    let one = RegionHealth(path: path)
    let other = RegionHealth(path: path)
    #expect(one.claimProbe())
    #expect(!one.claimProbe())
    #expect(!other.claimProbe())
  }

  @Test("a file that says nothing sensible is as good as none", arguments: ["", "\0\0\0", "yesterday", "-"])
  func garbage(_ text: String) throws {
    try DurableFile.createDirectories(directoryName(path))
    try DurableFile.write(Array(text.utf8), to: path)
    #expect(RegionHealth(path: path).failingFor == nil)
  }

  @Test("a time in the future counts as now") func future() throws {
    try DurableFile.createDirectories(directoryName(path))
    try DurableFile.write(Array("9223372036854775807 region-unreachable\n".utf8), to: path)
    #expect(RegionHealth(path: path).failingFor == .zero)
  }

  @Test("without a file it is kept in memory") func memory() throws {
    let health = RegionHealth(path: nil)
    try health.noteFailure(error, elapsed: .zero)
    #expect(health.failingFor != nil)
    #expect(try health.noteSuccess())
  }
}
