// How much this host can compute at once.
import CLinux
import Glibc

/// Processors that are there to compute with, one at least.
package func processorCount() -> Int { max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN)))) }

/// The cores that the calling thread may run on, and those that it uses of them. Threads that it starts begin with those
/// that it uses at that moment. It is for one thread, which lives no longer than its choice is good for.
package struct ThreadCores: ~Copyable {
  /// The kernel fills no less than it has cores for; hosts with more than 8192 are left alone.
  private static let byteCountMax = 1024
  private let all: [UInt8]
  private let others: [UInt8]
  private var leavesOne = false

  package init() {
    var bits = [UInt8](repeating: 0, count: Self.byteCountMax)
    let count = clinux_get_cores(&bits, bits.count)
    all = Array(bits.prefix(Int(max(0, count))))
    var others = all
    if let first = others.firstIndex(where: { $0 != 0 }) { others[first] &= others[first] - 1 }
    // Where there is one core only, nobody can leave it.
    self.others = others.contains { $0 != 0 } ? others : all
  }

  /// How many of them the thread uses.
  package var count: Int { (leavesOne ? others : all).reduce(0) { $0 + $1.nonzeroBitCount } }

  /// Whether the thread keeps off one core, the first. A kernel that doesn't let us leaves the thread as it was: whoever
  /// the core is left to then shares it, as before.
  package mutating func leaveOne(_ leaves: Bool) {
    guard leaves != leavesOne, all != others else { return }
    if clinux_set_cores(leaves ? others : all, all.count) == 0 { leavesOne = leaves }
  }
}
