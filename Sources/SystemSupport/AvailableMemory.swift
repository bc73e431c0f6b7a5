// How much memory there is for what this host keeps of files.
import Diagnostics

/// Bytes that processes here could have before the host would have to put something out of memory: what Linux says is
/// available (proc(5), `MemAvailable`), and no more than the limits of the control groups that this process is in; `nil`
/// where it isn't known.
package func availableMemory(root: String = "") -> Int64? {
  guard let text = content("\(root)/proc/meminfo"),
    let line = text.split(separator: "\n").first(where: { $0.hasPrefix("MemAvailable:") }),
    let kibibytes = line.split(separator: " ").dropFirst().first.flatMap({ Int64($0) })
  else { return nil }
  return controlGroupLimits(root).reduce(kibibytes << 10, min)
}

/// The limits of the group and of all above it (Linux, admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst; a line of
/// /proc/self/cgroup is "number:controllers:path").
private func controlGroupLimits(_ root: String) -> [Int64] {
  var limits: [Int64] = []
  for line in (content("\(root)/proc/self/cgroup") ?? "").split(separator: "\n") {
    let fields = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
    guard fields.count == 3 else { continue }
    let (tree, name): (String, String)
    switch fields[1] {
    case "": (tree, name) = ("\(root)/sys/fs/cgroup", "memory.max")
    case let controllers where controllers.split(separator: ",").contains("memory"):
      (tree, name) = ("\(root)/sys/fs/cgroup/memory", "memory.limit_in_bytes")
    default: continue
    }
    // A container sees its own group as the tree's root, whatever the path says.
    var group = fields[2].split(separator: "/")
    while true {
      // No number where there is no limit, and no file in the root's own group.
      let path = ([tree] + group.map(String.init) + [name]).joined(separator: "/")
      if let text = content(path), let limit = Int64(text.split(separator: "\n").first ?? "") { limits.append(limit) }
      if group.isEmpty { break }
      group.removeLast()
    }
  }
  return limits
}

/// What isn't there, or may not be read, says nothing.
private func content(_ path: String) -> String? {
  (try? readFile(path, limit: 1 << 20)).map { String(decoding: $0, as: UTF8.self) }
}
