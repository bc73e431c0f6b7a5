// Listing two regions as one.
import Diagnostics
import SystemSupport
import Testing

@testable import BackupRepository

@Suite("Listing regions") struct RegionListTests {
  @Test("the list is the union, in order, with who holds what") func union() throws {
    let setup = try TwoRegions()
    setup.west.script {
      $0.objects["tidemark/crm/1/b"] = [1]
      $0.objects["tidemark/crm/1/a"] = [1]
      $0.objects["tidemark/crm/2/a"] = [1]
      $0.objects["other/crm/1/x"] = [1]
    }
    setup.east.script {
      $0.objects["tidemark/crm/1/b"] = [1, 2]
      $0.objects["tidemark/crm/1/c"] = [1]
    }
    let listing = try setup.open().list(prefix: "crm/1/")
    #expect(listing.isComplete)
    #expect(listing.answered == [0, 1])
    #expect(listing.entries.map(\.name.text) == ["crm/1/a", "crm/1/b", "crm/1/c"])
    #expect(listing.entries.map(\.holders) == [[0], [0, 1], [1]])
    #expect(listing.entries.map(\.sizesDiffer) == [false, true, false])
    let rest = try setup.open().list(prefix: "crm/1/", startingAfter: try ObjectName("crm/1/a"))
    #expect(rest.entries.map(\.name.text) == ["crm/1/b", "crm/1/c"])
  }

  @Test("a region that is down is named, and what the other holds is listed") func oneDown() throws {
    let setup = try TwoRegions()
    setup.west.script { $0.behaviour = .fails(.regionUnreachable) }
    setup.east.script { $0.objects["tidemark/crm/1/a"] = [1] }
    let listing = try setup.open().list(prefix: "crm/")
    #expect(!listing.isComplete)
    #expect(listing.answered == [1])
    #expect(listing.failures.mapValues(\.code) == ["west": .regionUnreachable])
    #expect(listing.entries.map(\.name.text) == ["crm/1/a", "crm/repository"])
  }

  @Test("a region without the marker has no say") func unmarked() throws {
    let setup = try TwoRegions()
    setup.west.script { $0.objects = ["tidemark/crm/1/a": [1]] }
    let listing = try setup.open().list(prefix: "crm/1/")
    #expect(listing.entries.isEmpty)
    #expect(listing.failures.mapValues(\.code) == ["west": .repositoryMissing])
  }

  @Test("without any region there is no list") func nobody() throws {
    let setup = try TwoRegions()
    for store in [setup.west, setup.east] { store.script { $0.behaviour = .fails(.accessDenied) } }
    #expect(thrownCode { _ = try setup.open().list(prefix: "crm/") } == .accessDenied)
  }

  @Test("with patience regions that answer nobody are asked again, and those that deny aren't") func patience() throws {
    let setup = try TwoRegions()
    setup.east.script { $0.objects["tidemark/crm/1/a"] = [1] }
    for store in [setup.west, setup.east] { store.script { $0.failureCount = 2 } }
    #expect(thrownCode { _ = try setup.open().list(prefix: "crm/1/") } == .regionUnreachable)
    let listing = try setup.open().list(prefix: "crm/1/", patience: .seconds(20))
    #expect(listing.entries.map(\.name.text) == ["crm/1/a"])
    for store in [setup.west, setup.east] { store.script { $0.behaviour = .fails(.accessDenied) } }
    let elapsed = timed {
      #expect(thrownCode { _ = try setup.open().list(prefix: "crm/1/", patience: .seconds(20)) } == .accessDenied)
    }
    #expect(elapsed < .seconds(10))
  }

  @Test("a long list comes whole and once") func long() throws {
    let setup = try TwoRegions()
    // Twice the stretch that is listed under one deadline, and none more: the end falls together with a stretch's.
    let names = (0..<4000).map { "crm/1/\(10_000 + $0)" }
    setup.west.script { state in for name in names { state.objects["tidemark/\(name)"] = [] } }
    #expect(try setup.open().list(prefix: "crm/1/").entries.map(\.name.text) == names)
  }

  @Test("a region that dies after its marker was seen isn't waited for longer") func dies() throws {
    let setup = try TwoRegions()
    let regions = setup.open()
    _ = try regions.list(prefix: "crm/")
    setup.west.script { $0.behaviour = .stalls }
    var listing = RegionListing()
    let elapsed = try timed { listing = try regions.list(prefix: "crm/") }
    #expect(listing.answered == [1])
    #expect(elapsed < .seconds(2))
  }
}
