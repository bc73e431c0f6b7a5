// What every command needs: configuration, logger, and the repository put together from them.
import BackupRepository
import Configuration
import Diagnostics
import Envelope
import Foundation
import Logging
import ObjectStorage
import PointInTimeRestore
import PostgresFormats
import PostgresReplication
import RestoreDrill
import S3Storage
import SystemSupport

struct CommandContext: Sendable {
  let configuration: TidemarkConfiguration
  let configurationPath: String
  let logger: Logger
  let printsJSON: Bool

  init(_ options: GlobalOptions) throws(TidemarkError) {
    configurationPath = TidemarkConfiguration.path(option: options.config)
    configuration = try TidemarkConfiguration(contentsOf: configurationPath)
    printsJSON = options.json
    logger = StandardErrorLog.logger(options.logLevel)
    CommandRecord.current.note(self)
  }

  var connection: ConnectionInfo {
    get throws(TidemarkError) { try ConnectionInfo(configuration.postgres.connection) }
  }

  /// The repository with the keys that this host has.
  func repository() throws(TidemarkError) -> Repository {
    let layout = try ClusterLayout(cluster: configuration.cluster)
    let state = configuration.stateDirectory
    var regions: [BackupRepository.Region] = []
    // One for all regions that use the same: what is fetched over the network is fetched once.
    var surroundings: [String?: CredentialsProvider] = [:]
    for region in configuration.repository.regions {
      regions.append(
        BackupRepository.Region(
          name: region.name, store: try store(region, &surroundings), prefix: configuration.repository.prefix,
          health: RegionHealth(path: "\(state)/regions/\(region.name)")))
    }
    let durability = configuration.repository.durability
    let repository = Repository(
      layout: layout,
      regions: RegionSet(
        regions: regions,
        policy: DurabilityPolicy(required: durability.required, degradeAfter: durability.degradeAfter),
        marker: layout.marker, debts: DebtJournal(stateDirectory: state), log: RegionEventLog(logger: logger)),
      keys: try keys(), stateDirectory: state, compressionLevel: configuration.compression.level, logger: logger)
    CommandRecord.current.note(repository)
    return repository
  }

  /// How PostgreSQL is run here.
  func restoreHost() throws(TidemarkError) -> RestoreHost {
    RestoreHost(
      binDirectory: configuration.postgres.binDirectory,
      dataDirectory: configuration.postgres.dataDirectory, osUser: configuration.postgres.osUser,
      program: try RestoreCommand.program(), configurationPath: try RestoreCommand.absolute(configurationPath))
  }

  /// What no drill may touch.
  var livePlaces: LivePlaces {
    LivePlaces(
      dataDirectory: configuration.postgres.dataDirectory,
      regionDirectories: configuration.repository.regions.compactMap { region in
        if case .directory(let path) = region.store { path } else { nil }
      })
  }

  private func store(
    _ region: Configuration.Region, _ surroundings: inout [String?: CredentialsProvider]
  ) throws(TidemarkError) -> any ObjectStore {
    switch region.store {
    case .directory(let path): return DirectoryStore(root: path)
    case .bucket(let bucket):
      var limits = S3Limits()
      limits.connect = bucket.connectTimeout
      limits.silence = bucket.silenceLimit
      let credentials: CredentialsProvider
      if let file = bucket.credentialsFile {
        credentials = CredentialsProvider(file: file, profile: bucket.profile)
      } else {
        credentials = surroundings[bucket.profile] ?? CredentialsProvider(file: nil, profile: bucket.profile)
        surroundings[bucket.profile] = credentials
      }
      return try S3Store(
        configuration: S3Configuration(
          endpoint: bucket.endpoint.description, bucket: bucket.name, region: bucket.region,
          addressing: bucket.addressing == .path ? .path : .virtualHosted,
          credentials: credentials,
          certificateAuthorityFile: bucket.caFile, limits: limits))
    }
  }

  /// A key file that is named and isn't there is as if it weren't named: hosts have the keys that their work needs.
  private func keys() throws(TidemarkError) -> RepositoryKeys {
    let encryption = configuration.encryption
    var identities: [Identity] = []
    if let path = encryption.identityFile, fileExists(path) { identities = try KeyFile.identities(path) }
    var writer: WriterKey?
    if let path = encryption.writerKeyFile, fileExists(path) { writer = try KeyFile.writer(path) }
    var recipients: [RecipientPublicKey] = []
    for text in encryption.recipients { recipients.append(try RecipientPublicKey(text: text)) }
    if recipients.isEmpty { recipients = identities.map(\.recipient) }
    var trusted: [WriterPublicKey] = []
    for text in encryption.trustedWriters { trusted.append(try WriterPublicKey(text: text)) }
    if trusted.isEmpty, let writer { trusted = [writer.publicKey] }
    return RepositoryKeys(recipients: recipients, trustedWriters: trusted, identities: identities, writer: writer)
  }

  /// Prints the result: JSON, or what `people` writes.
  func print(_ document: some Encodable, _ people: () -> String) throws(TidemarkError) {
    try Self.write(printsJSON ? Self.encode(document) : people())
  }

  static func encode(_ document: some Encodable) throws(TidemarkError) -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
    do { return String(decoding: try encoder.encode(document), as: UTF8.self) + "\n" } catch {
      throw TidemarkError(.internalFault, "cannot encode the result", cause: "\(error)")
    }
  }

  static func write(_ text: String) throws(TidemarkError) {
    do { try FileHandle.standardOutput.write(contentsOf: Data(text.utf8)) } catch {
      throw TidemarkError(.localIO, "cannot write to standard output", cause: "\(error)")
    }
  }
}

/// What a region did for a command, as JSON shows it.
struct RegionReport: Codable, Sendable {
  var bytes: Int64
  var requests: Int
  var failures: Int

  static func all(_ repository: Repository) -> [String: RegionReport] {
    Dictionary(
      uniqueKeysWithValues: repository.regions.regions.map { region in
        let statistics = region.store.statistics
        return (
          region.name,
          RegionReport(
            bytes: statistics.bytesSent + statistics.bytesReceived, requests: statistics.requests,
            failures: statistics.failures)
        )
      })
  }
}
