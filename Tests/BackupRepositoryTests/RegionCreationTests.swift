// Creating an object in two regions: when it is acknowledged, what is owed, and what is refused.
import Diagnostics
import ObjectStorage
import SystemSupport
import Testing

@testable import BackupRepository

@Suite("Creating in regions") struct RegionCreationTests {
  let bytes: [UInt8] = [1, 2, 3]

  @Test("an object goes to every region") func both() throws {
    let setup = try TwoRegions()
    let report = try setup.open().create(setup.name, bytes)
    #expect(report == CreationReport(holders: ["west", "east"]))
    #expect(setup.west.object(setup.key) == bytes)
    #expect(setup.east.object(setup.key) == bytes)
    #expect(try setup.journal.debts() == [])
  }

  @Test(
    "a failing region is waited for, then one region is enough and the copy is owed",
    arguments: [
      ScriptedStore.Behaviour.fails(.regionUnreachable), .fails(.accessDenied), .stalls,
    ])
  func degrades(_ behaviour: ScriptedStore.Behaviour) throws {
    var setup = try TwoRegions()
    // Not whole seconds: the health file counts in them, and rounds.
    setup.degradeAfter = .milliseconds(2500)
    setup.east.script { $0.behaviour = behaviour }
    let regions = setup.open()
    var report = CreationReport()
    let elapsed = try timed { report = try regions.create(setup.name, bytes) }
    #expect(elapsed >= setup.degradeAfter)
    #expect(elapsed < .seconds(6))
    #expect(report == CreationReport(holders: ["west"], debtors: ["east"]))
    #expect(try setup.journal.debts() == [Debt(region: "east", object: setup.name)])
    #expect(regions.happened.last == "east debt")
  }

  @Test("a region that fails once and then takes the object is owed nothing") func recovers() throws {
    let setup = try TwoRegions()
    setup.east.script { $0.failureCount = 1 }
    let regions = setup.open()
    let report = try regions.create(setup.name, bytes)
    #expect(report.holders == ["west", "east"])
    #expect(try setup.journal.debts() == [])
    #expect(regions.happened == ["east failed", "east recovered"])
    #expect(!fileExists(setup.healthPath("east")))
  }

  @Test("a region that is known to be down costs no wait and isn't asked") func knownDown() throws {
    let setup = try TwoRegions()
    setup.east.script { $0.behaviour = .stalls }
    try setup.noteFailing("east", seconds: 100)
    var report = CreationReport()
    let elapsed = try timed { report = try setup.open().create(setup.name, bytes) }
    #expect(report == CreationReport(holders: ["west"], debtors: ["east"]))
    #expect(elapsed < .seconds(1))
    #expect(setup.east.requests == [])
    #expect(try setup.journal.debts() == [Debt(region: "east", object: setup.name)])
  }

  @Test("with all regions known to be down each is asked, since nobody else is left") func allKnownDown() throws {
    let setup = try TwoRegions()
    for region in ["west", "east"] { try setup.noteFailing(region, seconds: 100) }
    #expect(try setup.open().create(setup.name, bytes).holders == ["west", "east"])
    #expect(!fileExists(setup.healthPath("west")))
  }

  @Test("no region at all is no durability, and no debt") func nobody() throws {
    let setup = try TwoRegions()
    for store in [setup.west, setup.east] { store.script { $0.behaviour = .fails(.regionUnreachable) } }
    #expect(thrownCode { try setup.open().create(setup.name, bytes) } == .durabilityNotReached)
    #expect(try setup.journal.debts() == [])
  }

  @Test(
    "where one region is enough, a straggler holds up the answer for the grace, and isn't taken for a failing region")
  func straggler() throws {
    var setup = try TwoRegions()
    setup.required = 1
    setup.degradeAfter = .seconds(60)
    setup.east.script { $0.behaviour = .stalls }
    let regions = setup.open()
    var report = CreationReport()
    let elapsed = try timed { report = try regions.create(setup.name, bytes) }
    #expect(report == CreationReport(holders: ["west"], debtors: ["east"]))
    #expect(elapsed < .seconds(4))
    #expect(try setup.journal.debts() == [Debt(region: "east", object: setup.name)])
    #expect(regions.regions[1].health.failingFor == nil)
  }

  @Test("a region that holds the object already counts") func sameBefore() throws {
    let setup = try TwoRegions()
    setup.west.script { $0.objects[setup.key] = bytes }
    let report = try setup.open().create(setup.name, bytes)
    #expect(report == CreationReport(holders: ["west", "east"], existed: ["west"]))
  }

  @Test("a creation whose answer was lost converges") func lostAnswer() throws {
    let setup = try TwoRegions()
    setup.east.script { $0.lostAnswerCount = 1 }
    let report = try setup.open().create(setup.name, bytes)
    #expect(report == CreationReport(holders: ["west", "east"], existed: ["east"]))
    #expect(try setup.journal.debts() == [])
  }

  @Test("another object of the name is refused, unchanged, and never becomes a debt") func otherBefore() throws {
    let setup = try TwoRegions()
    setup.east.script { $0.objects[setup.key] = [9] }
    #expect(thrownCode { try setup.open().create(setup.name, bytes) } == .repositoryForeign)
    #expect(setup.east.object(setup.key) == [9])
    #expect(try setup.journal.debts() == [])
  }

  @Test("what the comparison throws is the answer") func comparison() throws {
    let setup = try TwoRegions()
    setup.west.script { $0.objects[setup.key] = [9] }
    let code = thrownCode {
      try setup.open().create(setup.name, ObjectBody(bytes)) { _ in throw TidemarkError(.walConflict, "another segment")
      }
    }
    #expect(code == .walConflict)
    #expect(try setup.journal.debts() == [])
  }

  @Test("more regions required than there are means all of them") func requiredTooMany() throws {
    var setup = try TwoRegions()
    setup.required = 5
    #expect(try setup.open().create(setup.name, bytes).holders == ["west", "east"])
  }
}
