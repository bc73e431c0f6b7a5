// The grammar of BASE_BACKUP's answer, fed by hand: what the protocol allows, and each way of breaking it.
import Diagnostics
import PostgresFormats
import Testing

@testable import PostgresReplication

@Suite("The base backup's protocol") struct BaseBackupProtocolTests {
  /// One step of a stream.
  enum Step: Sendable {
    case rows([[String?]])
    case copyOut
    case message(String, [UInt8])
    case copyDone
    case complete
    case error(String)
    case end
  }

  static let start = Step.rows([["0/2000028", "1"]])
  static let tablespaces = Step.rows([["16385", "/srv/fast", "10"], [nil, nil, "2000"]])
  static let first = Step.message("n", Array("16385.tar\0/srv/fast\0".utf8))
  static let main = Step.message("n", Array("base.tar\0\0".utf8))
  static let data = Step.message("d", [1, 2, 3])
  static let manifest = Step.message("m", [])
  static let stop = Step.rows([["0/2000120", "1"]])
  static let whole: [Step] = [
    start, tablespaces, .copyOut, first, data, main, data, .message("p", [0, 0, 0, 0, 0, 1, 0, 2]), manifest, data,
    .copyDone, stop, .complete, .end,
  ]

  /// Feeds `steps` and returns the names of the events.
  func feed(_ steps: [Step]) throws -> [String] {
    var machine = BaseBackupProtocol()
    var names: [String] = []
    for step in steps {
      try receive(step, &machine) { event in
        switch event {
        case .started(let start): names.append("started \(start.startLSN) \(start.estimatedByteCount)")
        case .archive(let archive): names.append("archive \(archive.tablespace.archiveName)")
        case .data(let bytes): names.append("data \(bytes.count)")
        case .progress(let count): names.append("progress \(count)")
        case .manifestBegins: names.append("manifest")
        case .manifestData(let bytes): names.append("manifest data \(bytes.count)")
        case .finished(let end): names.append("finished \(end.stopLSN) \(end.checksumFailure ?? "sound")")
        }
      }
    }
    return names
  }

  func receive(_ step: Step, _ machine: inout BaseBackupProtocol, _ take: (BaseBackupEvent) -> Void) throws {
    let refused = { (message: ServerMessage) in TidemarkError(.serverFailed, "refused", cause: message.sqlState) }
    func give(_ input: BaseBackupProtocol.Input) throws {
      if let event = try machine.receive(input, refused: refused) { take(event) }
    }
    switch step {
    case .rows(let rows): try give(.rows(QueryRows(columns: [], rows: rows)))
    case .copyOut: try give(.copyOut)
    case .copyDone: try give(.copyDone)
    case .complete: try give(.commandComplete)
    case .error(let state): try give(.error(ServerMessage(severity: "ERROR", sqlState: state, message: "no")))
    case .end: try give(.end)
    case .message(let kind, let body):
      try (Array(kind.utf8) + body).withUnsafeBytes { try give(.copyData($0)) }
    }
  }

  @Test("a whole stream gives its events in order")
  func wholeStream() throws {
    #expect(
      try feed(Self.whole) == [
        "started 0/2000028 2058240", "archive 16385.tar", "data 3", "archive base.tar", "data 3", "progress 65538",
        "manifest", "manifest data 3", "finished 0/2000120 sound",
      ])
  }

  @Test("checksum failures reported after the stop position finish the backup")
  func checksumFailure() throws {
    let names = try feed(Self.whole.dropLast(2) + [.error("XX001"), .end])
    #expect(names.last == "finished 0/2000120 ERROR XX001: no")
  }

  @Test("another error after the stop position fails the backup")
  func lateError() throws {
    let error = #expect(throws: TidemarkError.self) { try feed(Self.whole.dropLast(2) + [.error("57014")]) }
    #expect(error?.code == .serverFailed)
  }

  @Test("an error in the middle of the copy is the server's, not a broken protocol")
  func errorInCopy() throws {
    let error = #expect(throws: TidemarkError.self) {
      try feed(Array(Self.whole[..<5]) + [.copyDone, .error("58030")])
    }
    #expect(error?.cause == "58030")
  }

  @Test("nothing is finished before the server has said so")
  func unfinished() throws {
    for count in 0..<Self.whole.count {
      #expect(try !feed(Array(Self.whole[..<count])).contains { $0.hasPrefix("finished") })
    }
  }

  static let broken: [(String, [Step])] = [
    ("no start position", [tablespaces]),
    ("a start position that isn't one", [.rows([["2000028", "1"]])]),
    ("timeline zero", [.rows([["0/2000028", "0"]])]),
    ("two start positions", [.rows([["0/28", "1"], ["0/28", "1"]])]),
    ("no tablespaces at all", [start, .rows([])]),
    ("a main directory that isn't last", [start, .rows([[nil, nil, "1"], ["16385", "/srv", "1"]])]),
    ("a tablespace twice", [start, .rows([["7", "/a", "1"], ["7", "/b", "1"], [nil, nil, "1"]])]),
    ("a negative size", [start, .rows([[nil, nil, "-1"]])]),
    ("a size that overflows", [start, .rows([[nil, nil, "9223372036854775807"]])]),
    ("data before an archive", Array(whole[..<3]) + [data]),
    ("an empty message", Array(whole[..<3]) + [.message("", [])]),
    ("archives in another order", Array(whole[..<3]) + [main]),
    ("an archive at another location", Array(whole[..<3]) + [.message("n", Array("16385.tar\0/srv\0".utf8))]),
    ("an archive's name without its end", Array(whole[..<3]) + [.message("n", Array("16385.tar".utf8))]),
    ("bytes after an archive's name", Array(whole[..<3]) + [.message("n", Array("16385.tar\0/srv/fast\0x".utf8))]),
    ("an archive that wasn't announced", Array(whole[..<7]) + [.message("n", Array("9.tar\0/x\0".utf8))]),
    ("a manifest before the last archive", Array(whole[..<5]) + [manifest]),
    ("a second manifest", Array(whole[..<9]) + [manifest]),
    ("an archive after the manifest", Array(whole[..<9]) + [main]),
    ("a short progress report", Array(whole[..<5]) + [.message("p", [1])]),
    ("a message of an unknown type", Array(whole[..<5]) + [.message("z", [1])]),
    ("an end without a manifest", Array(whole[..<7]) + [.copyDone, stop]),
    ("a stop before the start", Array(whole[..<11]) + [.rows([["0/1000000", "1"]])]),
    ("no stop position", Array(whole[..<11]) + [.complete]),
    ("nothing after the copy", Array(whole[..<11]) + [.end]),
    ("nothing at all", [.end]),
  ]

  @Test("a broken stream is refused", arguments: broken)
  func refuses(name: String, steps: [Step]) throws {
    // All but the last step are sound.
    _ = try feed(steps.dropLast())
    let error = #expect(throws: TidemarkError.self) { try feed(steps) }
    #expect(error?.code == .streamInvalid)
  }
}
