// What Swift's importer can't reach of Linux and the CPU: variadic calls, headers that Glibc's module map leaves out,
// and the CRC32C instruction.
#pragma once
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <spawn.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

/// open(2): the variadic form isn't imported.
static inline int clinux_open(const char *path, int flags, mode_t mode) { return open(path, flags | O_CLOEXEC, mode); }

/// openat(2): the variadic form isn't imported.
static inline int clinux_openat(int directory, const char *name, int flags, mode_t mode) {
  return openat(directory, name, flags | O_CLOEXEC, mode);
}

// The headers declare these for _GNU_SOURCE alone. Defining that here would give types such as fd_set another form than
// Glibc's own module has.
extern int pipe2(int *, int);
extern int syncfs(int);
extern int fallocate(int, int, off_t, off_t);
extern int sync_file_range(int, off_t, off_t, unsigned int);
extern int pthread_setname_np(pthread_t, const char *);
extern int posix_spawn_file_actions_addclosefrom_np(posix_spawn_file_actions_t *, int);
extern int posix_spawn_file_actions_addchdir_np(posix_spawn_file_actions_t *, const char *);

/// posix_spawn_file_actions_addclosefrom_np(3): glibc 2.34.
static inline int clinux_spawn_close_from(posix_spawn_file_actions_t *actions, int first) {
  return posix_spawn_file_actions_addclosefrom_np(actions, first);
}

/// posix_spawn_file_actions_addchdir_np(3).
static inline int clinux_spawn_change_directory(posix_spawn_file_actions_t *actions, const char *path) {
  return posix_spawn_file_actions_addchdir_np(actions, path);
}

/// pipe2(2), both ends close-on-exec.
static inline int clinux_pipe(int *ends) { return pipe2(ends, O_CLOEXEC); }

/// pidfd_open(2): a descriptor that becomes readable when the process ends. Always close-on-exec.
static inline int clinux_pidfd_open(pid_t pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }

/// syncfs(2): flushes the file system that holds `fd`.
static inline int clinux_syncfs(int fd) { return syncfs(fd); }

/// fallocate(2) without flags: gives a part of a file its space, and what was never written there reads as zeros.
static inline int clinux_allocate(int fd, off_t offset, off_t count) { return fallocate(fd, 0, offset, count); }

/// sched_getaffinity(2) of the calling thread, as a bit for each core: the count of bytes that were filled, or -1.
static inline int clinux_get_cores(uint8_t *bits, size_t count) {
  return (int)syscall(SYS_sched_getaffinity, 0, count, bits);
}

/// sched_setaffinity(2) of the calling thread.
static inline int clinux_set_cores(const uint8_t *bits, size_t count) {
  return (int)syscall(SYS_sched_setaffinity, 0, count, bits);
}

/// sync_file_range(2) with SYNC_FILE_RANGE_WRITE: begins to write a part of a file to the disk and doesn't wait for it.
/// It makes nothing durable, and takes no error away from a later flush.
static inline void clinux_begin_flush(int fd, off_t offset, off_t count) {
  (void)sync_file_range(fd, offset, count, 2);
}

/// pthread_setname_np(3) for the calling thread; 15 bytes at most.
static inline void clinux_name_this_thread(const char *name) { pthread_setname_np(pthread_self(), name); }

/// prctl(PR_SET_DUMPABLE, 0): no core file and no ptrace by others.
static inline int clinux_forbid_core_dump(void) { return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); }

#if defined(__x86_64__)
__attribute__((target("sse4.2")))
static inline uint32_t clinux_crc32c_hardware(uint32_t crc, const uint8_t *p, size_t n) {
  uint64_t c = crc;
  while (n >= 8) {
    uint64_t v;
    memcpy(&v, p, 8);
    c = __builtin_ia32_crc32di(c, v);
    p += 8;
    n -= 8;
  }
  while (n--) c = __builtin_ia32_crc32qi((uint32_t)c, *p++);
  return (uint32_t)c;
}
static inline int clinux_crc32c_hardware_available(void) { return __builtin_cpu_supports("sse4.2"); }
#else
static inline uint32_t clinux_crc32c_hardware(uint32_t crc, const uint8_t *p, size_t n) {
  (void)p;
  (void)n;
  return crc;
}
static inline int clinux_crc32c_hardware_available(void) { return 0; }
#endif

/// CRC32C (Castagnoli), reflected, without the initial and final inversion; bit by bit, for CPUs without the
/// instruction.
static inline uint32_t clinux_crc32c_portable(uint32_t crc, const uint8_t *p, size_t n) {
  while (n--) {
    crc ^= *p++;
    for (int k = 0; k < 8; k++) crc = (crc >> 1) ^ (0x82F63B78u & (0u - (crc & 1u)));
  }
  return crc;
}

/// CRC32C, reflected, without the initial and final inversion.
static inline uint32_t clinux_crc32c(uint32_t crc, const uint8_t *p, size_t n) {
  return clinux_crc32c_hardware_available() ? clinux_crc32c_hardware(crc, p, n) : clinux_crc32c_portable(crc, p, n);
}

/// Keeps buffers of some MiB in the heap: glibc otherwise maps and unmaps each, and every first touch is a page fault.
/// Whole packs and segments don't stay: the heap would be cut up by what is allocated between them, and the memory of a
/// long backup or restore would grow past what its buffers need.
static inline void clinux_keep_large_buffers(void) {
  mallopt(M_MMAP_THRESHOLD, 8 << 20);
  mallopt(M_TRIM_THRESHOLD, 128 << 20);
  mallopt(M_ARENA_MAX, 2);
}
