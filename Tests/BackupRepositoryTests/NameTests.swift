// The names of objects, which are part of the format.
import Diagnostics
import PostgresFormats
import Testing

@testable import BackupRepository

@Suite("Names of objects") struct NameTests {
  let lineage: LineageLayout
  let label: BackupLabelName

  init() throws {
    lineage = try ClusterLayout(cluster: "crm").lineage(SystemIdentifier(rawValue: 7_301_234_567_890_123_456))
    label = try BackupLabelName("20261124T031500Z-3f9a")
  }

  @Test("the layout is the documented one") func layout() throws {
    let start = "crm/7301234567890123456/"
    #expect(try ClusterLayout(cluster: "crm").marker.text == "crm/repository")
    #expect(try ClusterLayout(cluster: "crm").probe("x").text == "crm/probes/x")
    #expect(lineage.manifest(label).text == start + "backups/20261124T031500Z-3f9a/manifest")
    #expect(lineage.fileTablePart(label, 1).text == start + "backups/20261124T031500Z-3f9a/files/00000001")
    #expect(lineage.pack(label, 12345).text == start + "packs/20261124T031500Z-3f9a/00012345")
    for (file, folder) in [
      ("0000000A0000000100000002", "0000000A"), ("0000000A0000000100000002.partial", "0000000A"),
      ("0000000B.history", "0000000B"), ("0000000A0000000100000002.00000028.backup", "0000000A"),
    ] {
      let name = lineage.wal(try WALFileName(text: file))
      #expect(name.text == start + "wal/\(folder)/\(file)")
      #expect(name.lastComponent == file)
    }
    #expect(try ObjectName("alone").lastComponent == "alone")
  }

  @Test(
    "clusters that can't be part of a key are refused",
    arguments: [
      "", "a/b", "..", ".", ".hidden", "ä", "a b", "a~b", String(repeating: "c", count: 65),
    ])
  func clusters(_ text: String) {
    #expect(thrownCode { _ = try ClusterLayout(cluster: text) } == .configurationInvalid)
  }

  @Test(
    "labels that can't be part of a key are refused",
    arguments: [
      "", "a/b", "..", "a b", "--full=", String(repeating: "b", count: 65),
    ])
  func labels(_ text: String) {
    #expect(thrownCode { _ = try BackupLabelName(text) } == .usage)
  }

  @Test("the group of an object's re-wraps follows from its name, and from a re-wrap's name")
  func rewrapGroups() throws {
    let base = "crm/7301/"
    for (name, group) in [
      ("backups/L/manifest", "backups/L/"), ("backups/L/files/00000001", "backups/L/"),
      ("backups/L/leases/00000001", "backups/L/"), ("packs/L/00000001", "backups/L/"),
      ("wal/0000000A/0000000A0000000B000000C3", "wal/0000000A0000000B/"),
      ("wal/0000000A/0000000A0000000B000000C3.partial", "wal/0000000A0000000B/"),
      ("wal/0000000A/0000000A0000000B000000C3.00000028.backup", "wal/0000000A0000000B/"),
      ("wal/0000000A/0000000A.history", "others/"), ("wal/0000000A/else", "others/"), ("holds/L/H", "others/"),
      ("releases/L/H", "others/"), ("drills/D", "others/"),
    ] {
      let found = try #require(RewrapGroup(of: ObjectName(base + name)))
      #expect(found.prefix == "\(base)rewraps/\(group)", "\(name)")
      #expect(found.isPermanent == (group == "others/") && found.isOfWAL == group.hasPrefix("wal/"))
      #expect(RewrapGroup(ofRewrap: found.rewrap("00")) == found)
      #expect(RewrapGroup(of: found.rewrap("00")) == nil)
    }
    for name in ["crm/repository", "crm/probes/1", "crm/probes/1/2/3", "crm/7301/backups"] {
      #expect(RewrapGroup(of: try ObjectName(name)) == nil, "\(name)")
    }
    for name in ["rewraps/L/00", "rewraps/backups/00", "rewraps/backups/L/M/00", "rewraps/others/L/00", "packs/L/0"] {
      #expect(RewrapGroup(ofRewrap: try ObjectName(base + name)) == nil, "\(name)")
    }
  }

  @Test("names are ordered by their bytes") func order() throws {
    let names = try ["a/B", "a-b", "a/b", "a", "a.b", "a0"].map { try ObjectName($0) }
    #expect(names.sorted().map(\.text) == ["a", "a-b", "a.b", "a/B", "a/b", "a0"])
  }

  @Test("keys lie below the region's prefix, and others aren't names") func prefixes() throws {
    let store = ScriptedStore("west")
    let name = try ObjectName("crm/repository")
    for (prefix, key) in [("", "crm/repository"), ("a/b", "a/b/crm/repository")] {
      let region = Region(name: "west", store: store, prefix: prefix, health: RegionHealth(path: nil))
      #expect(region.key(name).text == key)
      #expect(region.name(of: region.key(name)) == name)
      #expect(region.storePrefix("crm/") == key.dropLast("repository".count))
    }
    let region = Region(name: "west", store: store, prefix: "a/b", health: RegionHealth(path: nil))
    #expect(region.name(of: try ObjectName("a/bc/crm/repository").key) == nil)
  }
}
