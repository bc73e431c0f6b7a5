// What every store must do, the same for all of them.
import Diagnostics
import ObjectStorage
import S3Storage
import Synchronization
import SystemSupport
import Testing

@Suite("Every object store")
struct ConformanceTests {
  @Test("what was created is read back, and is known", arguments: TestedStore.allCases)
  func roundTrip(_ tested: TestedStore) throws {
    let (store, prefix) = try tested.open()
    let key = try ObjectKey("\(prefix)/a/b.c_d-e/object")
    let bytes = pattern(100_000)
    let outcome = try store.create(key, bytes, deadline: patience)
    #expect(tested.creations.contains(outcome))
    #expect(try store.read(key, range: nil, deadline: patience) == bytes)
    let information = try #require(try store.information(key, deadline: patience))
    #expect(information.key == key)
    #expect(information.byteCount == 100_000)
    #expect(abs(Double(information.modified) - nowInSeconds()) < 3600)
    let statistics = store.statistics
    #expect(statistics.requests >= 3)
    #expect(statistics.failures == 0 || tested.isFaulty)
    // What went out without an answer isn't counted, though it may have arrived.
    #expect(statistics.bytesSent >= 100_000 || outcome == .exists)
    #expect(statistics.bytesReceived >= 100_000)
  }

  @Test("an object is never overwritten", arguments: TestedStore.allCases)
  func neverOverwritten(_ tested: TestedStore) throws {
    let (store, prefix) = try tested.open()
    let key = try ObjectKey("\(prefix)/object")
    #expect(tested.creations.contains(try store.create(key, [1, 2, 3], deadline: patience)))
    #expect(try store.create(key, [4, 5, 6, 7], deadline: patience) == .exists)
    #expect(try store.create(key, [1, 2, 3], deadline: patience) == .exists)
    #expect(try store.read(key, range: nil, deadline: patience) == [1, 2, 3])
  }

