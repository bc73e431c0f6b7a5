// Large buffers of a process that lives for a tenth of a second: each first touch of a 4 KiB page enters the kernel, which
// for a segment of 16 MiB costs as much as reading it does.
import Glibc

/// Asks for huge pages below a large buffer that nothing has touched yet. Where the kernel has none, nothing changes.
package func preferHugePages(_ buffer: UnsafeMutableRawBufferPointer) {
  let hugePageByteCount = 2 << 20
  guard buffer.count >= 2 * hugePageByteCount, let base = buffer.baseAddress else { return }
  let start = (Int(bitPattern: base) + hugePageByteCount - 1) / hugePageByteCount * hugePageByteCount
  let end = (Int(bitPattern: base) + buffer.count) / hugePageByteCount * hugePageByteCount
  guard start < end else { return }
  // A wish: a refusal leaves small pages.
  _ = madvise(UnsafeMutableRawPointer(bitPattern: start), end - start, MADV_HUGEPAGE)
}
