// WAL, history and control files that real servers wrote, read as PostgreSQL's own tools read them.
import Diagnostics
import Foundation
import SystemSupport
import TestSupport
import Testing

@testable import PostgresFormats

@Suite("Files that servers write")
struct RealWALTests {
  /// A server with segments of 1 MiB, so that few rows fill several.
  private func server(_ version: ServerVersion) throws -> PostgresServer {
    var options = PostgresServer.Options()
    options.initdbArguments = ["--wal-segsize=1"]
    options.settings = ["max_prepared_transactions": "4", "wal_keep_size": "512MB", "autovacuum": "off"]
    return try PostgresServer(version, options)
  }

  private static let size = WALSegmentSize(byteCount: 1 << 20)!

  @Test("the records that matter are those that pg_waldump shows", arguments: ServerVersion.allAvailable)
  func records(_ version: ServerVersion) throws {
    let server = try server(version)
    let first = try server.psql("SELECT pg_walfile_name(pg_switch_wal() + 1)")
    let location = "\(server.temporaryPath)/spaces with blanks"
    try DurableFile.createDirectories(location)
    try PostgresServer.give(location)
    try server.psql("CREATE TABLE t (id int, note text)")
    try server.psql("CREATE TABLESPACE roomy LOCATION '\(location)'")
    for step in 1...12 {
      try server.psql(
        "BEGIN; INSERT INTO t SELECT g, repeat(md5(g::text), 8) FROM generate_series(1, \(step * 60)) g; COMMIT")
      try server.psql("BEGIN; DELETE FROM t WHERE id = \(step); ROLLBACK")
      if step.isMultiple(of: 4) { try server.psql("SELECT pg_create_restore_point('step \(step), größer')") }
    }
    try server.psql("BEGIN; INSERT INTO t VALUES (0, 'two phases'); PREPARE TRANSACTION 'a'")
    try server.psql("BEGIN; INSERT INTO t VALUES (0, 'two phases'); PREPARE TRANSACTION 'b'")
    try server.psql("COMMIT PREPARED 'a'")
    try server.psql("ROLLBACK PREPARED 'b'")
    // A record of several pages, and one that spans segments.
    try server.psql("SELECT pg_logical_emit_message(true, 'p', repeat('x', 1500000))")
    let system = try #require(
      SystemIdentifier(text: try server.psql("SELECT system_identifier FROM pg_control_system()")))
    let last = try server.psql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
    try server.psql("SELECT pg_switch_wal()")
    try server.stop()

