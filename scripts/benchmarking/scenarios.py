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

    def warm_memory(self, tool):
        """Fills as much page cache as a restore does, and frees it; then reads what the regions hold of the tool's.
        Memory that a virtual machine gave back to its host, and objects that it took from the page cache, cost as much
        as a restore's work when they are touched again, and which tool meets them would be chance."""
        path, piece = f"{self.work}/warming", bytes(1 << 20)
        with open(path, "wb") as file:
            for _ in range(int(1.5 * self.facts["size"]) >> 20):
                file.write(piece)
            file.truncate(0)
        os.remove(path)
        for region in self.regions:
            region.bring_to_page_cache(tool.bucket)

    def remove(self, target):
        """Frees the space of what was restored there, and puts the empty files aside until the end: before it gives a
        new inode, ext4 looks at each one that was deleted in the last minutes (`recently_deleted` in fs/ext4/ialloc.c),
        so that the next run would pay for this one's deletion, a quarter of its CPU."""
        parent = os.path.dirname(target)
        for name in os.listdir(parent):
            if not name.startswith((os.path.basename(target), "." + os.path.basename(target))):
                continue
            for place, _, files in os.walk(f"{parent}/{name}"):
                for file in files:
                    if os.path.isfile(f"{place}/{file}"):
                        os.truncate(f"{place}/{file}", 0)
            os.makedirs(f"{self.work}/emptied", exist_ok=True)
            os.rename(f"{parent}/{name}", f"{self.work}/emptied/{len(os.listdir(f'{self.work}/emptied'))}")


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
                    bench.warm_memory(tool)
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

    bench.warm_memory(tool)
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
    """Segments archived into two regions, call by call, without any process that stays; and fetched in two ways."""
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
    collected = {tool.name: [] for tool in tools}
    for number, name in enumerate(names):
        for tool in (tools if number % 2 == 0 else tools[::-1]):
            # As PostgreSQL has just written it: in the page cache, whatever the host has taken from there meanwhile.
            with open(f"{segments}/{name}", "rb") as file:
                file.read()
            collected[tool.name].append(bench.meter.measure(
                tool.push(f"{segments}/{name}"), tool.bucket, watches_memory=False))
    _keep(bench, "wal-push", collected)
    # One tool after the other, in the order in which a server asks: what goes ahead works on between the calls, and
    # must take no time from another tool.
    for scenario, way in (("wal-fetch", "fetch"), ("wal-fetch-other", "fetch_otherwise")):
        collected = {tool.name: _fetch_all(bench, tool, getattr(tool, way), names, segments) for tool in tools}
        _keep(bench, scenario, collected)
    shutil.rmtree(segments)


def _fetch_all(bench, tool, fetch, names, segments):
    """The segments one after the other, each compared with the original. CPU is the mean of all calls, with that of the
    processes that they left behind."""
    destination, samples, before = f"{bench.work}/restored/segment", [], bench.meter.totals(tool.bucket)
    for name in names:
        samples.append(bench.meter.measure(fetch(name, destination), tool.bucket, watches_memory=False))
        with open(destination, "rb") as fetched, open(f"{segments}/{name}", "rb") as original:
            if fetched.read() != original.read():
                raise BenchmarkError(f"{tool.name} fetched a {name} that isn't the original")
        os.remove(destination)
    bench.meter.started.await_orphans()
    client, servers = (new - old for new, old in zip(bench.meter.totals(tool.bucket), before))
    for sample in samples:
        sample.client_cpu, sample.s3_cpu = client / len(samples), servers / len(samples)
    return samples


def _keep(bench, scenario, collected):
    for name, samples in collected.items():
        bench.samples.setdefault(scenario, {})[name] = samples
        walls = [sample.wall for sample in samples]
        say(f"{scenario}: {name} {statistics.median(walls) * 1000:.0f} ms, median of {len(walls)}")
