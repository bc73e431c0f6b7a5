// One 512-byte header of a ustar archive (POSIX.1-2017, pax utility, "ustar Interchange Format"; PostgreSQL's writer
// is src/port/tar.c). A header whose checksum is wrong is refused, whatever else it says.
import Diagnostics

/// What a tar header says of a member. Owner, group and times are ignored: a restore sets its own.
package struct TarHeader: Sendable, Hashable {
  /// Relative to the archive's root, without a slash at its end; never with `.` or `..`.
  package var path: String
  /// In bytes; zero for directories and links.
  package var size: UInt64
  /// The permission bits, 0o7777 at most.
  package var mode: UInt32

  package init(path: String, size: UInt64, mode: UInt32) {
    self.path = path
    self.size = size
    self.mode = mode
  }

  enum Kind: Hashable {
    case file
    case directory
    case symbolicLink(target: String)
  }

  /// Parses a header block.
  /// - Throws: `stream-invalid` for damage and member types that a server doesn't send, `path-unsafe` for names that
  ///   could leave the directory, and for hard links.
  static func parse(_ block: UnsafeRawBufferPointer) throws(TidemarkError) -> (TarHeader, Kind) {
    precondition(block.count == blockByteCount)
    try verifyChecksum(block)
    // "ustar" and NUL is POSIX's magic; GNU tar writes "ustar  ", and what it puts into the prefix isn't a prefix.
    let isPOSIX = block[257..<263].elementsEqual("ustar\0".utf8)
    guard isPOSIX || block[257..<265].elementsEqual("ustar  \0".utf8) else {
      throw TidemarkError(.streamInvalid, "not a ustar header", cause: "the magic is missing")
    }
    let prefix = isPOSIX ? field(block, 345, 155) : []
    let name = (prefix.isEmpty ? [] : prefix + [UInt8(ascii: "/")]) + field(block, 0, 100)
    let path = try SafePath.relative(name)
    func invalid(_ what: String) -> TidemarkError {
      TidemarkError(.streamInvalid, "cannot read a tar member's header", object: path, cause: what)
    }
    guard let size = number(block, 124, 12) else { throw invalid("the size isn't a number") }
    // Sizes above 2^62 would overflow when rounded up to blocks; no file has them.
    guard size <= 1 << 62 else { throw invalid("the size is impossible") }
    guard let mode = number(block, 100, 8) else { throw invalid("the mode isn't a number") }
    var header = TarHeader(path: path, size: size, mode: UInt32(truncatingIfNeeded: mode) & 0o7777)
    switch block[156] {
    case UInt8(ascii: "0"), 0:
      return (header, .file)
    case UInt8(ascii: "5"):
      header.size = 0
      return (header, .directory)
    case UInt8(ascii: "2"):
      header.size = 0
      do throws(TidemarkError) {
        return (header, .symbolicLink(target: try SafePath.absolute(field(block, 157, 100))))
      } catch {
        throw TidemarkError(.pathUnsafe, "refusing a symbolic link", object: path, cause: error.description)
      }
    case UInt8(ascii: "1"):
      throw TidemarkError(.pathUnsafe, "refusing a hard link", object: path)
    case let type:
      throw invalid("member type 0x\(hexadecimalText(type, width: 2)) isn't supported")
    }
  }

  static let blockByteCount = 512

  /// The bytes of a text field up to its NUL.
  private static func field(_ block: UnsafeRawBufferPointer, _ start: Int, _ width: Int) -> [UInt8] {
    Array(block[start..<start + width].prefix { $0 != 0 })
  }

  /// The sum of all bytes, the checksum field itself counted as blanks.
  private static func verifyChecksum(_ block: UnsafeRawBufferPointer) throws(TidemarkError) {
    var sum: UInt64 = 0
    for index in 0..<blockByteCount { sum += (148..<156).contains(index) ? 0x20 : UInt64(block[index]) }
    guard let stated = number(block, 148, 8), stated == sum else {
      throw TidemarkError(
        .streamInvalid, "damaged tar header",
        cause: "the checksum is \(sum), the header says \(number(block, 148, 8).map(String.init) ?? "nothing")")
    }
  }

  /// A number in octal, or in base 256 where the first bit is set: what GNU tar, pax and PostgreSQL
  /// (`print_tar_number`) use for 8 GiB and more. Nil for garbage, negative numbers, and more than 64 bits.
  private static func number(_ block: UnsafeRawBufferPointer, _ start: Int, _ width: Int) -> UInt64? {
    var field = block[start..<start + width]
    var value: UInt64 = 0
    if let first = field.first, first & 0x80 != 0 {
      guard first == 0x80 else { return nil }
      for byte in field.dropFirst() {
        if value >> 56 != 0 { return nil }
        value = value << 8 | UInt64(byte)
      }
      return value
    }
    field = field.drop { $0 == UInt8(ascii: " ") }
    let digits = field.prefix { $0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "7") }
    guard !digits.isEmpty, field.dropFirst(digits.count).allSatisfy({ $0 == 0 || $0 == UInt8(ascii: " ") }) else {
      return nil
    }
    for digit in digits { value = value << 3 | UInt64(digit & 7) }
    return value
  }
}
