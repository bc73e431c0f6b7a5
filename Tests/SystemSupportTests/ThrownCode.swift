// How these tests tell one error from another.
import Diagnostics

/// The code of the error that `body` throws, `nil` when it throws none.
func thrownCode(_ body: () throws -> Void) -> ErrorCode? {
  do { try body() } catch { return TidemarkError.wrapping(error).code }
  return nil
}
