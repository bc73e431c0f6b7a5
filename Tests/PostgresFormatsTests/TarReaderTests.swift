// The tar reader against archives by Python's tarfile and GNU tar, whole, in pieces, cut off, spoilt and hostile.
import Diagnostics
import Foundation
import SystemSupport
import TestSupport
import Testing

@testable import PostgresFormats

/// What a reader made of an archive.
struct TarListing: Equatable {
  struct Member: Equatable {
    var path: String
    var mode: UInt32
    var size: UInt64
    var target: String?
    var isDirectory = false
    var data: [UInt8] = []
  }
  var members: [Member] = []
  var hasEnded = false

  mutating func take(_ event: TarReader.Event) {
    switch event {
    case .file(let header): members.append(Member(path: header.path, mode: header.mode, size: header.size))
    case .data(let bytes): members[members.count - 1].data += Array(bytes)
    case .endOfFile: #expect(members.last.map { UInt64($0.data.count) == $0.size } == true)
    case .directory(let header):
      members.append(Member(path: header.path, mode: header.mode, size: 0, isDirectory: true))
    case .symbolicLink(let header, let target):
      members.append(Member(path: header.path, mode: header.mode, size: 0, target: target))
    case .end: hasEnded = true
    }
  }

  /// Reads `archive` in pieces of at most `longest` bytes.
  static func reading(_ archive: [UInt8], longest: Int, seed: UInt64 = 1) throws -> TarListing {
    var numbers = SeededNumbers(seed)
    var reader = TarReader()
    var listing = TarListing()
    try inPieces(archive, longest: longest, &numbers) { try reader.feed($0) { listing.take($0) } }
    try reader.finish()
    #expect(listing.hasEnded && reader.hasEnded)
    return listing
  }
}

@Suite("Tar archives")
struct TarReaderTests {
  /// An archive by Python: each line is name, type, mode, size and link target.
  private func archive(_ members: String, format: String = "USTAR") throws -> [UInt8] {
    try python(
      """
      out = io.BytesIO()
      tar = tarfile.open(fileobj=out, mode="w", format=tarfile.\(format)_FORMAT)
      for line in sys.argv[1].splitlines():
          name, kind, mode, size, target = line.split("|")
          info = tarfile.TarInfo(name)
          info.type = kind.encode()
          info.mode, info.size, info.linkname = int(mode, 8), int(size), target
          tar.addfile(info, io.BytesIO(bytes(i * 7 % 251 for i in range(int(size)))))
      tar.close()
      sys.stdout.buffer.write(out.getvalue())
      """, [members])
  }

  private func content(_ count: Int) -> [UInt8] { (0..<count).map { UInt8($0 * 7 % 251) } }

