// The program itself: killed between any two steps of an expiry, the next run ends where an undisturbed one does; what
// it prints; holds over the command line.
import BackupRepository
import Diagnostics
import Envelope
import Foundation
import ObjectStorage
import SystemSupport
import TestSupport
import Testing

/// A configuration, keys and two directory regions that `tidemark init` made, with three small backups.
struct ProgramWorld {
  let directory: TemporaryDirectory
  let world: SmallRepository
  var root: String { directory.path }

  init(retention: String = "retention: {count: 1, newest: 1, grace: 0s}") throws {
    directory = try TemporaryDirectory()
    let root = directory.path
    let yaml = """
      cluster: crm
      repository:
        prefix: tidemark
        regions:
          - {name: west, endpoint: "file://\(root)/west"}
          - {name: east, endpoint: "file://\(root)/east"}
      encryption: {identity-file: \(root)/identity.key, writer-key-file: \(root)/writer.key}
      state-directory: \(root)/host
      \(retention)

      """
    try DurableFile.write(Array(yaml.utf8), to: "\(root)/tidemark.yaml")
    let made = try Self.run(root, ["init"])
    try #require(made.succeeded, "\(made.errorText)")
    let writer = try KeyFile.writer("\(root)/writer.key")
    let identities = try KeyFile.identities("\(root)/identity.key")
    world = try SmallRepository(
      keys: RepositoryKeys(
        recipients: identities.map(\.recipient), trustedWriters: [writer.publicKey], identities: identities,
        writer: writer), directory: directory)
    try world.backup("a", number: 2, age: 300)
    try world.wal(3)
    try world.backup("b", number: 4, age: 200, own: 1, others: ["a": [1]])
    try world.backup("c", number: 6, age: 100, own: 1, others: ["a": [2]])
    try world.wal(7)
  }

  static func run(_ root: String, _ arguments: [String], crashAt: String? = nil) throws -> ProgramOutcome {
    let built = directoryName(try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) + "/tidemark"
    var environment = ["PATH": "/usr/bin:/bin", "HOME": root]
    if let crashAt { environment["TIDEMARK_CRASH_AT"] = crashAt }
    return try ChildProcess.run(
      built, ["--config", "\(root)/tidemark.yaml"] + arguments, environment: environment, deadline: .after(.seconds(60))
    )
  }

  func run(_ arguments: [String], crashAt: String? = nil) throws -> ProgramOutcome {
    try Self.run(root, arguments, crashAt: crashAt)
  }

  func json(_ arguments: [String], status: Int32 = 0) throws -> [String: Any] {
    let outcome = try run(["--json"] + arguments)
    try #require(outcome.ending == .exited(status), "\(outcome.ending): \(outcome.errorText)")
    return try #require(try JSONSerialization.jsonObject(with: Data(outcome.output)) as? [String: Any])
  }
}

@Suite("The program's expire", .serialized) struct ExpireProgramTests {
  static let crashPoints =
    [
      "manifests:1", "manifests:2", "packs:1", "packs:2", "file-tables:1", "file-tables:2", "wal:1", "wal:2",
    ].flatMap { ["expire.before-\($0)", "expire.after-\($0)"] } + ["expire.after-journal:1"]

