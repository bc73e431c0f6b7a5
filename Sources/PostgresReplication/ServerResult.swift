// An owned PGresult: cleared exactly once, read with checked positions.
import CLibpq

/// One result of a command.
struct ServerResult: ~Copyable {
  private let pointer: OpaquePointer

  init(_ pointer: OpaquePointer) { self.pointer = pointer }
  deinit { PQclear(pointer) }

  var status: ExecStatusType { PQresultStatus(pointer) }
  var message: ServerMessage { ServerMessage(pointer) }
  /// The error as libpq puts it, with SQLSTATE.
  var text: String { string(PQresultErrorMessage(pointer)) ?? "" }

  /// All rows, as text.
  func rows() -> QueryRows {
    let columnCount = PQnfields(pointer)
    let columns = (0..<columnCount).map { string(PQfname(pointer, $0)) ?? "" }
    let rows = (0..<PQntuples(pointer)).map { row in
      (0..<columnCount).map { column -> String? in
        if PQgetisnull(pointer, row, column) == 1 { return nil }
        guard let value = PQgetvalue(pointer, row, column) else { return nil }
        let bytes = UnsafeRawBufferPointer(start: value, count: Int(PQgetlength(pointer, row, column)))
        return String(decoding: bytes, as: UTF8.self)
      }
    }
    return QueryRows(columns: columns, rows: rows)
  }
}