  @Test("of several writers at once one creates", arguments: TestedStore.allCases.filter(\.isConditional))
  func oneCreates(_ tested: TestedStore) throws {
    let (store, prefix) = try tested.open()
    for round in 0..<5 {
      let key = try ObjectKey("\(prefix)/round-\(round)")
      let creators = Mutex<[Int]>([])
      try withThreads("writer", count: 8) { index in
        let outcome = try store.create(key, [UInt8](repeating: UInt8(index), count: 1000), deadline: patience)
        if outcome == .created { creators.withLock { $0.append(index) } }
      }
      let winners = creators.withLock { $0 }
      let content = try store.read(key, range: nil, deadline: patience)
      #expect(content.count == 1000 && Set(content).count == 1)
      // Whose answer was lost created it, and doesn't know.
      #expect(winners.count == 1 || tested.isFaulty && winners.isEmpty)
      if let winner = winners.first { #expect(content.first == UInt8(winner)) }
    }
  }

  @Test("conditional creation is found out by trial", arguments: TestedStore.allCases)
  func probe(_ tested: TestedStore) throws {
    let (store, prefix) = try tested.open()
    let key = try ObjectKey("\(prefix)/probe")
    #expect(try store.honoursConditionalCreation(probe: key, deadline: patience) == tested.isConditional)
    // Again, with the probe already there.
    #expect(try store.honoursConditionalCreation(probe: key, deadline: patience) == tested.isConditional)
    #expect(try store.create(key, [1], deadline: patience) == .exists)
    #expect(tested.creations.contains(try store.create(try ObjectKey("\(prefix)/other"), [1], deadline: patience)))
  }

  @Test("ranges are cut at the object's end", arguments: TestedStore.allCases)
  func ranges(_ tested: TestedStore) throws {
    let (store, prefix) = try tested.open()
    let key = try ObjectKey("\(prefix)/object")
    let bytes = pattern(1000)
    _ = try store.create(key, bytes, deadline: patience)
    func read(_ range: ByteRange) throws -> [UInt8] { try store.read(key, range: range, deadline: patience) }
    #expect(try read(.bytes(offset: 0, count: 10)) == Array(bytes[..<10]))
    #expect(try read(.bytes(offset: 500, count: 100)) == Array(bytes[500..<600]))
    #expect(try read(.bytes(offset: 0, count: 1000)) == bytes)
    #expect(try read(.bytes(offset: 999, count: 1)) == [bytes[999]])
    #expect(try read(.bytes(offset: 990, count: 100)) == Array(bytes[990...]))
    #expect(try read(.bytes(offset: 1, count: .max)) == Array(bytes[1...]))
    #expect(try read(.bytes(offset: 1000, count: 1)) == [])
    #expect(try read(.bytes(offset: 5000, count: 10)) == [])
    #expect(try read(.bytes(offset: 5, count: 0)) == [])
    #expect(try read(.suffix(count: 7)) == Array(bytes[993...]))
    #expect(try read(.suffix(count: 1000)) == bytes)
    #expect(try read(.suffix(count: 5000)) == bytes)
    #expect(try read(.suffix(count: 0)) == [])
  }

  @Test("one buffer takes one object after the other", arguments: TestedStore.allCases)
  func buffer(_ tested: TestedStore) throws {
    let (store, prefix) = try tested.open()
    let buffer = ReceiveBuffer()
    var places: Set<UnsafeRawPointer?> = []
    for (number, count) in [300_000, 10, 0, 299_999, 200_000].enumerated() {
      let key = try ObjectKey("\(prefix)/\(number)")
      let bytes = pattern(count)
      _ = try store.create(key, bytes, deadline: patience)
      let found = try store.read(key, range: nil, deadline: patience, buffer: buffer)
      #expect(found == bytes)
      if count > 0 { places.insert(found.withUnsafeBytes(\.baseAddress)) }
      buffer.giveBack(found)
    }
    // A part of an object that came in pieces is put together elsewhere.
    if tested != .directory, !tested.isFaulty { #expect(places.count == 1) }
  }

  @Test("an empty object is an object", arguments: TestedStore.allCases)
  func emptyObject(_ tested: TestedStore) throws {
    let (store, prefix) = try tested.open()
    let key = try ObjectKey("\(prefix)/empty")
    #expect(tested.creations.contains(try store.create(key, [], deadline: patience)))
    #expect(try store.create(key, [1], deadline: patience) == .exists)
    #expect(try store.read(key, range: nil, deadline: patience) == [])
    #expect(try store.read(key, range: .bytes(offset: 0, count: 10), deadline: patience) == [])
    #expect(try store.read(key, range: .suffix(count: 10), deadline: patience) == [])
    #expect(try store.information(key, deadline: patience)?.byteCount == 0)
  }

  @Test("an object that comes in pieces is stored as one", arguments: TestedStore.allCases)
  func pieces(_ tested: TestedStore) throws {
    let (store, prefix) = try tested.open()
    let key = try ObjectKey("\(prefix)/pieces")
    // Shorter and longer than what goes out at once, and none at all.
    let body = ObjectBody([pattern(1), [], pattern(128 << 10), pattern((128 << 10) - 1), pattern(300_001), []])
    #expect(tested.creations.contains(try store.create(key, body, deadline: patience)))
    var stored = try store.read(key, range: nil, deadline: patience)
    #expect(stored == body.bytes && stored.count == body.byteCount && body.equals(stored))
    stored[stored.count - 1] ^= 1
    #expect(!body.equals(stored) && !body.equals(Array(stored.dropLast())))
  }

  @Test("what isn't there is not found, and nothing else", arguments: TestedStore.allCases)
  func absence(_ tested: TestedStore) throws {
    let (store, prefix) = try tested.open()
    _ = try store.create(try ObjectKey("\(prefix)/folder/object"), [1], deadline: patience)
    for name in ["nothing", "folder", "folder/nothing", "folder/object2"] {
      let key = try ObjectKey("\(prefix)/\(name)")
      #expect(try store.information(key, deadline: patience) == nil)
      #expect(try failure { try store.read(key, range: nil, deadline: patience) }.code == .objectNotFound)
      #expect(
        try failure { try store.read(key, range: .bytes(offset: 1, count: 2), deadline: patience) }.code
          == .objectNotFound)
      #expect(
        try failure { try store.read(key, range: .bytes(offset: 1, count: 0), deadline: patience) }.code
          == .objectNotFound)
      #expect(try failure { try store.read(key, range: .suffix(count: 2), deadline: patience) }.code == .objectNotFound)
    }
    #expect(try store.keys(prefix: "\(prefix)/nothing") == [])
    #expect(store.statistics.failures == 0 || tested.isFaulty)
  }