  @Test("members come whole and in order, whatever the pieces", arguments: [1, 7, 511, 512, 513, 1 << 20])
  func members(_ longest: Int) throws {
    let long = String(repeating: "d", count: 90) + "/" + String(repeating: "n", count: 99)
    let bytes = try archive(
      """
      base|5|0750|0|
      base/empty|0|0600|0|
      base/one|0|0640|1|
      base/block|0|0600|512|
      base/more|0|0600|5000|
      ./dot|0|0600|3|
      pg_tblspc/16385|2|0777|0|/srv/größe mit blank
      \(long)|0|0600|600|
      """)
    let listing = try TarListing.reading(bytes, longest: longest)
    #expect(
      listing.members == [
        .init(path: "base", mode: 0o750, size: 0, isDirectory: true),
        .init(path: "base/empty", mode: 0o600, size: 0),
        .init(path: "base/one", mode: 0o640, size: 1, data: content(1)),
        .init(path: "base/block", mode: 0o600, size: 512, data: content(512)),
        .init(path: "base/more", mode: 0o600, size: 5000, data: content(5000)),
        .init(path: "dot", mode: 0o600, size: 3, data: content(3)),
        .init(path: "pg_tblspc/16385", mode: 0o777, size: 0, target: "/srv/größe mit blank"),
        .init(path: long, mode: 0o600, size: 600, data: content(600)),
      ])
  }

  @Test("what GNU tar writes in the ustar and in its own format is read") func gnuTar() throws {
    let directory = try TemporaryDirectory()
    let long = String(repeating: "a", count: 80) + "/" + String(repeating: "b", count: 90)
    try DurableFile.createDirectories("\(directory.path)/\(directoryName(long))")
    try DurableFile.write(content(1300), to: "\(directory.path)/\(long)")
    for (format, path) in [("ustar", long), ("gnu", directoryName(long))] {
      let outcome = try ChildProcess.run(
        "tar",
        ["--format=\(format)", "-C", directory.path, "-cf", "-"] + (format == "gnu" ? ["--no-recursion"] : []) + [path])
      try #require(outcome.succeeded, "\(outcome.errorText)")
      let listing = try TarListing.reading(outcome.output, longest: 3000)
      #expect(listing.members.map(\.path) == [path])
      #expect(listing.members[0].data == (format == "ustar" ? content(1300) : []))
    }
  }

  @Test("sizes of 8 GiB and more are read in both ways of writing them") func largeSizes() throws {
    for (size, format) in [
      ("8589934591", "USTAR"), ("8589934592", "GNU"), ("1099511627776", "GNU"), ("4611686018427387904", "GNU"),
    ] {
      let block = try python(
        """
        info = tarfile.TarInfo("base/5/16384")
        info.size = int(sys.argv[1])
        sys.stdout.buffer.write(info.tobuf(tarfile.\(format)_FORMAT))
        """, [size])
      var reader = TarReader()
      var events: [UInt64] = []
      try (block + [1, 2, 3]).withUnsafeBytes { bytes in
        try reader.feed(bytes) { event in
          if case .file(let header) = event { events.append(header.size) }
          if case .data(let data) = event { events.append(UInt64(data.count)) }
        }
      }
      #expect(events == [UInt64(size) ?? 0, 3])
      #expect(code { try reader.finish() } == .streamInvalid)
    }
  }

  @Test("an archive that is cut off anywhere isn't whole") func truncation() throws {
    let bytes = try archive("a|0|0600|700|\nb|0|0600|0|")
    // Behind the two blocks of zeros comes padding alone.
    let end = 512 + 1024 + 512 + 1024
    for count in stride(from: 0, to: bytes.count, by: 61) {
      let failure = code { _ = try TarListing.reading(Array(bytes.prefix(count)), longest: 4096) }
      #expect(failure == (count < end ? .streamInvalid : nil), "\(count) bytes")
    }
  }

  @Test("nothing may follow the end, and no single block of zeros is one") func behindTheEnd() throws {
    let bytes = try archive("a|0|0600|1|")
    var spoilt = bytes
    spoilt[bytes.count - 1] = 1
    #expect(code { _ = try TarListing.reading(spoilt, longest: 4096) } == .streamInvalid)
    let member = Array(bytes.prefix(1024))
    #expect(
      code { _ = try TarListing.reading(member + [UInt8](repeating: 0, count: 512) + member, longest: 99) }
        == .streamInvalid)
  }

  @Test("each flipped bit of a header is refused") func headerDamage() throws {
    let bytes = try archive("pg_wal/x|0|0600|0|")
    for position in 0..<512 {
      for bit in [0, 7] {
        var spoilt = bytes
        spoilt[position] ^= 1 << UInt8(bit)
        let failure = code { _ = try TarListing.reading(spoilt, longest: 4096) }
        // The checksum's own blanks and leading zeros may be written in several ways.
        #expect(failure == .streamInvalid || (148..<156).contains(position), "byte \(position)")
      }
    }
  }

  @Test(
    "names that lead out of the directory are refused",
    arguments: [
      "/etc/passwd", "../x", "a/../../x", "a/..", "a//b", "a/./b", ".", "..", "./", "./../x", ".//etc/passwd", "/",
      "./.",
    ])
  func unsafeNames(_ name: String) throws {
    for kind in ["0", "5", "2"] {
      let bytes = try archive("\(name)|\(kind)|0600|0|\(kind == "2" ? "/srv/x" : "")")
      let error = #expect(throws: TidemarkError.self) { try TarListing.reading(bytes, longest: 4096) }
      #expect(error?.code == .pathUnsafe, "\(name) of kind \(kind)")
    }
  }

  @Test(
    "a link's target is an absolute path without detours",
    arguments: ["", "relative", "/srv/../etc", "/", "/a//b", "../x"])
  func unsafeTargets(_ target: String) throws {
    let bytes = try archive("pg_tblspc/1|2|0777|0|\(target)")
    let error = #expect(throws: TidemarkError.self) { try TarListing.reading(bytes, longest: 4096) }
    #expect(error?.code == .pathUnsafe)
    #expect(error?.object == "pg_tblspc/1")
  }

  @Test("hard links, devices, pipes and extended headers are refused")
  func memberTypes() throws {
    #expect(code { _ = try TarListing.reading(try archive("a|1|0600|0|b"), longest: 4096) } == .pathUnsafe)
    for kind in ["3", "4", "6", "7", "x", "g", "L", "K", "S", "V"] {
      #expect(code { _ = try TarListing.reading(try archive("a|\(kind)|0600|0|"), longest: 4096) } == .streamInvalid)
    }
    let pax = try archive("\(String(repeating: "ä", count: 200))|0|0600|0|", format: "PAX")
    // Its extended header has the name "././@PaxHeader".
    #expect(code { _ = try TarListing.reading(pax, longest: 4096) } == .pathUnsafe)
  }

  @Test("names that aren't UTF-8 or would write on a terminal are refused or shown harmlessly") func oddNames() throws {
    let invalid = try python(
      """
      info = tarfile.TarInfo("a")
      buf = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
      buf[0:2] = b"\\xff\\xfe"
      buf[148:156] = b" " * 8
      buf[148:156] = b"%06o\\0 " % sum(buf)
      sys.stdout.buffer.write(buf)
      """)
    #expect(code { _ = try TarListing.reading(invalid, longest: 99) } == .pathUnsafe)
    let error = #expect(throws: TidemarkError.self) {
      try TarListing.reading(try archive("a/../\u{1B}[2Jx|0|0600|0|"), longest: 4096)
    }
    #expect(error?.object?.contains("\u{1B}") == false)
  }

  @Test("sizes and modes that aren't numbers are refused") func oddNumbers() throws {
    for (offset, field) in [
      (124, "00000000008\\0"), (124, "-0000000001\\0"), (124, "           \\0"),
      (124, "\\xff" + String(repeating: "\\xff", count: 11)),
      (124, "\\x80\\xff" + String(repeating: "\\xff", count: 10)),
      (124, "\\x80\\0\\0\\0\\x7f" + String(repeating: "\\xff", count: 7)),
      (100, "0x1ff  \\0"),
    ] {
      let block = try python(
        """
        buf = bytearray(tarfile.TarInfo("a").tobuf(tarfile.USTAR_FORMAT))
        field = b"\(field)"
        buf[\(offset):\(offset) + len(field)] = field
        buf[148:156] = b" " * 8
        buf[148:156] = b"%06o\\0 " % sum(buf)
        sys.stdout.buffer.write(buf)
        """)
      #expect(code { _ = try TarListing.reading(block, longest: 512) } == .streamInvalid, "\(field)")
    }
  }

  @Test("what the taker throws ends the reading") func takerThrows() throws {
    let bytes = try archive("a|0|0600|1|")
    var reader = TarReader()
    let failure = code {
      try bytes.withUnsafeBytes { buffer in
        try reader.feed(buffer) { (_) throws(TidemarkError) in throw TidemarkError(.interrupted, "enough") }
      }
    }
    #expect(failure == .interrupted)
  }
}
