// Input made from good input by random changes, the same for the same seed. Lengths and counts are hit most: single
// bytes at their extremes, whole numbers of two, four and eight bytes, pieces left out, doubled and exchanged.
import Diagnostics

package struct SeededFuzzer {
  private let target: FuzzTarget
  private let seeds: [[UInt8]]
  private var numbers: Numbers
  /// How many inputs the target took although they were changed.
  package private(set) var acceptedCount = 0

  package init(_ target: FuzzTarget, seed: UInt64) throws(TidemarkError) {
    self.target = target
    seeds = try FuzzSeeds.seeds(target)
    numbers = Numbers(state: seed)
  }

  /// SplitMix64, https://prng.di.unimi.it/splitmix64.c.
  private struct Numbers: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
      state &+= 0x9E37_79B9_7F4A_7C15
      var mixed = state
      mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
      mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
      return mixed ^ (mixed >> 31)
    }
  }

  /// One input more.
  package mutating func step() {
    var bytes = seeds[Int.random(in: 0..<seeds.count, using: &numbers)]
    for _ in 0..<Int.random(in: 1...6, using: &numbers) { change(&bytes) }
    if target.run(bytes) { acceptedCount += 1 }
  }

  private mutating func change(_ bytes: inout [UInt8]) {
    guard !bytes.isEmpty else { return bytes.append(.random(in: 0...255, using: &numbers)) }
    let place = Int.random(in: 0..<bytes.count, using: &numbers)
    let length = min(Int.random(in: 1...40, using: &numbers), bytes.count - place)
    switch Int.random(in: 0..<9, using: &numbers) {
    case 0: bytes[place] ^= 1 << UInt8.random(in: 0...7, using: &numbers)
    case 1: bytes[place] = [0, 1, 0x7F, 0x80, 0xFF, 0x0A, 0x20, 0x2F, 0x2E].randomElement(using: &numbers) ?? 0
    case 2:
      let width = [2, 4, 8].randomElement(using: &numbers) ?? 4
      let value =
        [0, .max, .max >> 1, 1 << 63, 1 << 31, .max >> 32, numbers.next()].randomElement(using: &numbers) ?? 0
      for index in 0..<min(width, bytes.count - place) {
        bytes[place + index] = UInt8(truncatingIfNeeded: value >> (8 * UInt64(index)))
      }
    case 3: bytes.removeSubrange(place..<place + length)
    case 4: bytes.insert(contentsOf: bytes[place..<place + length], at: place)
    case 5: bytes.removeSubrange(place...)
    case 6:
      let other = Int.random(in: 0..<bytes.count, using: &numbers)
      for index in 0..<min(length, bytes.count - other) { bytes[place + min(index, length - 1)] = bytes[other + index] }
    case 7:
      let words = [
        "../", "/", "\0", "\"", "\\u0000", "9999999999999999999", "-1", "{", "[", "<a>", "&#x0;", "*x", "!!binary ",
      ]
      bytes.insert(contentsOf: (words.randomElement(using: &numbers) ?? "").utf8, at: place)
    default: bytes[place] = .random(in: 0...255, using: &numbers)
    }
  }
}
