// Why a value can't be used, as the end of a sentence that begins with its key.

/// A value's refusal: "is not a number from 1 to 19".
struct Refusal: Error, Equatable {
  let reason: String
  init(_ reason: String) { self.reason = reason }
}
