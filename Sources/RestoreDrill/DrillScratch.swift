// The scratch directory of drills: everything that a drill writes is in its `run` subdirectory, and goes with it. A
// directory is taken only when it is empty or marked as a drill's, and never within, around or upon a live place. After
// kill -9 the lock is free and the leftover is there: the next drill stops its server and removes it.
import Diagnostics
import Foundation
import Glibc
import PointInTimeRestore
import SystemSupport

struct DrillScratch: ~Copyable {
  private static let markName = "tidemark-drill"
  private static let markText = "A drill's scratch directory. What is in it is removed by the next 'tidemark drill'.\n"
  /// sun_path without its closing zero (unix(7)).
  private static let socketPathByteCountMax = 107

  let directory: String
  private let lock: FileLock
  var run: String { "\(directory)/run" }
  var data: String { "\(run)/pg" }
  var tablespaces: String { "\(run)/tablespaces" }

  /// Takes the directory.
  /// - Throws: `target-in-use` for a live place, `target-not-empty`, `locked`, `usage`.
  init(_ path: String, avoiding live: LivePlaces) throws(TidemarkError) {
    let longest = "\(path)/run/pg.tidemark/socket/.s.PGSQL.65535"
    guard longest.utf8.count <= Self.socketPathByteCountMax else {
      throw TidemarkError(
        .usage, "the scratch directory's path is too long for a Unix socket below it", object: path,
        cause: "\(longest.utf8.count) bytes, \(Self.socketPathByteCountMax) are possible",
        next: "set drill.directory to a shorter one")
    }
    guard !path.contains("'"), !path.contains(",") else {
      throw TidemarkError(.usage, "the scratch directory's path has a quote or a comma in it", object: path)
    }
    // Resolved before anything is made, so that a link can't lead into a live place.
    let real = try Self.resolved(path)
    try Self.refuseLivePlaces(real, live)
    try Self.refuseForeignContent(real)
    // PostgreSQL's user must pass; nothing but its own files is of any use to it here.
    try DurableFile.createDirectories(real, mode: 0o755)
    lock = try FileLock("\(real)/lock", purpose: "a drill")
    directory = real
  }

  /// Removes what a killed drill left there, and makes an empty place for the next one.
  /// - Throws: `target-not-empty`, `local-permission`.
  func prepare(_ tree: OwnedTree, osUser: String) throws(TidemarkError) {
    let mark = "\(directory)/\(Self.markName)"
    if !fileExists(mark) { try DurableFile.write(Array(Self.markText.utf8), to: mark, mode: 0o644) }
    try Self.remove(run)
    try tree.makeDirectory(run)
    try DurableFile.write(Array("\(getpid())\n".utf8), to: "\(run)/\(Self.markName)", mode: 0o644)
    try Self.requirePassage(run, tree, osUser)
  }

  /// Ends the server that may still run and removes everything but the mark. It may be called again.
  func clean() throws(TidemarkError) { try Self.remove(run) }

  /// Bytes on disk.
  static func byteCount(_ path: String) -> Int64 {
    guard let files = FileManager.default.enumerator(atPath: path) else { return 0 }
    var total: Int64 = 0
    var status = stat()
    while let name = files.nextObject() as? String {
      if lstat("\(path)/\(name)", &status) == 0 { total += Int64(status.st_blocks) * 512 }
    }
    return total
  }

  // MARK: Refusals

  /// Without symbolic links; what doesn't exist yet is appended to what does.
  private static func resolved(_ path: String) throws(TidemarkError) -> String {
    var existing = path
    var rest: [String] = []
    while true {
      if let real = realpath(existing, nil) {
        defer { free(real) }
        let base = String(cString: real)
        return rest.isEmpty ? base : (base == "/" ? "" : base) + "/" + rest.reversed().joined(separator: "/")
      }
      guard errno == ENOENT, existing != "/", !fileExists(existing) else {
        throw systemError("cannot examine the scratch directory", existing)
      }
      rest.append(baseName(existing))
      existing = directoryName(existing)
    }
  }

