// Reading from two regions: falling over, proving absence, and mending.
import Diagnostics
import SystemSupport
import Testing

@testable import BackupRepository

@Suite("Reading from regions") struct RegionReadTests {
  let good: [UInt8] = [1, 2, 3]

  /// Both regions hold the good object.
  func stocked(marked: Bool = true) throws -> TwoRegions {
    let setup = try TwoRegions(marked: marked)
    for store in [setup.west, setup.east] { store.script { $0.objects[setup.key] = good } }
    return setup
  }

  /// Reads with a check that only the good bytes pass.
  func read(_ regions: RegionSet, _ setup: TwoRegions, mends: Bool = true) throws -> (bytes: [UInt8], region: String) {
    try regions.read(setup.name, mends: mends) { bytes, region in
      guard bytes == good else { throw TidemarkError(.objectDamaged, "not the good bytes") }
      return (bytes, region.name)
    }
  }

  @Test(
    "a region that fails is passed over",
    arguments: [
      ErrorCode.regionUnreachable, .regionThrottled, .accessDenied, .bucketMissing, .credentialsMissing,
      .storeAnswerInvalid,
    ])
  func fallsOver(_ code: ErrorCode) throws {
    let setup = try stocked()
    setup.west.script { $0.behaviour = .fails(code) }
    let regions = setup.open()
    #expect(try read(regions, setup).region == "east")
    #expect(regions.happened == ["west failed"])
  }

  @Test("a region that stalls is waited for no longer than its limit") func stalls() throws {
    let setup = try stocked()
    setup.west.script { $0.behaviour = .stalls }
    let regions = setup.open()
    var region = ""
    let elapsed = try timed { region = try read(regions, setup).region }
    #expect(region == "east")
    #expect(elapsed >= setup.limits.perRegion)
    #expect(elapsed < setup.limits.total)
  }

  @Test("a region known to be failing isn't asked while another answers") func knownDown() throws {
    let setup = try stocked()
    try setup.noteFailing("west", seconds: 5)
    #expect(try read(setup.open(), setup).region == "east")
    #expect(setup.west.requests == [])
  }

  @Test("with all regions known to be failing each is asked at once") func allKnownDown() throws {
    let setup = try stocked()
    for region in ["west", "east"] { try setup.noteFailing(region, seconds: 5) }
    let regions = setup.open()
    let elapsed = try timed { _ = try read(regions, setup) }
    #expect(elapsed < .milliseconds(500))
  }

