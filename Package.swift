// swift-tools-version: 6.2
// Targets follow the layers of docs/modules.md: a target may import only what stands below it.
import PackageDescription

let strict: [SwiftSetting] = [.treatAllWarnings(as: .error)]

/// A library target of this package with its dependencies inside the package and outside it.
func layer(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
  .target(name: name, dependencies: dependencies, swiftSettings: strict)
}

/// A test target with the helpers that start real servers.
func tests(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
  .testTarget(name: name, dependencies: dependencies + ["TestSupport"], swiftSettings: strict)
}

let argumentParser = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")
let crypto = Target.Dependency.product(name: "Crypto", package: "swift-crypto")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let yams = Target.Dependency.product(name: "Yams", package: "Yams")

/// What the repository stands on, and the engines with it.
let repositoryLayers: [Target.Dependency] = [
  "Diagnostics", "SystemSupport", "PostgresFormats", "ObjectStorage", "Envelope",
]
let engineLayers = repositoryLayers + ["BackupRepository"]

let package = Package(
  name: "tidemark",
  products: [.executable(name: "tidemark", targets: ["tidemark"])],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
  ],
  targets: [
    // C libraries: module map and shim header only. Those without pkgConfig aren't linked: see their headers.
    .systemLibrary(name: "CLibpq", providers: [.apt(["libpq-dev"])]),
    .systemLibrary(name: "CLibcurl", providers: [.apt(["libcurl4-openssl-dev"])]),
    .systemLibrary(name: "CZstd", pkgConfig: "libzstd", providers: [.apt(["libzstd-dev"])]),
    .systemLibrary(name: "CLibcrypto", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev"])]),
    .systemLibrary(name: "CLinux"),

    // Foundations.
    layer("Diagnostics", [logging]),
    layer("SystemSupport", ["Diagnostics", "CLinux"]),
    layer("PostgresFormats", ["Diagnostics", "CLinux", crypto]),

    // Building blocks.
    layer("ObjectStorage", ["Diagnostics", "SystemSupport", "CLinux"]),
    layer("S3Storage", ["ObjectStorage", "Diagnostics", "SystemSupport", "CLibcurl", "CLibcrypto"]),
    layer("Monitoring", ["Configuration", "S3Storage", "Diagnostics", "SystemSupport", crypto]),
    layer("Envelope", ["Diagnostics", "SystemSupport", "CZstd", "CLibcrypto", crypto]),
    layer("PostgresReplication", ["PostgresFormats", "Diagnostics", "SystemSupport", "CLibpq"]),

    // Repository.
    layer("BackupRepository", repositoryLayers + [logging]),

    // Engines.
    layer("BaseBackup", engineLayers + ["PostgresReplication", logging]),
    layer("WALArchive", engineLayers),
    layer("PointInTimeRestore", engineLayers + ["PostgresReplication", logging]),

    layer("Retention", engineLayers + ["Configuration"]),
    layer("Verification", engineLayers),
    layer(
      "RestoreDrill", engineLayers + ["PointInTimeRestore", "PostgresReplication", "Configuration"]),

    // Service.
    layer("Configuration", ["Diagnostics", "SystemSupport", yams]),

    // Commands.
    layer(
      "TidemarkCommands",
      engineLayers + ["Configuration", "S3Storage", "PostgresReplication"]
        + ["BaseBackup", "WALArchive", "PointInTimeRestore", "RestoreDrill", "Retention", "Verification", "Monitoring"]
        + [argumentParser, logging]),
    .executableTarget(name: "tidemark", dependencies: ["TidemarkCommands"], swiftSettings: strict),

    // Tests: `TestSupport` starts PostgreSQL and S3 servers on free ports.
    .target(
      name: "TestSupport", dependencies: ["Diagnostics", "SystemSupport"], path: "Tests/TestSupport",
      swiftSettings: strict),
    .target(
      name: "FuzzTargets",
      dependencies: repositoryLayers + ["BackupRepository", "Configuration", "S3Storage"], path: "Tests/FuzzTargets",
      swiftSettings: strict),
    tests("FuzzTests", ["FuzzTargets", "Diagnostics"]),
    tests("SystemSupportTests", ["SystemSupport", "Diagnostics"]),
    tests("PostgresFormatsTests", ["PostgresFormats", "Diagnostics"]),
    tests("ObjectStorageTests", ["ObjectStorage", "S3Storage", "Diagnostics", "SystemSupport"]),
    tests("EnvelopeTests", ["Envelope", "Diagnostics", "SystemSupport"]),
    tests("PostgresReplicationTests", ["PostgresReplication"]),
    tests("BackupRepositoryTests", engineLayers + [logging]),
    tests(
      "UpkeepTests",
      engineLayers + ["BaseBackup", "Retention", "Verification", "Configuration", "S3Storage", "tidemark", logging]),
    tests("ConfigurationTests", ["Configuration", "Diagnostics"]),
    tests("MonitoringTests", ["Monitoring", "Configuration", "Diagnostics", "SystemSupport", crypto]),
    tests(
      "EndToEndTests", ["tidemark", "BackupRepository", "Envelope", "PostgresFormats", "Diagnostics", "SystemSupport"]),
  ],
  swiftLanguageModes: [.v6]
)

// scripts/fuzz alone builds this library, with the coverage that libFuzzer needs, and links it with libFuzzer's `main`.
if Context.environment["TIDEMARK_FUZZ"] != nil {
  package.products.append(.library(name: "TidemarkFuzz", type: .static, targets: ["FuzzRunner"]))
  package.targets.append(
    .target(
      name: "FuzzRunner", dependencies: ["FuzzTargets", "Diagnostics"], path: "Tests/FuzzRunner", swiftSettings: strict)
  )
}