    let directory = "\(server.dataDirectory)/pg_wal"
    let dump = try server.tool("pg_waldump", ["-p", directory, first, last])
    let records = try Self.records(dump)
    var name = try #require(WALSegmentName(first))
    var found: [String] = []
    var tablespaces: [String] = []
    while name <= (try #require(WALSegmentName(last))) {
      let bytes = try contents("\(directory)/\(name)")
      try bytes.withUnsafeBytes { buffer in
        let header = try WALSegmentCheck.check(
          name, first: buffer, fileByteCount: UInt64(buffer.count), systemIdentifier: system, size: Self.size)
        #expect(header.version.rawValue == version.rawValue)
        let summary = try WALSegmentScanner.scan(buffer, name: name) { found.append(Self.line($0, &tablespaces)) }
        try expectEnd(summary, of: name, records)
      }
      name = try name.next(Self.size)
    }
    #expect(found == Self.lines(dump))
    #expect(found.filter { $0.hasPrefix("COMMIT") }.count >= 14)
    #expect(found.contains { $0.contains("step 8, größer") })
    #expect(tablespaces == [location])
  }

  /// The summary's end, and where the last whole record begins, as the dump has it.
  private func expectEnd(_ summary: WALSegmentSummary, of name: WALSegmentName, _ all: [(lsn: LSN, isSwitch: Bool)])
    throws
  {
    let end = try name.endLSN(Self.size)
    let records = try all.filter { try $0.lsn >= name.startLSN(Self.size) && $0.lsn < end }
    if let last = records.last, last.isSwitch {
      #expect(summary.lastRecord == last.lsn)
      #expect(summary.end == LSN(rawValue: last.lsn.rawValue + 24))
    } else {
      #expect(summary.end == end)
      // The one before the last when that goes on in the next segment.
      #expect(records.suffix(2).map(\.lsn).contains(summary.lastRecord ?? end) || records.count <= 1)
    }
  }

  private static func records(_ dump: String) throws -> [(lsn: LSN, isSwitch: Bool)] {
    try dump.matches(of: /lsn: ([0-9A-F]+\/[0-9A-F]+), prev [0-9A-F\/]+, desc: (SWITCH)?/).map {
      (try LSN(text: $0.output.1), $0.output.2 != nil)
    }
  }

  private static func line(_ event: WALRecordEvent, _ tablespaces: inout [String]) -> String {
    switch event {
    case .commit(let xid, let time, let lsn): return "COMMIT \(xid) \(lsn) \(RecoveryTime(microseconds: time))"
    case .abort(let xid, let time, let lsn): return "ABORT \(xid) \(lsn) \(RecoveryTime(microseconds: time))"
    case .restorePoint(let name, _, let lsn): return "POINT \(lsn) \(name)"
    case .createTablespace(_, let path, let lsn):
      tablespaces.append(path)
      return "SPACE \(lsn) \(path)"
    }
  }

  /// The same events in pg_waldump's words (xactdesc.c, xlogdesc.c, tblspcdesc.c).
  private static func lines(_ dump: String) -> [String] {
    dump.split(separator: "\n").compactMap { line in
      guard ["Transaction", "XLOG", "Tablespace"].contains(where: { line.hasPrefix("rmgr: \($0) ") }) else {
        return nil
      }
      guard let match = line.firstMatch(of: /tx: +(\d+), lsn: ([0-9A-F]+)\/0*([0-9A-F]+), prev [^,]+, desc: (.*)$/)
      else {
        return nil
      }
      let (xid, lsn, text) = (match.output.1, "\(match.output.2)/\(match.output.3)", match.output.4)
      if line.hasPrefix("rmgr: Transaction"),
        let end = text.firstMatch(of: /^(COMMIT|ABORT)(_PREPARED)?(?: (\d+):)? (\d\S+) (\d[\d:]+)(\.\d+)? UTC/)
      {
        // The dump always has six digits.
        let fraction = (end.output.6 ?? "").reversed().drop { $0 == "0" }.reversed()
        let rest = fraction.count > 1 ? String(String(end.output.6 ?? "").prefix(7)) : ""
        // The end of a prepared transaction is a record of no transaction; its text has the number.
        return "\(end.output.1) \(end.output.3 ?? xid) \(lsn) \(end.output.4)T\(end.output.5)\(rest)Z"
      }
      if let point = text.firstMatch(of: /^RESTORE_POINT (.*)$/) { return "POINT \(lsn) \(point.output.1)" }
      if let space = text.firstMatch(of: /^CREATE \d+ "(.*)"$/), line.contains("Tablespace") {
        return "SPACE \(lsn) \(space.output.1)"
      }
      return nil
    }
  }

  @Test("names, control files and histories are the server's", arguments: ServerVersion.allAvailable)
  func state(_ version: ServerVersion) throws {
    let server = try server(version)
    try names(server)
    try controlFile(server)
    try promotion(server)
  }

  /// The names of segments.
  private func names(_ server: PostgresServer) throws {
    var numbers = SeededNumbers(31)
    let positions = (0..<200).map { _ in
      // PostgreSQL 15 and 18 differ at boundaries alone.
      LSN(rawValue: UInt64.random(in: 1 << 20...(.max >> 8), using: &numbers) | 1)
    }
    let list = positions.map { "('\($0)'::pg_lsn)" }.joined(separator: ",")
    let answer = try server.psql("SELECT pg_walfile_name(l), l FROM (VALUES \(list)) v(l)")
    #expect(
      answer.split(separator: "\n").map(String.init)
        == positions.map { "\(WALSegmentName(timeline: TimelineID(1), containing: $0, size: Self.size))|\($0)" })
  }

  /// What pg_controldata says. Leaves the server stopped.
  private func controlFile(_ server: PostgresServer) throws {
    let path = "\(server.dataDirectory)/global/pg_control"
    #expect(try ControlFile(contents(path)).state == 6)
    try server.stop()
    let bytes = try contents(path)
    let control = try ControlFile(bytes)
    let report = try server.tool("pg_controldata", ["-D", server.dataDirectory])
    func said(_ name: String) -> String? {
      report.split(separator: "\n").first { $0.hasPrefix(name) }.map {
        $0.dropFirst(name.count).trimmingCharacters(in: .whitespaces)
      }
    }
    #expect(said("Database system identifier:") == control.systemIdentifier.description)
    #expect(said("pg_control version number:") == "\(control.controlVersion)")
    #expect(said("Catalog version number:") == "\(control.catalogVersion)")
    #expect(said("Latest checkpoint location:") == control.checkpoint.description)
    #expect(said("Latest checkpoint's TimeLineID:") == control.timeline.description)
    #expect(said("Database cluster state:") == "shut down" && control.state == 1)
    #expect(said("Minimum recovery ending location:") == control.minimumRecoveryEnd.description)
    #expect(said("Min recovery ending loc's timeline:") == "\(control.minimumRecoveryTimeline.rawValue)")
    #expect(said("Bytes per WAL segment:") == "\(control.segmentSize.byteCount)")
    // A file that is being written is read again, one that stays wrong is refused.
    var half = bytes
    half.replaceSubrange(0..<8, with: [UInt8](repeating: 0xAA, count: 8))
    var readings = 0
    let reread = try ControlFile(rereading: {
      readings += 1
      return readings < 3 ? half : bytes
    })
    #expect(reread == control && readings == 3)
    #expect(code { _ = try ControlFile(rereading: { half }) } == .walFileInvalid)
    // Each bit before the checksum's end counts, and no cut file passes.
    for position in 0..<296 {
      var spoilt = bytes
      spoilt[position] ^= 0x10
      let failure = code { _ = try ControlFile(spoilt) }
      #expect(failure == .walFileInvalid || (position >= 292 && server.version == .v15), "byte \(position)")
    }
    for count in [0, 1, 15, 16, 295, 296, 511] {
      #expect(code { _ = try ControlFile(Array(bytes.prefix(count))) } == .walFileInvalid)
    }
  }

  /// Two promotions of the stopped server, and their histories.
  private func promotion(_ server: PostgresServer) throws {
    for timeline: UInt32 in 2...3 {
      try DurableFile.write([], to: "\(server.dataDirectory)/recovery.signal")
      try PostgresServer.give("\(server.dataDirectory)/recovery.signal")
      try server.start(settings: ["restore_command": "false"])
      try #require(try eventually { try server.psql("SELECT pg_is_in_recovery()") == "f" })
      try server.psql("CREATE TABLE t\(timeline) (id int); CHECKPOINT")
      let bytes = try contents("\(server.dataDirectory)/pg_wal/\(TimelineID(timeline).historyFileName)")
      let history = try TimelineHistory(timeline: TimelineID(timeline), parsing: bytes)
      #expect(history.entries.map(\.timeline.rawValue) == Array(1..<timeline))
      #expect(history.entries.allSatisfy { $0.reason == "no recovery target specified" })
      #expect(history.fileText == String(decoding: bytes, as: UTF8.self))
      let now = try LSN(text: try server.psql("SELECT pg_current_wal_lsn()"))
      let left = try #require(history.entries.last)
      #expect(left.switchLSN <= now && left.switchLSN.isValid)
      #expect(history.timeline(of: now) == TimelineID(timeline))
      #expect(history.timeline(of: LSN(rawValue: left.switchLSN.rawValue - 1)) == left.timeline)
      let name = WALSegmentName(timeline: TimelineID(timeline), containing: left.switchLSN, size: Self.size)
      let segment = try contents("\(server.dataDirectory)/pg_wal/\(name)")
      let header = try segment.withUnsafeBytes {
        try WALSegmentCheck.check(name, first: $0, fileByteCount: UInt64($0.count), systemIdentifier: nil)
      }
      // Copied from the parent up to the switch (`XLogFileCopy`), unless it falls on the first page.
      #expect(header.timeline == TimelineID(timeline) || history.entries.contains { $0.timeline == header.timeline })
      try server.stop()
    }
  }
}
