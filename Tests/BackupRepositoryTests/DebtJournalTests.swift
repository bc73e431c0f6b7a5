// The journal of debts: whole or absent, whoever writes it and whenever it is killed.
import Diagnostics
import Glibc
import SystemSupport
import TestSupport
import Testing

@testable import BackupRepository

@Suite("The journal of debts") struct DebtJournalTests {
  let directory: TemporaryDirectory
  let journal: DebtJournal

  init() throws {
    directory = try TemporaryDirectory()
    journal = DebtJournal(stateDirectory: directory.path)
  }

  func debt(_ region: String, _ name: String) throws -> Debt { Debt(region: region, object: try ObjectName(name)) }

  @Test("what is recorded is there for the next process, until it is settled") func records() throws {
    #expect(try journal.debts() == [])
    let west = try debt("west", "crm/7301/wal/00000001/000000010000000000000003")
    let east = try debt("east", "crm/repository")
    for debt in [west, east, west] { try journal.record(debt) }
    let next = DebtJournal(stateDirectory: directory.path)
    #expect(try next.debts() == [east, west])
    #expect(next.contains(west))
    try next.settle(west)
    try next.settle(west)
    #expect(try journal.debts() == [east])
    #expect(!journal.contains(west))
  }

  @Test("several threads record at once, and none is lost") func threads() throws {
    let journal = journal
    try withThreads("debts", count: 4) { thread in
      for number in 0..<25 {
        try journal.record(Debt(region: "west", object: try ObjectName("crm/1/\(thread)-\(number)")))
        try journal.record(Debt(region: "west", object: try ObjectName("crm/1/shared-\(number)")))
      }
    }
    #expect(try journal.debts().count == 125)
  }

  @Test("what a killed process or somebody else left there is no debt") func leftovers() throws {
    let real = try debt("west", "crm/1/a")
    try journal.record(real)
    for name in [".crm~1~b.123-456.tmp", "not a key", "crm~~b"] {
      try DurableFile.write([], to: "\(directory.path)/debts/west/\(name)")
    }
    try DurableFile.write([], to: "\(directory.path)/debts/README")
    #expect(try journal.debts() == [real])
  }

  @Test("the longest name has room in a file's name") func longName() throws {
    let cluster = String(repeating: "c", count: 64)
    let label = try BackupLabelName(String(repeating: "b", count: 64))
    let lineage = try ClusterLayout(cluster: cluster).lineage(.init(rawValue: UInt64.max))
    let debt = Debt(region: "west", object: lineage.pack(label, Int(Int32.max)))
    try journal.record(debt)
    #expect(try journal.debts() == [debt])
  }

  @Test(
    "a process killed at any step leaves the debt whole or absent",
    arguments: [
      ("debt.before-record", 0), ("durable-file.before-fsync", 0), ("durable-file.before-link", 0),
      ("debt.after-record", 1),
    ])
  func killed(_ step: String, _ count: Int) async throws {
    let path = directory.path
    await #expect(processExitsWith: .signal(SIGKILL)) { [path = path as String, step = step as String] in
      setenv("TIDEMARK_CRASH_AT", step, 1)
      let journal = DebtJournal(stateDirectory: path)
      try journal.record(Debt(region: "west", object: try ObjectName("crm/1/a")))
    }
    #expect(try journal.debts().count == count)
  }
}
