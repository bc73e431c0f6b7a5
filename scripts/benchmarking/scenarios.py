"""What is measured, in alternating runs. Each scenario adds samples under its name, for each tool and round."""
import os
import shutil
import statistics
import subprocess

import dataset
from processes import BenchmarkError, as_operator, say, wait_until


class Bench:
    """The servers, the tools, and what was measured so far."""

    def __init__(self, work, server, regions, meter, tools):
        self.work, self.server, self.regions, self.meter, self.tools = work, server, regions, meter, tools
        self.samples, self.facts, self.remarks = {}, {}, []

    def record(self, scenario, name, sample):
        self.samples.setdefault(scenario, {}).setdefault(name, []).append(sample)
        say(f"{scenario}: {name} {sample.wall:.2f} s, CPU {sample.client_cpu:.2f} + {sample.postgres_cpu:.2f} +"
            f" {sample.s3_cpu:.2f} s, {sample.peak / 2 ** 20:.0f} MiB, {sample.stored / 1e6:.0f} MB stored,"
            f" {sample.requests} requests")

    def remark(self, text):
        say(text)
        if text not in self.remarks:
            self.remarks.append(text)

    def empty_regions(self):
        for region in self.regions:
            region.empty()

    def attempt(self, what, tool, action):
        """Whether it went well. A peer that fails is a gap in the table, said there, and no reason to lose the rest."""
        try:
            action()
            return True
        except BenchmarkError as error:
            if tool.name == "tidemark":
                raise
            self.remark(f"{what}: {tool.name} could not be measured: {error}")
            return False

    def measure(self, scenario, tool, commands, **options):
        return self.attempt(scenario, tool, lambda: self.record(
            scenario, tool.name, self.meter.measure(commands, tool.bucket, **options)))

    def ready(self, tool, begins=False):
        """Lets PostgreSQL archive with the tool, into a new repository where it begins."""
        def prepare():
            if begins:
                tool.initialize()
            self.server.archive_with(tool.archive_command)
        return self.attempt("archiving", tool, prepare)

    def remove(self, target):
        shutil.rmtree(target, ignore_errors=True)
        for name in os.listdir(os.path.dirname(target)):
            if name.startswith((os.path.basename(target), "." + os.path.basename(target))):
                path = f"{os.path.dirname(target)}/{name}"
                shutil.rmtree(path, ignore_errors=True) if os.path.isdir(path) else os.remove(path)


def backups(bench, rounds, wanted):
    """full, unchanged, changed and restore, in one chain for each round."""
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        bench.empty_regions()
        tools = bench.tools[number % len(bench.tools):] + bench.tools[:number % len(bench.tools)]
        done = []
        for tool in tools:
            if wanted.isdisjoint({"full", "restore"}) and not tool.increments:
                continue
            if not bench.ready(tool, begins=True) or not bench.measure("full", tool, tool.full()):
                continue
            if tool.name == "pipeline":
                bench.samples["full"][tool.name][-1].stored = os.stat(tool.output).st_size
                os.remove(tool.output)
            done.append(tool)
            if tool.increments and "unchanged" in wanted:
                bench.measure("unchanged", tool, tool.incremental())
        if "changed" in wanted:
            bench.server.archive_with("/bin/true")
            share = dataset.change_pages(bench.server, bench.facts["percent"], number + 1)
            bench.facts.setdefault("changed", []).append(share)
            say(f"changed {100 * share:.2f} % of the pages")
            for tool in done:
                if tool.increments and bench.ready(tool):
                    bench.measure("changed", tool, tool.incremental())
        bench.server.archive_with("/bin/true")
        if "restore" in wanted:
            for tool in done:
                if tool.restores:
                    target = f"{bench.work}/restored/{tool.name}"
                    bench.measure("restore", tool, tool.restore(target))
                    bench.remove(target)


