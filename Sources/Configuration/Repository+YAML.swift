// Reads the repository's part of the configuration: prefix, durability and regions, with the rules that span keys.

extension TidemarkConfiguration.Repository {
  static let keys = ["prefix", "durability", "create-only", "regions"]
  /// Leaves room for what the repository appends within an object key's 1000 bytes.
  private static let prefixByteCountMax = 400

  init(_ section: ConfigurationSection) {
    prefix = section.text("prefix") ?? "tidemark"
    let components = prefix.split(separator: "/", omittingEmptySubsequences: false)
    if prefix.utf8.count > Self.prefixByteCountMax || !components.allSatisfy(ConfigurationSection.isKeyComponent) {
      section.refuse("prefix", "is not valid: names of letters, digits, '.', '_' and '-', joined by single slashes")
    }
    let regionSections = section.sections("regions", keys: Region.keys)
    regions = regionSections.map(Region.init)
    // A missing repository has been reported as such.
    if regionSections.isEmpty, section.line != nil {
      section.refuse("regions", section.has("regions") ? "names no region" : "is missing")
    }
    for (index, region) in regions.enumerated() where !region.name.isEmpty {
      if let first = regions[..<index].firstIndex(where: { $0.name == region.name }) {
        regionSections[index].refuse("name", "'\(region.name)' is the name of regions[\(first)] already")
      } else if let first = regions[..<index].firstIndex(where: { $0.store.isSamePlace(as: region.store) }) {
        regionSections[index].refuse("endpoint", "is the place of region '\(regions[first].name)': one copy, not two")
      }
    }
    createOnly = section.flag("create-only") ?? false
    durability = .init(
      section.section("durability", keys: ["required", "degrade-after"]), regionCount: regions.count)
  }
}

extension TidemarkConfiguration.Durability {
  private static let regionCountMax = 64

  init(_ section: ConfigurationSection, regionCount: Int) {
    required = section.number("required", in: 1...Self.regionCountMax) ?? max(1, min(2, regionCount))
    if regionCount > 0, required > regionCount {
      section.refuse(
        "required", "is \(required), but there \(regionCount == 1 ? "is one region" : "are \(regionCount) regions")")
    }
    degradeAfter = section.value("degrade-after", Quantities.duration) ?? .seconds(60)
  }
}

extension Region {
  static let keys = ["name", "endpoint"] + bucketKeys
  private static let bucketKeys = [
    "bucket", "region", "addressing", "credentials-file", "profile", "ca-file", "connect-timeout", "silence-limit",
  ]

  init(_ section: ConfigurationSection) {
    name = section.name("name")
    let endpoint = section.requiredText("endpoint")
    if endpoint.lowercased().hasPrefix("file:") {
      store = .directory(Self.directory(endpoint, section))
    } else {
      store = .bucket(Bucket(section))
    }
  }

  /// The absolute path of `file:///path`. The keys of a bucket are checked for their form and not used.
  private static func directory(_ endpoint: String, _ section: ConfigurationSection) -> String {
    _ = bucketKeys.map(section.text)
    let path = endpoint.dropFirst("file://".count)
    if !endpoint.lowercased().hasPrefix("file:///") || path.allSatisfy({ $0 == "/" }) {
      section.refuse("endpoint", "is not a directory: write file:///path")
    }
    return path.hasSuffix("/") ? String(path.dropLast()) : String(path)
  }
}

extension Region.Bucket {
  private static let connectTimeoutDefault = Duration.seconds(10)
  private static let silenceLimitDefault = Duration.seconds(30)

  init(_ section: ConfigurationSection) {
    endpoint = section.value("endpoint", Endpoint.init(parsing:)) ?? .unusable
    name = section.requiredText("bucket")
    if section.has("bucket"), !(3...63).contains(name.utf8.count) || !ConfigurationSection.isKeyComponent(name) {
      section.refuse("bucket", "is not a bucket's name: 3 to 63 letters, digits, '.', '_' and '-'")
    }
    region = section.name("region")
    // A wildcard certificate covers one label, so a dotted bucket can't stand in an https host name.
    let isDotted = name.contains(".") && endpoint.scheme == .https
    let usual = endpoint.isAmazon && !isDotted ? Region.Addressing.virtualHosted : .path
    addressing =
      section.value("addressing") { text throws(Refusal) in
        guard let addressing = Region.Addressing(rawValue: text) else {
          throw Refusal("is neither 'path' nor 'virtual-hosted'")
        }
        return addressing
      } ?? usual
    if addressing == .virtualHosted, isDotted {
      section.refuse("addressing", "can't be 'virtual-hosted' for a bucket with a dot over https: use 'path'")
    }
    credentialsFile = section.absolutePath("credentials-file")
    profile = section.text("profile")
    caFile = section.absolutePath("ca-file")
    connectTimeout = section.positiveDuration("connect-timeout") ?? Self.connectTimeoutDefault
    silenceLimit = section.positiveDuration("silence-limit") ?? Self.silenceLimitDefault
  }
}

extension Region.Store {
  /// Whether objects written to one appear in the other.
  fileprivate func isSamePlace(as other: Region.Store) -> Bool {
    switch (self, other) {
    case (.directory(let left), .directory(let right)): left == right && !left.isEmpty
    case (.bucket(let left), .bucket(let right)):
      left.endpoint == right.endpoint && left.name == right.name && left.endpoint != .unusable
    default: false
    }
  }
}
