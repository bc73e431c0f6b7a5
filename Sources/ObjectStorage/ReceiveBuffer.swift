// Memory that one read after the other takes its bytes into. What is allocated anew for each object is touched for the
// first time each time, and the page faults cost more than the copying (a pack of 16 MiB: 4,096 of them).

/// Belongs to one thread.
package final class ReceiveBuffer {
  private var bytes: [UInt8] = []

  package init() {}

  /// An empty array with the memory of the one that was given back last.
  package func take() -> [UInt8] {
    defer { bytes = [] }
    return bytes
  }

  /// Keeps the memory of `read`, of which the caller keeps nothing: otherwise the next read is into new memory.
  package func giveBack(_ read: consuming [UInt8]) {
    read.removeAll(keepingCapacity: true)
    bytes = read
  }
}
