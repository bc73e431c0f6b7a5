// Which objects a sampled verification looks at: the same seed chooses the same ones, on every host.
import Envelope

/// A share of all objects, chosen by a seed.
package struct SampleSelection: Sendable, Equatable {
  /// From above 0 to 100.
  package var percent: Double
  package var seed: UInt64

  package init(percent: Double, seed: UInt64) {
    self.percent = percent
    self.seed = seed
  }

  package var isWhole: Bool { percent >= 100 }

  package func contains(_ name: String) -> Bool {
    if isWhole { return true }
    let digest = SHA256Digest.of(Array("\(seed) \(name)".utf8)).bytes
    let number = digest.prefix(8).reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    return Double(number) < percent / 100 * Double(UInt64.max)
  }
}
