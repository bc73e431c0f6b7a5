// The tar stream of a base backup, as it comes. It holds at most one header: file contents pass through as slices of
// what was fed, without a copy. It refuses whatever the server doesn't send, before a byte of it is used.
import Diagnostics

/// A streaming reader of one ustar archive, a state machine without I/O.
///
/// Feed pieces of any length, then call ``finish()``. After an error the reader must not be fed again.
package struct TarReader: Sendable {
  package enum Event {
    /// A regular file begins; its contents follow as `data`, then `endOfFile`.
    case file(TarHeader)
    /// Contents of the current file, in order: a slice of the fed buffer, valid during the call alone. Never empty.
    case data(UnsafeRawBufferPointer)
    case endOfFile
    case directory(TarHeader)
    /// `target` is an absolute path without `..`: a tablespace's location.
    case symbolicLink(TarHeader, target: String)
    /// The archive's end, two blocks of zeros. Nothing follows it.
    case end
  }

  private enum State {
    case header
    case content(remaining: UInt64, padding: Int)
    case padding(remaining: Int)
    case zeroBlock
    case ended
  }

  private var state = State.header
  /// The part of a header that came with earlier pieces.
  private var pending: [UInt8] = []

  package init() { pending.reserveCapacity(TarHeader.blockByteCount) }

  /// Whether the archive's end has been read.
  package var hasEnded: Bool { if case .ended = state { true } else { false } }

  /// Takes the next piece of the archive and hands what it holds to `take`, in order.
  /// - Throws: `stream-invalid`, `path-unsafe`, and what `take` throws.
  package mutating func feed(
    _ piece: UnsafeRawBufferPointer, _ take: (Event) throws(TidemarkError) -> Void
  ) throws(TidemarkError) {
    var rest = piece[...]
    while !rest.isEmpty {
      switch state {
      case .content(let remaining, let padding):
        let count = Int(min(UInt64(rest.count), remaining))
        let left = remaining - UInt64(count)
        state = left > 0 ? .content(remaining: left, padding: padding) : afterContent(padding)
        try take(.data(UnsafeRawBufferPointer(rebasing: rest.prefix(count))))
        rest = rest.dropFirst(count)
        if left == 0 { try take(.endOfFile) }
      case .padding(let remaining):
        let count = min(rest.count, remaining)
        state = remaining > count ? .padding(remaining: remaining - count) : .header
        rest = rest.dropFirst(count)
      case .header, .zeroBlock:
        try gatherHeader(&rest, take)
      case .ended:
        // tar programs pad an archive with zeros to their record size.
        guard rest.allSatisfy({ $0 == 0 }) else {
          throw TidemarkError(.streamInvalid, "data follows the end of the tar archive")
        }
        return
      }
    }
  }

  /// - Throws: `stream-invalid` where the archive's end hasn't come: it is cut off.
  package func finish() throws(TidemarkError) {
    guard case .ended = state else {
      throw TidemarkError(.streamInvalid, "the tar archive is cut off", cause: "its end marker is missing")
    }
  }

  private func afterContent(_ padding: Int) -> State { padding > 0 ? .padding(remaining: padding) : .header }

  private mutating func gatherHeader(
    _ rest: inout Slice<UnsafeRawBufferPointer>, _ take: (Event) throws(TidemarkError) -> Void
  ) throws(TidemarkError) {
    let size = TarHeader.blockByteCount
    if pending.isEmpty, rest.count >= size {
      let block = UnsafeRawBufferPointer(rebasing: rest.prefix(size))
      rest = rest.dropFirst(size)
      try takeHeader(block, take)
      return
    }
    let count = min(size - pending.count, rest.count)
    pending.append(contentsOf: rest.prefix(count))
    rest = rest.dropFirst(count)
    guard pending.count == size else { return }
    let block = pending
    pending.removeAll(keepingCapacity: true)
    try block.span.withUnsafeBytes { (bytes) throws(TidemarkError) in try takeHeader(bytes, take) }
  }

  private mutating func takeHeader(
    _ block: UnsafeRawBufferPointer, _ take: (Event) throws(TidemarkError) -> Void
  ) throws(TidemarkError) {
    let isZero = block.allSatisfy { $0 == 0 }
    if case .zeroBlock = state {
      guard isZero else { throw TidemarkError(.streamInvalid, "a member follows the end of the tar archive") }
      state = .ended
      try take(.end)
      return
    }
    if isZero {
      state = .zeroBlock
      return
    }
    let (header, kind) = try TarHeader.parse(block)
    switch kind {
    case .file:
      let padding =
        (TarHeader.blockByteCount - Int(header.size % UInt64(TarHeader.blockByteCount)))
        % TarHeader.blockByteCount
      if header.size > 0 { state = .content(remaining: header.size, padding: padding) }
      try take(.file(header))
      if header.size == 0 { try take(.endOfFile) }
    case .directory:
      try take(.directory(header))
    case .symbolicLink(let target):
      try take(.symbolicLink(header, target: target))
    }
  }
}