def recovery(bench, rounds, segments):
    """Point-in-time recovery to the first successful write: both tools from the same WAL."""
    tools = [tool for tool in bench.tools if hasattr(tool, "recover")]
    bench.empty_regions()
    for tool in tools:
        tool.initialize()
    bench.server.archive_with(" && ".join(tool.archive_command for tool in tools))
    for tool in tools:
        for command in tool.full():
            bench.meter.run(command)
    begin = bench.server.sql("SELECT pg_walfile_name(pg_current_wal_lsn())")
    say(f"writing {segments} segments of WAL, archived by {' and '.join(tool.name for tool in tools)}")
    dataset.write_segments(bench.server, segments, bench.work)
    moment = bench.server.sql("SELECT pg_sleep(0.1); SELECT to_char(clock_timestamp(), 'YYYY-MM-DD HH24:MI:SS.US+00')"
                              ).splitlines()[-1]
    bench.server.sql("SELECT pg_sleep(0.1); CREATE TABLE after_the_moment (id int)")
    bench.server.finish_archiving(600)
    bench.facts["segments"] = [begin, bench.server.sql("SELECT last_archived_wal FROM pg_stat_archiver")]
    bench.server.archive_with("/bin/true")
    bench.server.stop()
    try:
        for number in range(rounds):
            for tool in (tools if number % 2 == 0 else tools[::-1]):
                _recover(bench, tool, moment)
    finally:
        bench.server.start()


def _recover(bench, tool, moment):
    target, port = f"{bench.work}/restored/{tool.name}", bench.server.port
    statement = "CREATE TABLE IF NOT EXISTS first_write (id int); INSERT INTO first_write VALUES (1)"
    command = as_operator([*bench.server.psql(port), "-c", statement])

    def writes():
        return os.path.exists(f"{bench.server.sockets}/.s.PGSQL.{port}") and subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/").returncode == 0

    try:
        bench.measure("recovery", tool, tool.recover(target, moment, port),
                      until=lambda: wait_until(600, "the first write", writes))
        found = subprocess.run(
            as_operator([*bench.server.psql(port), "-c", "SELECT to_regclass('after_the_moment') IS NULL"]),
            stdout=subprocess.PIPE, text=True, cwd="/").stdout.strip()
        if found != "t":
            raise BenchmarkError(f"{tool.name} did not stop at {moment}")
    finally:
        bench.meter.started.reap_orphans(ends_them=True)
        bench.remove(target)


def wal(bench, count):
    """One segment archived into two regions and one fetched, call by call: no agent, no asynchronous mode."""
    tools = [tool for tool in bench.tools if hasattr(tool, "push")]
    segments = f"{bench.work}/segments"
    shutil.rmtree(segments, ignore_errors=True)
    os.makedirs(segments)
    os.chmod(segments, 0o777)
    bench.server.archive_with(f"cp %p {segments}/%f")
    dataset.write_segments(bench.server, count, bench.work)
    bench.server.finish_archiving()
    bench.server.archive_with("/bin/true")
    names = sorted(name for name in os.listdir(segments) if len(name) == 24)[:count]
    bench.empty_regions()
    for tool in tools:
        tool.initialize()
    destination = f"{bench.work}/restored/segment"
    for scenario in ("wal-push", "wal-fetch"):
        collected = {tool.name: [] for tool in tools}
        for number, name in enumerate(names):
            for tool in (tools if number % 2 == 0 else tools[::-1]):
                commands = tool.push(f"{segments}/{name}") if scenario == "wal-push" else tool.fetch(name, destination)
                collected[tool.name].append(bench.meter.measure(commands, tool.bucket, watches_memory=False))
                if scenario == "wal-fetch":
                    with open(destination, "rb") as fetched, open(f"{segments}/{name}", "rb") as original:
                        if fetched.read() != original.read():
                            raise BenchmarkError(f"{tool.name} fetched a {name} that isn't the original")
                    os.remove(destination)
        for tool in tools:
            bench.samples.setdefault(scenario, {})[tool.name] = collected[tool.name]
            walls = [sample.wall for sample in collected[tool.name]]
            say(f"{scenario}: {tool.name} {statistics.median(walls) * 1000:.0f} ms, median of {len(walls)}")
    shutil.rmtree(segments)
