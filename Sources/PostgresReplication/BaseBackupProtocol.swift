// The grammar of BASE_BACKUP's answer as a state machine without I/O: results and messages in, events out.
// It refuses whatever the grammar doesn't allow: archives that weren't announced or come in another order, data outside
// of an archive, a manifest before the last archive, an end without a manifest.
import Diagnostics
import PostgresFormats

/// The protocol's state.
///
/// The server's answer: a row (start LSN, timeline), rows (one for each archive), COPY OUT with typed messages, a row
/// (stop LSN, timeline), then the end of the command. Where page checksums didn't match, an ERROR with SQLSTATE XX001
/// stands for the latter.
/// Source: PostgreSQL manual, BASE_BACKUP; src/backend/backup/basebackup_copy.c.
struct BaseBackupProtocol {
  /// What came from the server.
  enum Input {
    case rows(QueryRows)
    case copyOut
    case copyData(UnsafeRawBufferPointer)
    case copyDone
    case commandComplete
    case error(ServerMessage)
    /// There are no more results.
    case end
  }

  private enum State {
    case beforeStart
    case beforeTablespaces(LSN, TimelineID)
    case beforeCopy(BaseBackupStart)
    /// `next` counts the archives that have begun.
    case inArchives(BaseBackupStart, next: Int)
    case inManifest(BaseBackupStart)
    /// The copy ended before the manifest; only an error can explain it.
    case cutShort
    case beforeStop(BaseBackupStart)
    case beforeCompletion(BaseBackupEnd)
    case beforeEnd(BaseBackupEnd)
    case ended
  }

  private var state = State.beforeStart

  /// Whether the stream has begun.
  var hasStarted: Bool {
    switch state {
    case .beforeStart, .beforeTablespaces: false
    default: true
    }
  }

  var hasEnded: Bool { if case .ended = state { true } else { false } }

  /// Takes what came and returns the event that it stands for, if it does.
  /// - Parameter refused: makes the error for a message of the server.
  /// - Throws: ``ErrorCode/streamInvalid``, or what `refused` makes.
  mutating func receive(
    _ input: Input, refused: (ServerMessage) -> TidemarkError
  ) throws(TidemarkError) -> BaseBackupEvent? {
    switch (state, input) {
    case (.beforeStart, .rows(let rows)):
      let (lsn, timeline) = try position(rows)
      state = .beforeTablespaces(lsn, timeline)
      return nil
    case (.beforeTablespaces(let lsn, let timeline), .rows(let rows)):
      let start = BaseBackupStart(startLSN: lsn, timeline: timeline, tablespaces: try tablespaces(rows))
      state = .beforeCopy(start)
      return .started(start)
    case (.beforeCopy(let start), .copyOut):
      state = .inArchives(start, next: 0)
      return nil
    case (.inArchives, .copyData(let message)), (.inManifest, .copyData(let message)):
      return try receive(message)
    case (.inManifest(let start), .copyDone):
      state = .beforeStop(start)
      return nil
    case (.inArchives, .copyDone):
      // An error of the server ends the copy too, and comes as the next result.
      state = .cutShort
      return nil
    case (.beforeStop(let start), .rows(let rows)):
      let (lsn, timeline) = try position(rows)
      guard lsn >= start.startLSN else {
        throw invalid("the backup stops at \(lsn), before its start at \(start.startLSN)")
      }
      state = .beforeCompletion(BaseBackupEnd(stopLSN: lsn, timeline: timeline))
      return nil
    case (.beforeCompletion(let end), .commandComplete):
      state = .beforeEnd(end)
      return nil
    case (.beforeCompletion(var end), .error(let message)) where message.sqlState == "XX001":
      end.checksumFailure = message.description
      state = .beforeEnd(end)
      return nil
    case (.beforeEnd(let end), .end):
      state = .ended
      return .finished(end)
    case (_, .error(let message)):
      throw refused(message)
    default:
      throw invalid("\(name(of: input)) came \(name(of: state))")
    }
  }

