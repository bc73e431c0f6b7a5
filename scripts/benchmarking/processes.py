"""Runs commands and says what they cost: wall, CPU of each party, memory, bytes stored, requests.

CPU comes from the kernel's accounts: a command's from wait4 (its reaped children included), a server's from the
/proc/PID/stat of its whole tree before and after. Whatever a command leaves behind is adopted by this process, and
its CPU is counted when it is reaped or stopped.
"""
import ctypes
import json
import os
import pwd
import resource
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
PR_SET_CHILD_SUBREAPER = 36


class BenchmarkError(Exception):
    """Something that keeps a measurement from being made; its text is for the one who runs it."""


def say(text):
    print(f"==> {text}", file=sys.stderr, flush=True)


def as_operator(command):
    """The command as PostgreSQL's user: nothing here runs as root but the S3 servers."""
    if os.geteuid() != 0:
        return list(command)
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--", *command]


def give_to_operator(path):
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        os.chown(path, user.pw_uid, user.pw_gid)


def wait_until(limit, what, condition):
    """Polls until the condition holds; returns its value."""
    end = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise BenchmarkError(f"{what} did not happen within {limit} s")
        time.sleep(0.02)


def children(pid):
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                found += [int(child) for child in file.read().split()]
    except OSError:
        pass
    return found


def tree(pid):
    found, open_ends = [], [pid]
    while open_ends:
        current = open_ends.pop()
        found.append(current)
        open_ends += children(current)
    return found


def tree_cpu(pid):
    """CPU seconds of a process and of all below it, those that were reaped included."""
    ticks = 0
    for member in tree(pid):
        try:
            with open(f"/proc/{member}/stat", encoding="ascii", errors="replace") as file:
                ticks += sum(int(value) for value in file.read().rpartition(")")[2].split()[11:15])
        except OSError:
            pass
    return ticks / TICK


def tree_memory(pid):
    """Resident bytes of the tree, shared pages counted once for each process."""
    total = 0
    for member in tree(pid):
        try:
            with open(f"/proc/{member}/statm", encoding="ascii") as file:
                total += int(file.read().split()[1]) * PAGE
        except OSError:
            pass
    return total


class Children:
    """The processes that were started here and go on. Ended by their ids, last first."""

    def __init__(self):
        self.running = []
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def start(self, command, log, environment=None):
        with open(log, "ab") as output:
            # In a session of its own: an interrupt at the terminal reaches this process alone.
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                env={**os.environ, **(environment or {})})
        self.running.append(process)
        return process

    def stop(self, process, sign=signal.SIGTERM):
        if process.poll() is None:
            process.send_signal(sign)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.running.remove(process)

    def stop_all(self):
        self.reap_orphans(ends_them=True)
        for process in reversed(list(self.running)):
            self.stop(process, signal.SIGINT)

    def await_orphans(self):
        """Until what commands left behind has ended by itself."""
        known = {process.pid for process in self.running}
        for pid in set(children(os.getpid())) - known:
            os.waitpid(pid, 0)

    def reap_orphans(self, ends_them=False):
        """CPU seconds of what commands left behind, which was adopted."""
        known = {process.pid for process in self.running}
        seconds = 0.0
        for pid in children(os.getpid()):
            if pid in known:
                continue
            if ends_them:
                # SIGQUIT ends a postmaster and all of its children at once; nothing is kept of it.
                os.kill(pid, signal.SIGQUIT)
                _, _, usage = os.wait4(pid, 0)
                seconds += usage.ru_utime + usage.ru_stime
                continue
            ended, _, usage = os.wait4(pid, os.WNOHANG)
            seconds += usage.ru_utime + usage.ru_stime if ended else tree_cpu(pid)
        return seconds


@dataclass
class Sample:
    """What one run of one tool cost."""
    wall: float = 0.0
    client_cpu: float = 0.0
    postgres_cpu: float = 0.0
    s3_cpu: float = 0.0
    peak: int = 0
    peak_tree: int = 0
    stored: int = 0
    requests: int = 0
    report: dict = field(default_factory=dict)

    @property
    def cpu(self):
        return self.client_cpu + self.postgres_cpu

    @property
    def cpu_of_all(self):
        return self.cpu + self.s3_cpu


class Meter:
    """Measures commands while it watches the servers."""

    def __init__(self, started, postgres, regions, environment):
        self.started, self.postgres, self.regions, self.environment = started, postgres, regions, environment

    def measure(self, commands, bucket, watches_memory=True, until=None, flushes=True):
        """Runs the commands one after the other. `until` is called after the last of them, and the clock goes on."""
        if flushes:
            os.sync()
        sample = Sample()
        before = self._servers(bucket)
        self.started.reap_orphans()
        begin = time.perf_counter()
        for command in commands:
            self._run(command, sample, watches_memory)
        if until:
            until()
        sample.wall = time.perf_counter() - begin
        sample.client_cpu += self.started.reap_orphans()
        after = self._servers(bucket)
        sample.postgres_cpu, sample.s3_cpu, sample.stored, sample.requests = (
            new - old for new, old in zip(after, before))
        return sample

    def totals(self, bucket):
        """CPU seconds so far: of all commands that have ended, with what they left behind; and of the S3 servers."""
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime, self._servers(bucket)[1]

    def run(self, command):
        """Runs a command that isn't measured; returns its standard output."""
        result = subprocess.run(
            as_operator(command), env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, cwd="/")
        if result.returncode:
            raise BenchmarkError(f"{' '.join(command)}: status {result.returncode}\n{result.stdout}{result.stderr}")
        return result.stdout

    def _servers(self, bucket):
        return (
            tree_cpu(self.postgres.process.pid) if self.postgres.process else 0,
            sum(tree_cpu(region.process.pid) for region in self.regions),
            sum(region.stored(bucket) for region in self.regions), sum(region.requests() for region in self.regions))

    def _run(self, command, sample, watches_memory):
        ended = threading.Event()
        log = self.environment["BENCHMARK_LOG"]
        with open(log, "w+b") as output, open(f"{log}.errors", "w+b") as errors:
            process = subprocess.Popen(
                as_operator(command), env=self.environment, stdin=subprocess.DEVNULL, stdout=output, stderr=errors,
                cwd="/")

            def watch():
                while not ended.wait(0.1):
                    sample.peak_tree = max(sample.peak_tree, tree_memory(process.pid))

            watcher = threading.Thread(target=watch)
            if watches_memory:
                watcher.start()
            try:
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
            finally:
                ended.set()
                if watches_memory:
                    watcher.join()
            sample.client_cpu += usage.ru_utime + usage.ru_stime
            sample.peak = max(sample.peak, usage.ru_maxrss * 1024)
            sample.peak_tree = max(sample.peak_tree, sample.peak)
            output.seek(0)
            text = output.read().decode(errors="replace")
            if process.returncode:
                errors.seek(0)
                text = (text + errors.read().decode(errors="replace"))[-4000:]
                raise BenchmarkError(f"{' '.join(command)}: status {process.returncode}\n{text}")
            if "--json" in command:
                # Tidemark's own report, with its phases and what each region took.
                sample.report = json.loads(text)
