// Strict hexadecimal, as PostgreSQL writes it in names and LSNs. Signs, blanks, prefixes and other scripts' digits,
// which `Int(_:radix:)` or sscanf would let through, are refused.

/// The value of one hexadecimal digit, or nil.
func hexadecimalValue(_ byte: UInt8, uppercaseOnly: Bool = false) -> UInt8? {
  switch byte {
  case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
  case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
  case UInt8(ascii: "a")...UInt8(ascii: "f"): uppercaseOnly ? nil : byte - UInt8(ascii: "a") + 10
  default: nil
  }
}

/// One to eight hexadecimal digits as a number, or nil.
func hexadecimalNumber(_ bytes: some Collection<UInt8>, uppercaseOnly: Bool = false) -> UInt32? {
  guard (1...8).contains(bytes.count) else { return nil }
  var value: UInt32 = 0
  for byte in bytes {
    guard let digit = hexadecimalValue(byte, uppercaseOnly: uppercaseOnly) else { return nil }
    value = value << 4 | UInt32(digit)
  }
  return value
}

/// An even number of hexadecimal digits as bytes, or nil.
func hexadecimalBytes(_ text: some Collection<UInt8>) -> [UInt8]? {
  guard text.count.isMultiple(of: 2) else { return nil }
  var bytes: [UInt8] = []
  bytes.reserveCapacity(text.count / 2)
  var high: UInt8?
  for byte in text {
    guard let digit = hexadecimalValue(byte) else { return nil }
    if let first = high {
      bytes.append(first << 4 | digit)
      high = nil
    } else {
      high = digit
    }
  }
  return bytes
}

/// `value` in upper-case digits, padded with zeros to `width`.
func hexadecimalText(_ value: some BinaryInteger, width: Int = 1) -> String {
  let digits = String(value, radix: 16, uppercase: true)
  return String(repeating: "0", count: max(0, width - digits.count)) + digits
}

/// One or more decimal digits as a number that fits `Value`, or nil.
func decimalNumber<Value: FixedWidthInteger & UnsignedInteger>(_ bytes: some Collection<UInt8>) -> Value? {
  guard !bytes.isEmpty else { return nil }
  var value: Value = 0
  for byte in bytes {
    guard byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") else { return nil }
    let (product, overflowed) = value.multipliedReportingOverflow(by: 10)
    let (sum, carried) = product.addingReportingOverflow(Value(byte - UInt8(ascii: "0")))
    if overflowed || carried { return nil }
    value = sum
  }
  return value
}