  @Test(
    "killed among the re-wraps of what is gone, the next run deletes the rest of them and no other",
    arguments: ["expire.before-rewraps:1", "expire.after-rewraps:1", "expire.after-rewraps:2"])
  func killedAmongRewraps(crashPoint: String) throws {
    let setup = try ProgramWorld()
    let path = "\(setup.root)/tidemark.yaml"
    let text = String(decoding: try readFile(path), as: UTF8.self)
    let new = Identity()
    try DurableFile.write(
      Array(text.replacing("encryption: {", with: "encryption: {recipients: [\(new.recipient)], ").utf8), to: path)
    let rotated = try setup.json(["keys", "rotate"])
    #expect(((rotated["lineages"] as? [[String: Any]])?.first?["rewraps"]) as? Int == 4)
    func rewraps(_ region: Int) throws -> [String] {
      try setup.world.names(region).filter { $0.hasPrefix("rewraps/") }.map { directoryName($0) }
    }
    // The packs of a live on in c, and WAL goes on; of b nothing is left.
    _ = try setup.json(["expire"])
    for region in 0...1 {
      #expect(
        try rewraps(region) == [
          "rewraps/backups/a", "rewraps/backups/b", "rewraps/backups/c", "rewraps/wal/0000000100000000",
        ])
    }
    let outcome = try setup.run(["expire"], crashAt: crashPoint)
    #expect(outcome.ending == .signalled(SIGKILL), "\(outcome.ending) \(outcome.errorText)")
    let report = try setup.json(["expire"])
    for region in 0...1 {
      #expect(
        try rewraps(region) == ["rewraps/backups/a", "rewraps/backups/c", "rewraps/wal/0000000100000000"], "\(report)")
    }
  }

  @Test(
    "killed anywhere, it leaves no manifest without its packs, and the next run ends where it should",
    arguments: crashPoints)
  func killed(crashPoint: String) throws {
    let setup = try ProgramWorld()
    let outcome = try setup.run(["expire"], crashAt: crashPoint)
    #expect(outcome.ending == .signalled(9))
    for region in ["west", "east"] { #expect(try setup.world.missingPacks(region).isEmpty) }
    #expect(try setup.run(["expire"]).succeeded)
    for region in 0...1 { #expect(try setup.world.names(region) == ExpireRunTests.afterwards) }
  }

  @Test("its output says what stays and why, as text and as JSON") func output() throws {
    let setup = try ProgramWorld()
    let text = try setup.run(["expire", "--dry-run"])
    #expect(text.succeeded)
    #expect(text.outputText.contains("expire a\n           no rule keeps it"))
    #expect(text.outputText.contains("keep   c\n           number 1 of the 1 newest good ones, which always stay\n"))
    #expect(text.outputText.contains("a dry run: nothing was deleted"))
    #expect(try setup.world.names().count > ExpireRunTests.afterwards.count)
    let document = try setup.json(["expire"])
    let lineage = try #require((document["lineages"] as? [[String: Any]])?.first)
    let backups = try #require(lineage["backups"] as? [[String: Any]])
    #expect(backups.map { $0["decision"] as? String } == ["expire", "expire", "keep"])
    #expect(backups.map { $0["deleted"] as? Bool } == [true, true, false])
    #expect(backups[2]["rules"] as? [String] == ["newest", "count"])
    #expect(lineage["walFrom"] as? [String] == ["000000010000000000000006"])
  }

  @Test("holds and releases; a policy in its own file; wrong keys and no policy") func holdsAndPolicies() throws {
    let setup = try ProgramWorld()
    let held = try setup.json(["hold", "a", "--reason", "audit"])
    #expect((held["held"] as? [String: Any])?["label"] as? String == "a")
    #expect(try setup.run(["hold", "z"]).ending == .exited(76))
    let refused = try setup.run(["expire", "--remove", "a"])
    #expect(refused.ending == .exited(76))
    #expect(refused.errorText.contains("next:  tidemark release a"))
    #expect(try setup.run(["expire"]).succeeded)
    #expect(try setup.world.names().contains("backups/a/manifest"))
    #expect(try setup.run(["release", "a"]).outputText.contains("audit"))
    #expect(try setup.run(["release", "a"]).ending == .exited(76))

    let yaml = String(decoding: try readFile("\(setup.root)/tidemark.yaml"), as: UTF8.self)
    let configuration = yaml.replacing(
      "retention: {count: 1, newest: 1, grace: 0s}", with: "retention-file: \(setup.root)/r.yaml")
    try DurableFile.write(Array(configuration.utf8), to: "\(setup.root)/tidemark.yaml")
    #expect(try setup.run(["expire"]).ending == .exited(78))
    try DurableFile.write(Array("widow: 3d\n".utf8), to: "\(setup.root)/r.yaml")
    let wrong = try setup.run(["expire"])
    #expect(wrong.ending == .exited(78))
    #expect(wrong.errorText.contains("widow is an unknown key: the nearest known one is 'window'"))
    try DurableFile.write(Array("count: 1\nnewest: 1\ngrace: 0s\n".utf8), to: "\(setup.root)/r.yaml")
    #expect(try setup.run(["expire"]).succeeded)
    // A hold and its release stay: they say what was done.
    #expect(try setup.world.names().filter { !$0.contains("/a/2") } == ExpireRunTests.afterwards)
  }

  @Test("a lineage is given up by its identifier, with every reason told; what is alive is refused") func givenUp()
    throws
  {
    let setup = try ProgramWorld()
    for (arguments, status) in [
      (["--give-up-lineage", "nonsense"], 64), (["--no-successor"], 64),
      (["--give-up-lineage", "7301", "--remove", "a"], 64), (["--give-up-lineage", "7302"], 76),
    ] as [([String], Int32)] {
      let refused = try setup.run(["expire"] + arguments)
      #expect(refused.ending == .exited(status), "\(arguments) \(refused.errorText)")
    }
    let alive = try setup.run(["expire", "--give-up-lineage", "7301", "--no-successor"])
    #expect(alive.ending == .exited(76))
    #expect(alive.errorText.contains("[lineage-in-use]"), "\(alive.errorText)")
    #expect(alive.errorText.contains("next:  wait until nothing was written to it for 48 hours"))
    try setup.world.age("", by: 3 * 86400)
    let only = try setup.run(["expire", "--give-up-lineage", "7301", "--dry-run"])
    #expect(only.ending == .exited(76) && only.errorText.contains("--no-successor"), "\(only.errorText)")
    let before = try setup.world.names()
    let planned = try setup.json(["expire", "--give-up-lineage", "7301", "--no-successor", "--dry-run"])
    #expect(try setup.world.names() == before)
    for (document, isDone) in [
      (planned, false), (try setup.json(["expire", "--give-up-lineage", "7301", "--no-successor"]), true),
    ] {
      let lineage = try #require((document["lineages"] as? [[String: Any]])?.first)
      let backups = try #require(lineage["backups"] as? [[String: Any]])
      #expect(backups.map { $0["reasons"] as? [String] } == Array(repeating: ["its lineage is given up"], count: 3))
      #expect(backups.allSatisfy { $0["decision"] as? String == "expire" && $0["deleted"] as? Bool == isDone })
    }
    for region in 0...1 { #expect(try setup.world.names(region) == []) }
  }

  @Test("the policy that is delivered can be read") func deliveredPolicy() throws {
    let setup = try ProgramWorld(retention: "retention-file: \(TestTools.packageRoot)/policies/retention.yaml")
    let document = try setup.json(["expire"])
    let lineage = try #require((document["lineages"] as? [[String: Any]])?.first)
    #expect((lineage["backups"] as? [[String: Any]])?.allSatisfy { $0["decision"] as? String == "keep" } == true)
  }
}
