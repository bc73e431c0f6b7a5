// What a verification found, found out and mended.

/// Something that isn't as it should be. What was mended is a finding too: it has a cause.
package struct VerificationFinding: Sendable, Codable, Equatable {
  package enum Kind: String, Sendable, Codable {
    /// A region couldn't be asked, or failed while it was read.
    case regionNotAsked = "region-not-asked"
    /// A region lacks what another one holds.
    case missing
    /// No region holds what a manifest names.
    case lost
    /// A copy doesn't pass its checks.
    case damaged
    /// Two copies pass their checks and aren't the same object.
    case differs
    /// None of the identities here opens it.
    case closed
    /// A manifest that can't be used.
    case unusable
    /// WAL is missing between a backup and what follows it.
    case walHole = "wal-hole"
    /// The local clock and the store's differ by more than a minute.
    case clock
  }
  package var kind: Kind
  package var object: String
  package var region: String?
  package var detail: String
  package var isMended: Bool

  package init(_ kind: Kind, _ object: String, region: String? = nil, detail: String, isMended: Bool = false) {
    self.kind = kind
    self.object = object
    self.region = region
    self.detail = detail
    self.isMended = isMended
  }

  private enum CodingKeys: String, CodingKey {
    case kind, object, region, detail
    case isMended = "mended"
  }
}

/// What was looked at.
package struct VerificationCounts: Sendable, Codable, Equatable {
  /// Objects that exist in any region.
  package var listed = 0
  /// Objects and copies that were read.
  package var objects = 0
  package var copies = 0
  package var bytes: Int64 = 0
  /// Frames that were opened: decrypted, decompressed, and of the length that was signed.
  package var frames = 0
  /// Copies whose signature and digests were checked, but that this host has no key to open.
  package var notOpened = 0
  package init() {}
}

/// What a verification did. Also what it keeps on disk to go on from.
package struct VerificationState: Sendable, Codable, Equatable {
  package var percent: Double
  package var seed: UInt64
  package var mends: Bool
  /// Seconds since 1970.
  package var started: Int64
  package var counts = VerificationCounts()
  /// At most ``findingCountMax``; ``findingCount`` has them all.
  package var findings: [VerificationFinding] = []
  package var findingCount = 0
  /// System identifiers of lineages whose listings were compared, and of those that are done.
  package var examined: [String] = []
  package var done: [String] = []
  /// The last object that was read, of the first lineage that isn't done.
  package var position: String?

  package static let findingCountMax = 10_000

  package mutating func add(_ finding: VerificationFinding) {
    findingCount += 1
    if findings.count < Self.findingCountMax { findings.append(finding) }
  }
}