  /// A message inside COPY.
  private mutating func receive(_ message: UnsafeRawBufferPointer) throws(TidemarkError) -> BaseBackupEvent? {
    guard let kind = message.first else { throw invalid("an empty message") }
    let body = UnsafeRawBufferPointer(rebasing: message[1...])
    switch (kind, state) {
    case (UInt8(ascii: "d"), .inArchives(_, let next)) where next > 0:
      return body.isEmpty ? nil : .data(body)
    case (UInt8(ascii: "d"), .inManifest):
      return body.isEmpty ? nil : .manifestData(body)
    case (UInt8(ascii: "n"), .inArchives(let start, let next)) where next < start.tablespaces.count:
      let tablespace = start.tablespaces[next]
      let fields = body.split(separator: 0, maxSplits: 2, omittingEmptySubsequences: false)
      guard fields.count == 3, fields[2].isEmpty else { throw invalid("the name of an archive can't be read") }
      guard fields[0].elementsEqual(tablespace.archiveName.utf8) else {
        let name = String(decoding: fields[0].prefix(64), as: UTF8.self)
        throw invalid("archive '\(name)' came instead of '\(tablespace.archiveName)'")
      }
      guard fields[1].elementsEqual((tablespace.location ?? "").utf8) else {
        throw invalid("archive '\(tablespace.archiveName)' came with another location than announced")
      }
      state = .inArchives(start, next: next + 1)
      return .archive(BaseBackupArchive(tablespace: tablespace))
    case (UInt8(ascii: "m"), .inArchives(let start, let next)) where next == start.tablespaces.count:
      guard body.isEmpty else { throw invalid("the mark before the manifest has a body") }
      state = .inManifest(start)
      return .manifestBegins
    case (UInt8(ascii: "p"), _):
      guard body.count == 8 else { throw invalid("a progress report of \(body.count) bytes") }
      return .progress(byteCount: Int64(bitPattern: body.reduce(0) { $0 << 8 | UInt64($1) }))
    default:
      throw invalid("a message of type \(kind) came \(name(of: state))")
    }
  }

  // MARK: Results

  private func position(_ rows: QueryRows) throws(TidemarkError) -> (LSN, TimelineID) {
    // What isn't a position is refused below.
    guard rows.rows.count == 1, rows.rows[0].count == 2, let text = rows.rows[0][0], let lsn = try? LSN(text: text),
      let number = rows.rows[0][1].flatMap({ UInt32($0) }), number > 0
    else { throw invalid("an LSN and a timeline were expected") }
    return (lsn, TimelineID(rawValue: number))
  }

  /// Columns: oid, location, size in KiB. The main data directory has NULL for the first two and is the last.
  private func tablespaces(_ rows: QueryRows) throws(TidemarkError) -> [BaseBackupTablespace] {
    var result: [BaseBackupTablespace] = []
    for (index, row) in rows.rows.enumerated() {
      guard row.count == 3 else { throw invalid("the list of tablespaces has \(row.count) columns") }
      var size: Int64?
      if let text = row[2] {
        guard let number = Int64(text), (0...(Int64.max >> 20)).contains(number) else {
          throw invalid("a tablespace's size can't be read")
        }
        size = number << 10
      }
      let isLast = index == rows.rows.count - 1
      switch (row[0], row[1]) {
      case (nil, nil) where isLast:
        result.append(BaseBackupTablespace(oid: nil, location: nil, estimatedByteCount: size))
      case (let oid?, let location?) where !isLast:
        guard let number = UInt32(oid), number > 0, !result.contains(where: { $0.oid == number }) else {
          throw invalid("a tablespace's oid can't be read or comes twice")
        }
        result.append(BaseBackupTablespace(oid: number, location: location, estimatedByteCount: size))
      default:
        throw invalid("the list of tablespaces doesn't end with the main data directory")
      }
    }
    if result.isEmpty { throw invalid("the list of tablespaces is empty") }
    return result
  }

  // MARK: Errors

  private func invalid(_ cause: String) -> TidemarkError {
    TidemarkError(.streamInvalid, "the base backup's stream breaks the protocol", cause: cause)
  }

  private func name(of input: Input) -> String {
    switch input {
    case .rows: "a row set"
    case .copyOut: "the start of the copy"
    case .copyData: "data"
    case .copyDone: "the end of the copy"
    case .commandComplete: "the end of the command"
    case .error: "an error"
    case .end: "the end of all results"
    }
  }

  private func name(of state: State) -> String {
    switch state {
    case .beforeStart: "before the start position"
    case .beforeTablespaces: "before the list of tablespaces"
    case .beforeCopy: "before the copy"
    case .inArchives(let start, let next): "after \(next) of \(start.tablespaces.count) archives"
    case .inManifest: "in the manifest"
    case .cutShort: "after a copy without a manifest"
    case .beforeStop: "before the stop position"
    case .beforeCompletion: "after the stop position"
    case .beforeEnd, .ended: "after the end of the command"
    }
  }
}
