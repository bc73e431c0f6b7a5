// Names that come from a tar stream or a manifest. Only relative paths that stay below their directory pass: a name
// from outside never reaches a file elsewhere.
import Diagnostics

package enum SafePath {
  /// The relative path in `bytes`, without slashes at its end.
  /// - Throws: `path-unsafe` for an absolute or empty path, an empty, `.` or `..` component, NUL, and names that
  ///   aren't UTF-8.
  static func relative(_ bytes: some Collection<UInt8>) throws(TidemarkError) -> String {
    var name = Array(bytes)
    while name.count > 1, name.last == UInt8(ascii: "/") { name.removeLast() }
    // The server writes "./pg_wal/archive_status" (basebackup.c, sendDir).
    if name.starts(with: "./".utf8) { name.removeFirst(2) }
    let path = try text(name)
    if name.isEmpty { throw unsafe(path, "the name is empty") }
    if name[0] == UInt8(ascii: "/") { throw unsafe(path, "the path is absolute") }
    try checkComponents(name[...], of: path)
    return path
  }

  /// The absolute path in `bytes`, the target of a tablespace's link.
  /// - Throws: `path-unsafe` for a relative path, `.` and `..`, NUL, and names that aren't UTF-8.
  package static func absolute(_ bytes: some Collection<UInt8>) throws(TidemarkError) -> String {
    var name = Array(bytes)
    while name.count > 1, name.last == UInt8(ascii: "/") { name.removeLast() }
    let path = try text(name)
    guard name.first == UInt8(ascii: "/"), name.count > 1 else { throw unsafe(path, "not an absolute path") }
    try checkComponents(name.dropFirst(), of: path)
    return path
  }

  private static func text(_ name: [UInt8]) throws(TidemarkError) -> String {
    guard let path = String(validating: name, as: UTF8.self) else {
      throw unsafe(String(decoding: name, as: UTF8.self), "the name isn't UTF-8")
    }
    if name.contains(0) { throw unsafe(path, "the name holds a NUL byte") }
    return path
  }

  private static func checkComponents(_ name: ArraySlice<UInt8>, of path: String) throws(TidemarkError) {
    // Twice for every file of a backup, so without a split.
    var byteCount = 0
    var dotCount = 0
    func endComponent() throws(TidemarkError) {
      switch (byteCount, dotCount) {
      case (0, _): throw unsafe(path, "a component is empty")
      case (1, 1): throw unsafe(path, "a component is \".\"")
      case (2, 2): throw unsafe(path, "a component is \"..\"")
      default: (byteCount, dotCount) = (0, 0)
      }
    }
    for byte in name {
      if byte == UInt8(ascii: "/") {
        try endComponent()
      } else {
        byteCount += 1
        dotCount += byte == UInt8(ascii: ".") ? 1 : 0
      }
    }
    try endComponent()
  }

  private static func unsafe(_ path: String, _ cause: String) -> TidemarkError {
    TidemarkError(.pathUnsafe, "refusing an unsafe file name", object: escaped(path), cause: cause)
  }

  /// The path for a message: control characters can't reach a terminal.
  private static func escaped(_ path: String) -> String {
    var text = "\""
    for scalar in path.unicodeScalars.prefix(1024) {
      text += scalar.value < 0x20 || scalar.value == 0x7F ? scalar.escaped(asASCII: true) : String(scalar)
    }
    return text + "\""
  }
}
