// A mapped file shows what the file holds, refuses what it must not show, and tells when somebody wrote it meanwhile.
import Diagnostics
import Foundation
import Glibc
import SystemSupport
import TestSupport
import Testing

@Suite("Mapped files") struct MappedFileTests {
  private let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  @Test("the content is the file's, of any length, and stays when its name goes")
  func content() throws {
    for count in [0, 1, 4095, 4096, 4097, 3 << 20] {
      let path = "\(directory.path)/file"
      let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31) }
      try DurableFile.write(bytes, to: path)
      let file = try MappedFile(path, limit: count)
      try DurableFile.remove(path)
      #expect(try file.withBytes { Array($0) } == bytes)
      try file.requireUnchanged()
    }
  }

  @Test("a file that is longer than accepted, missing or a directory is refused")
  func refusals() throws {
    let path = "\(directory.path)/file"
    try DurableFile.write([1, 2, 3], to: path)
    #expect(thrownCode { _ = try MappedFile(path, limit: 2) } == .localIO)
    #expect(thrownCode { _ = try MappedFile("\(path).not", limit: 2) } == .localIO)
    #expect(thrownCode { _ = try MappedFile(directory.path, limit: 1 << 20) } == .localIO)
  }

  @Test("a file that was written or cut meanwhile is told from one that wasn't", arguments: [false, true])
  func change(isCut: Bool) throws {
    let path = "\(directory.path)/file"
    try DurableFile.write([1, 2, 3], to: path)
    // The clock that stamps files goes in steps of some milliseconds.
    usleep(50_000)
    let file = try MappedFile(path, limit: 3)
    try file.requireUnchanged()
    let handle = try #require(FileHandle(forWritingAtPath: path))
    if isCut { try handle.truncate(atOffset: 1) } else { try handle.write(contentsOf: [9]) }
    try handle.close()
    #expect(thrownCode { try file.requireUnchanged() } == .localIO)
  }
}
