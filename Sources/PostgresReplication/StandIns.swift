import Diagnostics

package struct LSN: RawRepresentable, Hashable, Comparable, Sendable, CustomStringConvertible {
  package var rawValue: UInt64
  package init(rawValue: UInt64) { self.rawValue = rawValue }
  package init(text: String) throws(TidemarkError) {
    let p = text.split(separator: "/", omittingEmptySubsequences: false)
    guard p.count == 2, let a = UInt32(p[0], radix: 16), let b = UInt32(p[1], radix: 16) else {
      throw TidemarkError(.streamInvalid, "not an LSN", object: text)
    }
    rawValue = UInt64(a) << 32 | UInt64(b)
  }
  package static func < (l: LSN, r: LSN) -> Bool { l.rawValue < r.rawValue }
  package var description: String {
    String(rawValue >> 32, radix: 16, uppercase: true) + "/"
      + String(rawValue & 0xffff_ffff, radix: 16, uppercase: true)
  }
}
package struct TimelineID: RawRepresentable, Hashable, Comparable, Sendable, CustomStringConvertible {
  package var rawValue: UInt32
  package init(rawValue: UInt32) { self.rawValue = rawValue }
  package static func < (l: Self, r: Self) -> Bool { l.rawValue < r.rawValue }
  package var description: String { String(rawValue) }
}
package struct SystemIdentifier: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
  package var rawValue: UInt64
  package init(rawValue: UInt64) { self.rawValue = rawValue }
  package var description: String { String(rawValue) }
}