  private static func refuseLivePlaces(_ path: String, _ live: LivePlaces) throws(TidemarkError) {
    func refuse(_ what: String, _ place: String) -> TidemarkError {
      TidemarkError(
        .targetInUse, "the drill's scratch directory touches \(what)", object: path, cause: place,
        kept: "everything: nothing was written", next: "set drill.directory to a directory of its own")
    }
    func touches(_ place: String) throws(TidemarkError) -> Bool {
      let real = try resolved(place)
      return path == real || path.hasPrefix(real == "/" ? real : real + "/") || real.hasPrefix(path + "/")
    }
    if let data = live.dataDirectory, try touches(data) { throw refuse("the cluster's data directory", data) }
    for region in live.regionDirectories {
      if try touches(region) { throw refuse("a region", region) }
    }
    // Whatever the configuration knows: no data directory or tablespace of any cluster lies on the way up.
    var place = path
    while true {
      if let name = try clusterSign(place) { throw refuse("a PostgreSQL cluster", "\(place)/\(name)") }
      if place == "/" { return }
      place = directoryName(place)
    }
  }

  /// What says that `directory` is PostgreSQL's: `PG_VERSION`, or a tablespace's `PG_15_202209061` (TABLESPACE_VERSION_
  /// DIRECTORY, relpath.h).
  private static func clusterSign(_ directory: String) throws(TidemarkError) -> String? {
    guard isDirectory(directory) else { return nil }
    if fileExists("\(directory)/PG_VERSION") { return "PG_VERSION" }
    // A parent that can't be listed can't be a place that we were given by mistake, and is no hindrance.
    guard let names = try? directoryEntries(directory) else { return nil }
    return names.first { $0.wholeMatch(of: /PG_\d+_\d+/) != nil }
  }

  private static func refuseForeignContent(_ path: String) throws(TidemarkError) {
    guard fileExists(path) else { return }
    guard isDirectory(path) else {
      throw TidemarkError(.targetNotEmpty, "the drill's scratch directory is something else", object: path)
    }
    let names = try directoryEntries(path).filter { $0 != "lost+found" && $0 != "lock" && !isUnfinishedMark($0) }
    guard names.isEmpty || names.contains(markName) else {
      throw TidemarkError(
        .targetNotEmpty, "the drill's scratch directory holds what no drill put there", object: path,
        cause: names.sorted().prefix(3).joined(separator: ", "), kept: "everything there, unchanged",
        next: "set drill.directory to a directory of its own")
    }
  }

  /// - Throws: `local-permission` when PostgreSQL's user can't reach the directory, which the server's start would only
  ///   say in its own log.
  private static func requirePassage(_ path: String, _ tree: OwnedTree, _ user: String) throws(TidemarkError) {
    guard tree.changesOwner else { return }
    let outcome = try ChildProcess.run(
      "/usr/bin/setpriv",
      ["--reuid=\(user)", "--regid=\(user)", "--init-groups", "--", "/usr/bin/test", "-w", "\(path)/."],
      workingDirectory: "/")
    guard outcome.succeeded else {
      throw TidemarkError(
        .localPermission, "user \(user) can't reach the drill's scratch directory", object: path,
        next: "let it pass through the directories above, or set drill.directory elsewhere")
    }
  }

  // MARK: Removal

  /// A drill that was killed at its beginning may have left no more than this.
  private static func isUnfinishedMark(_ name: String) -> Bool { name.hasPrefix(".\(markName).") }

  private static func remove(_ run: String) throws(TidemarkError) {
    var status = stat()
    guard lstat(run, &status) == 0 else { return }
    guard status.st_mode & S_IFMT == S_IFDIR else {
      throw TidemarkError(
        .targetNotEmpty, "what should be a drill's directory is something else", object: run,
        kept: "everything there, unchanged", next: "look at it, and move it away")
    }
    let names = try directoryEntries(run)
    guard names.contains(markName) || names.allSatisfy(isUnfinishedMark) else {
      throw TidemarkError(
        .targetNotEmpty, "what should be a drill's directory holds what no drill put there", object: run,
        cause: names.sorted().prefix(3).joined(separator: ", "), kept: "everything there, unchanged",
        next: "look at it, and move it away")
    }
    Postmaster(in: "\(run)/pg")?.end()
    // The mark goes last, so that a removal that is interrupted can be finished. Links are removed, never followed.
    for name in names where name != markName { try removeTree("\(run)/\(name)") }
    try removeTree(run)
  }

  private static func removeTree(_ path: String) throws(TidemarkError) {
    do { try FileManager.default.removeItem(atPath: path) } catch {
      guard fileExists(path) else { return }
      throw TidemarkError(
        .localIO, "cannot remove the drill's files", object: path, cause: error.localizedDescription,
        next: "the next drill tries it again")
    }
  }
}