  @Test("regions that refuse are asked again for a short time only, and told once")
  func refused() throws {
    let setup = try stocked()
    for store in [setup.west, setup.east] { store.script { $0.behaviour = .fails(.accessDenied) } }
    let regions = setup.open()
    let elapsed = timed { #expect(thrownCode { _ = try read(regions, setup) } == .accessDenied) }
    #expect(elapsed < setup.limits.total)
    #expect(setup.west.requests.count > 1)
    #expect(regions.happened == ["west failed", "east failed"])
  }

  @Test("a region that may come back is waited for beside one that refuses")
  func refusedAndDown() throws {
    let setup = try stocked()
    setup.west.script { $0.behaviour = .fails(.accessDenied) }
    setup.east.script { $0.behaviour = .fails(.regionUnreachable) }
    let elapsed = timed { #expect(thrownCode { _ = try read(setup.open(), setup) } != nil) }
    #expect(elapsed > setup.limits.denial)
  }

  @Test("what every region says isn't there isn't there") func absent() throws {
    let setup = try TwoRegions()
    #expect(thrownCode { _ = try read(setup.open(), setup) } == .objectNotFound)
  }

  @Test(
    "absence isn't proven while a region can't be asked",
    arguments: [
      ScriptedStore.Behaviour.fails(.regionUnreachable), .fails(.accessDenied), .stalls,
    ])
  func unproven(_ behaviour: ScriptedStore.Behaviour) throws {
    let setup = try TwoRegions()
    setup.east.script { $0.behaviour = behaviour }
    let code = thrownCode { _ = try read(setup.open(), setup) }
    #expect(code == (behaviour == .fails(.accessDenied) ? .accessDenied : .regionUnreachable))
  }

  @Test("a region without the marker proves nothing") func unmarked() throws {
    let setup = try TwoRegions()
    setup.east.script { $0.objects = [:] }
    #expect(thrownCode { _ = try read(setup.open(), setup) } == .repositoryMissing)
  }

  @Test("a region that can't be asked for its marker proves nothing") func markerUnreachable() throws {
    let setup = try TwoRegions()
    setup.east.script { $0.behaviour = .stalls }
    setup.west.script { $0.objects = [:] }
    let code = thrownCode { _ = try read(setup.open(), setup) }
    #expect(code != nil && code != .objectNotFound)
  }

  @Test("a damaged copy is passed over, replaced and reported") func mendsDamage() throws {
    let setup = try stocked()
    setup.west.damage(setup.key)
    let regions = setup.open()
    #expect(try read(regions, setup).region == "east")
    #expect(setup.west.object(setup.key) == good)
    #expect(regions.happened == ["west damaged", "west mended"])
    let requests = ["read", "read", "delete", "create"].map { "\($0) \(setup.key)" }
    #expect(setup.west.requests == requests)
    #expect(setup.east.requests == ["read \(setup.key)"])
    #expect(try setup.journal.debts() == [])
  }

  @Test("damage on the line alone is read again and mends nothing") func lineDamage() throws {
    let setup = try stocked()
    setup.west.script { $0.damagedReadCount = 1 }
    let regions = setup.open()
    #expect(try read(regions, setup).region == "west")
    #expect(regions.happened == [])
    #expect(setup.west.requests == ["read \(setup.key)", "read \(setup.key)"])
  }

  @Test("damage in every region is the answer, and nothing is deleted") func damagedEverywhere() throws {
    let setup = try stocked()
    for store in [setup.west, setup.east] { store.damage(setup.key) }
    #expect(thrownCode { _ = try read(setup.open(), setup) } == .objectDamaged)
    for store in [setup.west, setup.east] {
      #expect(store.object(setup.key) != nil)
      #expect(!store.requests.contains { $0.hasPrefix("delete") })
    }
  }

  @Test("damage here and absence there is damage, not absence") func damagedAndAbsent() throws {
    let setup = try stocked()
    setup.west.damage(setup.key)
    setup.east.script { $0.objects[setup.key] = nil }
    #expect(thrownCode { _ = try read(setup.open(), setup) } == .objectDamaged)
    #expect(setup.west.object(setup.key) != nil)
  }

  @Test("a missing copy is restored") func mendsAbsence() throws {
    let setup = try stocked()
    setup.west.script { $0.objects[setup.key] = nil }
    try setup.journal.record(Debt(region: "west", object: setup.name))
    let regions = setup.open()
    #expect(try read(regions, setup).region == "east")
    #expect(setup.west.object(setup.key) == good)
    #expect(regions.happened == ["west absent", "west mended"])
    #expect(try setup.journal.debts() == [])
  }

  @Test("nothing is mended when it isn't asked for, nor from a part of an object") func doesNotMend() throws {
    let setup = try stocked()
    setup.west.script { $0.objects[setup.key] = nil }
    #expect(try read(setup.open(), setup, mends: false).region == "east")
    let part = try setup.open().read(setup.name, range: .suffix(count: 1)) { bytes, _ in bytes }
    #expect(part == [3])
    #expect(setup.west.object(setup.key) == nil)
  }

  @Test("a damaged copy that can't be deleted stays and is reported; the read succeeds") func undeletable() throws {
    let setup = try stocked()
    setup.west.damage(setup.key)
    setup.west.script { $0.refusesDeletion = true }
    let regions = setup.open()
    #expect(try read(regions, setup).bytes == good)
    #expect(regions.happened == ["west damaged", "west not-mended"])
    #expect(try setup.journal.debts() == [])
  }

  @Test("a copy that was deleted and couldn't be created is owed") func halfMended() throws {
    let setup = try stocked()
    setup.west.damage(setup.key)
    setup.west.script { $0.refusesCreation = true }
    let regions = setup.open()
    #expect(try read(regions, setup).bytes == good)
    #expect(regions.happened == ["west damaged", "west not-mended"])
    #expect(try setup.journal.debts() == [Debt(region: "west", object: setup.name)])
  }

  @Test("a copy that no key here opens is passed over, but never replaced") func otherKeys() throws {
    let setup = try stocked()
    setup.west.damage(setup.key)
    let regions = setup.open()
    func open(_ count: Int) throws -> [UInt8] {
      try regions.read(setup.name) { bytes, region in
        if count == 2 || region.name == "west" { throw TidemarkError(.noKeyOpens, "sealed to somebody else") }
        return bytes
      }
    }
    #expect(try open(1) == good)
    #expect(regions.happened == ["west damaged"])
    #expect(!setup.west.requests.contains { $0.hasPrefix("delete") })
    #expect(thrownCode { _ = try open(2) } == .noKeyOpens)
  }

  @Test("one region alone is read when it is named") func onlyOne() throws {
    let setup = try stocked()
    let regions = try setup.open().only("east")
    #expect(try read(regions, setup).region == "east")
    setup.east.script { $0.objects[setup.key] = nil }
    #expect(thrownCode { _ = try read(regions, setup) } == .objectNotFound)
    #expect(setup.west.requests == [])
    #expect(thrownCode { _ = try setup.open().only("north") } == .usage)
  }
}
