// An owned PGresult: cleared exactly once, read with checked positions.
import CLibpq

/// One result of a command.
struct ServerResult: ~Copyable {
  private let pointer: OpaquePointer

  init(_ pointer: OpaquePointer) { self.pointer = pointer }
  deinit { libpq.PQclear(pointer) }

  var status: ExecStatusType { libpq.PQresultStatus(pointer) }
  var message: ServerMessage { ServerMessage(pointer) }
  /// The error as libpq puts it, with SQLSTATE.
  var text: String { string(libpq.PQresultErrorMessage(pointer)) ?? "" }

  /// All rows, as text.
  func rows() -> QueryRows {
    let columnCount = libpq.PQnfields(pointer)
    let columns = (0..<columnCount).map { string(libpq.PQfname(pointer, $0)) ?? "" }
    let rows = (0..<libpq.PQntuples(pointer)).map { row in
      (0..<columnCount).map { column -> String? in
        if libpq.PQgetisnull(pointer, row, column) == 1 { return nil }
        guard let value = libpq.PQgetvalue(pointer, row, column) else { return nil }
        let bytes = UnsafeRawBufferPointer(start: value, count: Int(libpq.PQgetlength(pointer, row, column)))
        return String(decoding: bytes, as: UTF8.self)
      }
    }
    return QueryRows(columns: columns, rows: rows)
  }
}
