// A directory as an object store: a third copy on a NAS, a trial without S3. A key is a path below the root.
// A root that isn't there, or that lacks the store's marker, is an unreachable region and never an empty one: a file
// system that isn't mounted must not prove an absence. No symbolic link below the root is ever followed.
import CLinux
import Diagnostics
import Glibc
import Synchronization
import SystemSupport

package final class DirectoryStore: ObjectStore {
  /// Within the root: says that this is a store, and holds files that are being written.
  static let markerName = ".tidemark-store"

  package let root: String
  private let state = Mutex(State())

  private struct State {
    var statistics = StoreStatistics()
    /// Directories whose entries in their parents are durable. Bounded: see `rememberDurable`.
    var durableDirectories: Set<String> = []
  }

  /// Touches nothing: a root that can't be used shows at the first operation.
  package init(root: String) { self.root = root }

  package var location: String { "file://\(root)" }
  package var clockOffset: Duration? { nil }
  package var statistics: StoreStatistics { state.withLock { $0.statistics } }

  /// Makes the root and its marker. Only an operator's explicit wish (`init`) may do that.
  package func prepare() throws(TidemarkError) {
    let marker = "\(root)/\(Self.markerName)"
    do {
      try DurableFile.createDirectories(marker)
    } catch {
      throw TidemarkError(
        error.code == .localPermission ? .accessDenied : .storeRefused, "cannot prepare the directory store",
        object: root, cause: error.cause)
    }
  }

  /// Runs `body`, counting it.
  func counting<Result>(
    sent: Int = 0, _ body: () throws(TidemarkError) -> (result: Result, received: Int)
  ) throws(TidemarkError) -> Result {
    do {
      let (result, received) = try body()
      state.withLock { state in
        state.statistics.requests += 1
        state.statistics.bytesSent += Int64(sent)
        state.statistics.bytesReceived += Int64(received)
      }
      return result
    } catch {
      state.withLock { state in
        state.statistics.requests += 1
        if error.code != .objectNotFound { state.statistics.failures += 1 }
      }
      throw error
    }
  }

  /// The root, proven to be the store's by its marker.
  func openRoot() throws(TidemarkError) -> DirectoryHandle {
    let descriptor = clinux_open(root, O_RDONLY | O_DIRECTORY, 0)
    guard descriptor >= 0 else {
      let number = errno
      guard number == ENOENT || number == ENOTDIR else {
        throw fileError("cannot open the directory store", root, number)
      }
      throw TidemarkError(
        .regionUnreachable, "the directory store isn't there", object: root, cause: String(cString: strerror(number)),
        next: "mount its file system, or run 'tidemark init' to make it")
    }
    let handle = DirectoryHandle(descriptor: descriptor)
    var status = stat()
    guard fstatat(handle.descriptor, Self.markerName, &status, AT_SYMLINK_NOFOLLOW) == 0,
      status.st_mode & S_IFMT == S_IFDIR
    else {
      throw TidemarkError(
        .regionUnreachable, "the directory isn't a store", object: root,
        cause: "it has no \(Self.markerName)",
        next: "mount its file system, or run 'tidemark init' to make it a store")
    }
    return handle
  }

  /// Whether the directory `path` is known to be durable.
  func isDurable(_ path: String) -> Bool { state.withLock { $0.durableDirectories.contains(path) } }

  func rememberDurable(_ path: String) {
    state.withLock { state in
      if state.durableDirectories.count > 10_000 { state.durableDirectories.removeAll() }
      state.durableDirectories.insert(path)
    }
  }

  func forgetDurable(_ path: String) { state.withLock { _ = $0.durableDirectories.remove(path) } }

  /// errno in the contract's terms.
  func fileError(_ doing: String, _ object: String, _ number: Int32 = errno) -> TidemarkError {
    let cause = String(cString: strerror(number))
    switch number {
    case EACCES, EPERM, EROFS: return TidemarkError(.accessDenied, doing, object: object, cause: cause)
    case EIO, ESTALE, ETIMEDOUT, EHOSTDOWN, EHOSTUNREACH, ENOTCONN, ENODEV, ENXIO:
      return TidemarkError(.regionUnreachable, doing, object: object, cause: cause)
    case ELOOP, ENOTDIR:
      return TidemarkError(
        .pathUnsafe, doing, object: object, cause: "a part of the path is a symbolic link or a file (\(cause))")
    case ENOSPC, EDQUOT:
      return TidemarkError(
        .storeRefused, doing, object: object, cause: cause, next: "make room on the file system of \(root)")
    default: return TidemarkError(.storeRefused, doing, object: object, cause: cause)
    }
  }

  func describe(_ key: ObjectKey) -> String { "\(key) in \(location)" }
}

/// An open directory, closed when it goes out of scope.
struct DirectoryHandle: ~Copyable {
  let descriptor: Int32
  deinit { close(descriptor) }
}

extension ObjectKey {
  /// The directories of the key's path, and the file's name.
  var components: (directories: [Substring], name: String) {
    let parts = text.split(separator: "/")
    return (Array(parts.dropLast()), String(parts.last ?? ""))
  }
}