  @Test("listings are complete and in order, page by page", arguments: TestedStore.allCases)
  func listing(_ tested: TestedStore) throws {
    let (store, prefix) = try tested.open(listPageSize: 3)
    // Characters below and above the slash, and names that are beginnings of others.
    let names = [
      "a-b/x", "a.b", "a/b", "a/b-c", "a/b.c/d", "a/c/d/e", "a/c/d/f", "a0", "aB", "a_b", "aa/b", "b", "b-", "b.d/e",
      "b0",
    ]
    for name in names.shuffled() { _ = try store.create(try ObjectKey("\(prefix)/\(name)"), [7], deadline: patience) }
    let all = names.map { "\(prefix)/\($0)" }.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
    #expect(try store.keys(prefix: "\(prefix)/") == all)
    #expect(try store.keys(prefix: prefix) == all)
    for part in ["a/", "a/b", "a", "a/c/d/", "b", "b.", "zzz"] {
      #expect(try store.keys(prefix: "\(prefix)/\(part)") == all.filter { $0.hasPrefix("\(prefix)/\(part)") })
    }
    for after in all + ["\(prefix)/a", "\(prefix)/a/", "\(prefix)/a/c", "\(prefix)/zzz", "\(prefix)"] {
      let rest = all.filter { after.utf8.lexicographicallyPrecedes($0.utf8) }
      #expect(try store.keys(prefix: "\(prefix)/", startingAfter: after) == rest, "after \(after)")
    }
    #expect(
      try store.keys(prefix: "\(prefix)/a/", startingAfter: "\(prefix)/a/b.c/d")
        == all.filter {
          $0.hasPrefix("\(prefix)/a/") && "\(prefix)/a/b.c/d".utf8.lexicographicallyPrecedes($0.utf8)
        })
    var seen: [ObjectInformation] = []
    try store.list(prefix: "\(prefix)/", startingAfter: nil, deadline: patience) {
      seen.append($0)
      return seen.count < 5
    }
    #expect(seen.map(\.key.text) == Array(all[..<5]))
    #expect(seen.allSatisfy { $0.byteCount == 1 && abs(Double($0.modified) - nowInSeconds()) < 3600 })
  }

  @Test("an error of the listing's reader ends the listing", arguments: TestedStore.allCases)
  func listingReaderThrows(_ tested: TestedStore) throws {
    let (store, prefix) = try tested.open()
    _ = try store.create(try ObjectKey("\(prefix)/a"), [7], deadline: patience)
    let error = try failure {
      try store.list(prefix: prefix, startingAfter: nil, deadline: patience) { _ in
        throw TidemarkError(.walHole, "the reader's own")
      }
    }
    #expect(error.code == .walHole)
  }

  @Test("keys are deleted in bulk, missing ones too", arguments: TestedStore.allCases)
  func deletion(_ tested: TestedStore) throws {
    let (store, prefix) = try tested.open(listPageSize: 1000)
    let keys = try (0..<20).map { try ObjectKey("\(prefix)/d\($0 % 3)/object-\($0)") }
    for key in keys { _ = try store.create(key, [1], deadline: patience) }
    let missing = try ObjectKey("\(prefix)/d0/missing")
    #expect(try store.delete(Array(keys[..<15]) + [missing], deadline: patience) == [])
    #expect(Set(try store.keys(prefix: prefix)) == Set(keys[15...].map(\.text)))
    #expect(try store.delete([], deadline: patience) == [])
    #expect(try store.delete(keys, deadline: patience) == [])
    #expect(try store.keys(prefix: prefix) == [])
    // A key is free again after its deletion.
    #expect(tested.creations.contains(try store.create(keys[0], [2], deadline: patience)))
  }

  @Test("a large object makes the round", arguments: TestedStore.allCases)
  func largeObject(_ tested: TestedStore) throws {
    let (store, prefix) = try tested.open()
    let key = try ObjectKey("\(prefix)/large")
    let piece = pattern(1 << 20)
    var bytes: [UInt8] = []
    bytes.reserveCapacity(32 << 20)
    for index in 0..<32 { bytes += piece.map { $0 &+ UInt8(index) } }
    #expect(tested.creations.contains(try store.create(key, bytes, deadline: patience)))
    #expect(try store.read(key, range: nil, deadline: patience) == bytes)
    let offset = 17 << 20
    #expect(
      try store.read(key, range: .bytes(offset: Int64(offset), count: 1 << 20), deadline: patience)
        == Array(bytes[offset..<(offset + 1 << 20)]))
    #expect(try store.read(key, range: .suffix(count: 100), deadline: patience) == Array(bytes.suffix(100)))
  }

  @Test("threads share a store", arguments: TestedStore.allCases)
  func sharedByThreads(_ tested: TestedStore) throws {
    let (store, prefix) = try tested.open()
    try withThreads("client", count: 8) { index in
      for round in 0..<5 {
        let key = try ObjectKey("\(prefix)/\(index)/\(round)")
        let bytes = pattern(50_000, seed: index * 100 + round)
        guard tested.creations.contains(try store.create(key, bytes, deadline: patience)),
          try store.read(key, range: nil, deadline: patience) == bytes,
          try store.information(key, deadline: patience)?.byteCount == 50_000
        else { throw TidemarkError(.objectDamaged, "not what was written", object: key.text) }
      }
    }
    #expect(try store.keys(prefix: prefix).count == 40)
  }

  @Test("keys that could lead elsewhere aren't keys")
  func unsafeKeys() {
    for text in ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/./b", "a b", "a\0b", "ä", "a%2fb", "a?b", "a\\b"]
    {
      #expect(!ObjectKey.isValid(text))
      #expect(throws: TidemarkError.self) { try ObjectKey(text) }
    }
    #expect(!ObjectKey.isValid(String(repeating: "a", count: 1001)))
    for text in ["a", ".a", "...", "a..b/c", "A-Z_0.9"] { #expect(ObjectKey.isValid(text)) }
  }
}
