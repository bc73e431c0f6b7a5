// Whose turn it is to write into a file.
import Diagnostics
import Synchronization

/// The kernel lets one thread at a time write into a file, and has the others spin until it is their turn. Where packs hold
/// one large file, that takes the cores from the threads that open and decompress: here they sleep instead.
final class WriteTurns: Sendable {
  private final class Turn: Sendable {
    let taken = Mutex(())
  }

  /// Files share turns; with many times more turns than threads they seldom meet.
  private static let turnCount = 64
  private let turns = (0..<turnCount).map { _ in Turn() }

  /// Runs `write` while nobody else writes into the file with this index.
  func take(_ file: Int32, _ write: () throws(TidemarkError) -> Void) throws(TidemarkError) {
    try turns[Int(file) % Self.turnCount].taken.withLock { (_) throws(TidemarkError) in try write() }
  }
}
