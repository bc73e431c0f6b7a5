// What a process that holds keys does first: no core file, no backtrace, and large buffers kept instead of mapped anew
// each time.
import CLinux
import Glibc

package enum ProcessHardening {
  /// Forbids core files and tracing by others, and takes back the signals by which Swift's runtime would print a crash's
  /// registers and memory, whatever `SWIFT_BACKTRACE` says. To be called before a key is read.
  package static func apply() {
    _ = clinux_forbid_core_dump()
    // The runtime's handlers (swift-backtrace) are there before `main`: from here on a crash ends the process at once.
    for number in [SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV] { signal(number, SIG_DFL) }
    clinux_keep_large_buffers()
  }
}
