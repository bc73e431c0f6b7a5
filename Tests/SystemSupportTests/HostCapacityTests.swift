// What a host has of memory and cores, and what is left to others.
import SystemSupport
import TestSupport
import Testing

@Suite("The host's capacity")
struct HostCapacityTests {
  private func root(_ files: [String: String]) throws -> TemporaryDirectory {
    let root = try TemporaryDirectory()
    for (name, text) in files {
      let path = "\(root.path)/\(name)"
      try DurableFile.createDirectories(directoryName(path))
      try DurableFile.write(Array(text.utf8), to: path)
    }
    return root
  }

  private static let meminfo = "MemTotal:       16384 kB\nMemFree:         1024 kB\nMemAvailable:    8192 kB\n"

  @Test(
    "memory is what Linux calls available, and no more than a control group's limit",
    arguments: [
      ([:], 8 << 20),
      // The group's own limit, one above it, and a container's, which is the root of what it sees.
      (["proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "4194304\n"], 4 << 20),
      (
        [
          "proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n",
          "sys/fs/cgroup/a/memory.max": "2097152\n",
        ], 2 << 20
      ),
      (["proc/self/cgroup": "0::/../elsewhere\n", "sys/fs/cgroup/memory.max": "1048576\n"], 1 << 20),
      (["proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "99999999999\n"], 8 << 20),
      (
        [
          "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/x\n",
          "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "3145728\n",
        ], 3 << 20
      ),
    ] as [([String: String], Int64)])
  func memory(_ files: [String: String], _ expected: Int64) throws {
    let root = try root(files.merging(["proc/meminfo": Self.meminfo]) { _, new in new })
    #expect(availableMemory(root: root.path) == expected)
  }

  @Test("of a host that doesn't say it, nothing is known; of this one it is")
  func unknown() throws {
    let root = try root(["proc/meminfo": "MemTotal:       16384 kB\n"])
    #expect(availableMemory(root: root.path) == nil)
    #expect(availableMemory(root: "\(root.path)/nowhere") == nil)
    #expect(try #require(availableMemory()) > 16 << 20)
  }

  @Test("a thread leaves one core and takes it back, and the threads that it starts begin as it is")
  func cores() throws {
    let counts = try WorkerThread("cores") { () -> [Int] in
      var cores = ThreadCores()
      var counts = [cores.count, ThreadCores().count]
      for leaves in [true, true, false] {
        cores.leaveOne(leaves)
        counts += [cores.count, try WorkerThread("child") { ThreadCores().count }.join()]
      }
      return counts
    }.join()
    let all = counts[0]
    #expect(all > 0)
    let left = max(1, all - 1)
    #expect(counts == [all, all, left, left, left, left, all, all])
    // Nobody else was moved.
    #expect(ThreadCores().count == all)
  }
}
