// `init`: creates what is missing (keys, state directory, the regions' markers) and says what must be kept elsewhere.
import ArgumentParser
import BackupRepository
import Diagnostics
import Envelope
import ObjectStorage
import SystemSupport

struct InitCommand: TidemarkCommand {
  static let configuration = CommandConfiguration(
    commandName: "init", abstract: "Create missing keys, and probe and mark every region. Safe to repeat.")
  @OptionGroup var global: GlobalOptions

  struct Report: Codable {
    struct Region: Codable {
      var name: String
      var location: String
      var wasMarked: Bool
      var honoursConditionalCreation: Bool
    }
    var recipients: [String]
    var trustedWriters: [String]
    var createdKeyFiles: [String]
    var regions: [Region]
  }

  func execute() throws(TidemarkError) -> Int32 {
    let context = try CommandContext(global)
    try DurableFile.createDirectories(context.configuration.stateDirectory)
    var created: [String] = []
    // Where the public halves are listed, a new key would be none of them: the private one is elsewhere on purpose.
    let encryption = context.configuration.encryption
    if encryption.recipients.isEmpty, let path = encryption.identityFile, try KeyFile.createIdentity(path) != nil {
      created.append(path)
    }
    if encryption.trustedWriters.isEmpty, let path = encryption.writerKeyFile, try KeyFile.createWriter(path) != nil {
      created.append(path)
    }
    let repository = try context.repository()
    var report = Report(
      recipients: repository.keys.recipients.map(\.description),
      trustedWriters: repository.keys.trustedWriters.map(\.description), createdKeyFiles: created, regions: [])
    for region in repository.regions.regions {
      if let directory = region.store as? DirectoryStore { try directory.prepare() }
      let deadline = Deadline.after(.seconds(30))
      let isNew = try repository.mark(region, deadline: deadline)
      let probe = repository.layout.probe("\(UInt64.random(in: 0...UInt64.max))")
      let honours = try region.request { store throws(TidemarkError) in
        try store.honoursConditionalCreation(probe: region.key(probe), deadline: deadline)
      }
      report.regions.append(
        .init(
          name: region.name, location: region.store.location, wasMarked: !isNew, honoursConditionalCreation: honours))
    }
    try context.print(report) { text(report) }
    return 0
  }

  private func text(_ report: Report) -> String {
    var lines = ["encryption:", "  recipients: [\(report.recipients.joined(separator: ", "))]"]
    lines.append("  trusted-writers: [\(report.trustedWriters.joined(separator: ", "))]")
    for region in report.regions {
      let state = region.wasMarked ? "was marked before" : "marked now"
      let note =
        region.honoursConditionalCreation ? "" : "; the store ignores If-None-Match, so each PUT follows a HEAD"
      lines.append("# region \(region.name): \(region.location), \(state)\(note)")
    }
    for path in report.createdKeyFiles { lines.append("# created \(path)") }
    lines.append("# Keep copies of the key files and of the configuration OFF this host.")
    lines.append("# Without the identity's secret no backup can ever be opened again.")
    return lines.joined(separator: "\n") + "\n"
  }
}

struct KeysCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "keys", abstract: "Make, list and rotate keys.",
    subcommands: [KeysGenerate.self, KeysList.self, KeysRotate.self])
}

struct KeysGenerate: TidemarkCommand {
  static let configuration = CommandConfiguration(
    commandName: "generate", abstract: "Write missing key files and print their public halves.")
  @OptionGroup var global: GlobalOptions
  var recordedName: String? { nil }
  @Option(help: "Where to write a new identity, which opens backups.") var identity: String?
  @Option(help: "Where to write a new writer key, which signs backups.") var writer: String?

  func execute() throws(TidemarkError) -> Int32 {
    guard identity != nil || writer != nil else {
      throw TidemarkError(.usage, "nothing to generate", next: "give --identity PATH, --writer PATH or both")
    }
    var lines = ""
    if let identity {
      let isNew = try KeyFile.createIdentity(identity) != nil
      let keys = try KeyFile.identities(identity)
      lines += keys.map { "recipient: \($0.recipient)\(isNew ? "" : "  # was there before")\n" }.joined()
    }
    if let writer {
      let isNew = try KeyFile.createWriter(writer) != nil
      lines += "trusted-writer: \(try KeyFile.writer(writer).publicKey)\(isNew ? "" : "  # was there before")\n"
    }
    try CommandContext.write(lines)
    return 0
  }
}

struct KeysList: TidemarkCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "The keys of this host: ids and public halves, never secrets.")
  @OptionGroup var global: GlobalOptions
  var recordedName: String? { nil }

  struct Key: Codable {
    var role: String
    var id: String
    var publicKey: String?
  }

  func execute() throws(TidemarkError) -> Int32 {
    let context = try CommandContext(global)
    let keys = try context.repository().keys
    var list = keys.recipients.map { Key(role: "recipient", id: $0.id.description, publicKey: $0.description) }
    list += keys.trustedWriters.map { Key(role: "trusted-writer", id: $0.id.description, publicKey: $0.description) }
    list += keys.identities.map { Key(role: "identity", id: $0.recipient.id.description, publicKey: nil) }
    if let writer = keys.writer {
      list.append(Key(role: "writer", id: writer.publicKey.id.description, publicKey: nil))
    }
    let all = list
    try context.print(["keys": all]) {
      all.map { "\($0.role)\t\($0.id)\t\($0.publicKey ?? "(secret here)")\n" }.joined()
    }
    return 0
  }
}
