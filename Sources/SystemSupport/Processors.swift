// How much this host can compute at once.
import Glibc

/// Processors that are there to compute with, one at least.
package func processorCount() -> Int { max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN)))) }
