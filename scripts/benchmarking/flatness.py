"""Whether cost and memory stay flat: ten times the bytes, ten times the relations. Tidemark alone, in full runs."""
import json
import os
import shutil
import statistics
import time

import dataset
from processes import give_to_operator, say
from servers import PostgresServer
from tools import Tidemark

RELATIONS = (0, 20_000, 200_000)
# As many bytes as the most relations, each of one page, in few of them: memory follows how many packs are on their way,
# and a small backup has few.
SAME_BYTES, SAME_BYTES_PAGES = 200, 1_000
# How often the smaller size is measured. A peak is how many buffers met by chance, and ten times the bytes have ten
# times the chances: the larger's one peak is compared with the largest of the smaller's.
SMALLER_RUNS = 5
# How often each number of relations is measured. A server's CPU is counted in hundredths of a second, and that of the
# smaller numbers is less than one second. Of the larger one several, since files that left the page cache cost more.
RELATIONS_RUNS, FEW_RELATIONS_RUNS = 5, 9
SCENARIOS = ("sizes", "sizes-restore", "relations")


def free_bytes(path):
    space = os.statvfs(path)
    return space.f_bavail * space.f_frsize


def sizes(bench, started, binary, size):
    """A full backup and a restore of the data set, and of one ten times as large."""
    for bytes_wanted in (size, 10 * size):
        # The data, both regions' copies (0.8), the restored files, and some WAL.
        needed = int(3 * bytes_wanted)
        if free_bytes(bench.work) < needed:
            bench.remark(f"sizes: {bytes_wanted / 1e9:.0f} GB could not be measured: needs {needed / 1e9:.0f} GB free")
            continue
        directory = f"{bench.work}/sized-{bytes_wanted}"
        server = PostgresServer(directory, bench.work, bench.server.bin, started)
        if not _is_made(directory, bytes_wanted):
            dataset.make(server, bytes_wanted)
            _mark(directory, bytes_wanted)
        for _ in range(SMALLER_RUNS if bytes_wanted == size else 1):
            _measure(bench, server, binary, "sizes", f"{bytes_wanted / 1e9:.1f} GB", restores=True)
        if not bench.facts["keeps"]:
            shutil.rmtree(directory)


def relations(bench, started, binary):
    """A full backup of clusters that hold next to nothing, in very many files."""
    for count, pages in [(count, 1) for count in RELATIONS] + [(SAME_BYTES, SAME_BYTES_PAGES)]:
        directory = f"{bench.work}/relations"
        shutil.rmtree(directory, ignore_errors=True)
        server = PostgresServer(directory, bench.work, bench.server.bin, started)
        _make_relations(server, count, pages)
        name = f"{count} relations" + (f" of {pages} pages" if pages > 1 else "")
        for _ in range(RELATIONS_RUNS if count * pages == max(RELATIONS) else FEW_RELATIONS_RUNS):
            _measure(bench, server, binary, "relations", name, restores=False)
        shutil.rmtree(directory)


def _mark(directory, size):
    with open(f"{directory}.json", "w", encoding="utf-8") as file:
        json.dump({"version": dataset.VERSION, "size": size}, file)


def _is_made(directory, size):
    try:
        with open(f"{directory}.json", encoding="utf-8") as file:
            return json.load(file) == {"version": dataset.VERSION, "size": size} and os.path.isdir(directory)
    except FileNotFoundError:
        return False


def _make_relations(server, count, pages):
    begin = time.monotonic()
    server.create()
    dataset.configure(server)
    server.start(**dataset.LOADING)
    # 226 rows of one integer fill a page.
    rows = 1 if pages == 1 else 226 * pages
    server.sql("CREATE PROCEDURE make(count int) LANGUAGE plpgsql AS $$ BEGIN FOR i IN 1..count LOOP "
               f"EXECUTE format('CREATE TABLE r%s AS SELECT %s + n AS id FROM generate_series(1, {rows}) n', i, i); "
               "IF i % 500 = 0 THEN COMMIT; END IF; END LOOP; END $$")
    server.sql(f"CALL make({count})")
    server.sql("CHECKPOINT")
    server.stop()
    say(f"made {count} relations in {time.monotonic() - begin:.0f} s")


def _measure(bench, server, binary, scenario, name, restores):
    dataset.configure(server)
    bench.empty_regions()
    usual, bench.meter.postgres = bench.meter.postgres, server
    server.start()
    try:
        tool = Tidemark(bench.work, server, bench.regions, bench.meter, binary)
        tool.initialize()
        server.archive_with(tool.archive_command)
        sample = bench.meter.measure(tool.full(), tool.bucket)
        bench.record(scenario, name, sample)
        bench.facts.setdefault(scenario, {})[name] = {
            "bytes": sample.report["databaseBytes"], "files": sample.report["fileCount"]}
        if restores:
            target = f"{bench.work}/restored/{tool.name}"
            give_to_operator(os.path.dirname(target))
            bench.record(f"{scenario}-restore", name, bench.meter.measure(tool.restore(target), tool.bucket))
            bench.remove(target)
    finally:
        server.stop()
        bench.meter.postgres = usual


def compared(bench):
    """(name, ratio) for each thing that should stay flat: the larger's cost per unit, of the smaller's."""
    found = []
    for scenario, title in (("sizes", "full backup"), ("sizes-restore", "restore")):
        samples, known = bench.samples.get(scenario, {}), bench.facts.get("sizes", {})
        if len(samples) == 2:
            small, large = samples
            per_byte = [statistics.median(sample.cpu for sample in samples[name]) / known[name]["bytes"]
                        for name in (small, large)]
            found.append((f"{title}: CPU per GB, {large} of {small}", per_byte[1] / per_byte[0]))
            found.append((f"{title}: memory, {large} of {small}", samples[large][0].peak
                          / max(sample.peak for sample in samples[small])))
    samples, known = bench.samples.get("relations", {}), bench.facts.get("relations", {})
    if len(samples) == 4:
        # The empty cluster's cost is that of a backup as such, not of its files.
        none, few, many, same = samples
        cpu = {name: statistics.median(sample.cpu for sample in runs) for name, runs in samples.items()}
        peak = {name: max(sample.peak for sample in runs) for name, runs in samples.items()}
        per_file = [(cpu[name] - cpu[none]) / (known[name]["files"] - known[none]["files"]) for name in (few, many)]
        found.append((f"full backup: CPU per file, {many} of {few}", per_file[1] / per_file[0]))
        found.append((f"full backup: memory, {many} of {same}", peak[many] / peak[same]))
    return found
