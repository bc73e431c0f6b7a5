// What a process that holds keys does first: no core file, and large buffers kept instead of mapped anew each time.
import CLinux

package enum ProcessHardening {
  /// Forbids core files and tracing by others. A backtrace of a crash is switched off by `SWIFT_BACKTRACE=enable=no` in
  /// the environment alone: the units set it.
  package static func apply() {
    _ = clinux_forbid_core_dump()
    clinux_keep_large_buffers()
  }
}
