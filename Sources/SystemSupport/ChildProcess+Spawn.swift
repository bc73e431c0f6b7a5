// posix_spawn(3): no code of ours runs between fork and exec, so threads and locks don't matter. Every descriptor above
// the standard ones is closed in the child (closefrom), whether or not it was opened close-on-exec.
import CLinux
import Diagnostics
import Glibc

extension ChildProcess {
  /// POSIX_SPAWN_SETSID, which glibc's header shows to GNU sources alone (spawn.h, since 2.26).
  private static var setSession: Int16 { 0x80 }

  static func spawn(
    _ program: String, _ arguments: [String], environment: [String: String]?, workingDirectory: String?,
    streams: [Stream], ownGroup: Bool, ownSession: Bool = false
  ) throws(TidemarkError) -> pid_t {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    // The child's directory must not change where our relative paths lead, so files come first.
    for (number, stream) in streams.enumerated() {
      let target = Int32(number)
      switch stream {
      case .null:
        posix_spawn_file_actions_addopen(&actions, target, "/dev/null", number == 0 ? O_RDONLY : O_WRONLY, 0)
      case .inherited:
        // dup2 onto itself takes close-on-exec off.
        posix_spawn_file_actions_adddup2(&actions, target, target)
      case .descriptor(let descriptor):
        posix_spawn_file_actions_adddup2(&actions, descriptor, target)
      case .file(let path):
        posix_spawn_file_actions_addopen(&actions, target, path, O_WRONLY | O_CREAT | O_APPEND, 0o600)
      }
    }
    clinux_spawn_close_from(&actions, 3)
    if let workingDirectory { clinux_spawn_change_directory(&actions, workingDirectory) }

    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    var noSignals = sigset_t()
    var allSignals = sigset_t()
    sigemptyset(&noSignals)
    sigfillset(&allSignals)
    posix_spawnattr_setsigmask(&attributes, &noSignals)
    posix_spawnattr_setsigdefault(&attributes, &allSignals)
    posix_spawnattr_setpgroup(&attributes, 0)
    var flags = Int16(POSIX_SPAWN_SETSIGMASK) | Int16(POSIX_SPAWN_SETSIGDEF)
    if ownGroup { flags |= Int16(POSIX_SPAWN_SETPGROUP) }
    if ownSession { flags |= Self.setSession }
    posix_spawnattr_setflags(&attributes, flags)

    let words = CStrings([program] + arguments)
    let variables = environment.map { CStrings($0.map { "\($0.key)=\($0.value)" }) }
    var pid: pid_t = 0
    let status = posix_spawnp(&pid, program, &actions, &attributes, words.pointers, variables?.pointers ?? environ)
    if status != 0 { throw systemError("cannot start the program", program, errno: status) }
    return pid
  }
}

extension ChildProcess {
  /// Starts a program that outlives this one: in a session of its own and at the root of the file system, with nothing of
  /// ours but the environment. Nobody waits for it, so it is for programs that are about to end: their own parent, or
  /// init, inherits it.
  /// - Parameter errors: the file that its standard error is appended to.
  package static func detach(
    _ program: String, _ arguments: [String], errors: String
  ) throws(TidemarkError) {
    _ = try spawn(
      program, arguments, environment: nil, workingDirectory: "/", streams: [.null, .null, .file(errors)],
      ownGroup: false, ownSession: true)
  }
}

/// A null-terminated array of C strings.
private final class CStrings {
  let pointers: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>
  private let count: Int

  init(_ strings: [String]) {
    count = strings.count
    pointers = .allocate(capacity: count + 1)
    for (index, string) in strings.enumerated() { pointers[index] = strdup(string) }
    pointers[count] = nil
  }

  deinit {
    for index in 0..<count { free(pointers[index]) }
    pointers.deallocate()
  }
}
