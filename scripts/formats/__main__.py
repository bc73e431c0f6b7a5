"""Measures what block, frame and pack sizes, digests and compression levels cost, on pages that PostgreSQL wrote.

Prints Markdown tables. Speeds are of one thread and by CPU seconds, so that other work on the host disturbs little.
"""
import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "benchmarking")]

import zstandard  # noqa: E402

import dataset  # noqa: E402
import measures  # noqa: E402
from pages import KINDS, Cluster  # noqa: E402
from processes import BenchmarkError, Children, give_to_operator, say  # noqa: E402
from servers import PostgresServer  # noqa: E402

PARTS = ("levels", "frames", "blocks", "digests", "packs", "adaptive")


def measure(cluster, wanted, work):
    kinds = {kind: cluster.sample(relations) for kind, relations in KINDS.items()}
    kinds["WAL: pgbench"] = cluster.wal(lambda: cluster.pgbench("-n", "-c", "4", "-t", "4000"))
    kinds["WAL: an application"] = cluster.wal(lambda: dataset.write_segments(cluster.server, 4, work))
    kinds["zero pages"] = bytes(8 << 20)
    version = ".".join(map(str, zstandard.ZSTD_VERSION))
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    print(f"zstd {version}, {models[0] if models else 'an unknown processor'}.\n")
    if "levels" in wanted:
        measures.levels(kinds)
    if "frames" in wanted:
        measures.frames(kinds)
    if "adaptive" in wanted:
        measures.adaptive(kinds)
    speeds = measures.digests() if "digests" in wanted else {}
    if "packs" in wanted:
        measures.packs(measures.compression(kinds["heap: uuid, numeric, text, jsonb"], 3, 1 << 20)[0], 0.5)
    if "blocks" in wanted:
        before = cluster.files()
        changes = {}
        for percent in (1, 4):
            say(f"changing {percent} % of the pages")
            share = dataset.change_pages(cluster.server, percent, percent)
            changes[f"{100 * share:.1f} % of pages at random"] = cluster.files()
            cluster.server.stop()
            restore(cluster, before)
            cluster.start()
        say("running pgbench")
        # One transaction for each eight accounts' pages: the changed pages lie at random in one table, new ones at the
        # end of another.
        cluster.pgbench("-n", "-c", "4", "-t", str(max(100, int(8000 * cluster.scale))))
        changes["pgbench"] = cluster.files()
        measures.blocks(before, changes, speeds)


def restore(cluster, files):
    """Puts the relations' bytes back. The cluster is stopped, and is thrown away afterwards: nothing else matters."""
    for name, data in files.items():
        with open(f"{cluster.server.directory}/base/{name}", "r+b") as file:
            file.truncate(len(data))
            file.write(data)


def main():
    parser = argparse.ArgumentParser(prog="scripts/measure-formats", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=float, default=0.5, metavar="GB", help="of the cluster (default %(default)s)")
    parser.add_argument("--only", action="append", choices=PARTS, metavar="PART",
                        help=f"repeatable: {', '.join(PARTS)}")
    parser.add_argument("--postgres-bin", help=argparse.SUPPRESS)
    options = parser.parse_args()
    started = Children()

    def end(number, _):
        raise BenchmarkError(f"ended by {signal.Signals(number).name}")

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    work = tempfile.mkdtemp(prefix="tidemark-formats.")
    try:
        for place in (work, f"{work}/run"):
            os.makedirs(place, exist_ok=True)
            os.chmod(place, 0o755)
            give_to_operator(place)
        cluster = Cluster(PostgresServer(f"{work}/server", work, options.postgres_bin, started), options.size)
        say("making the cluster")
        cluster.make()
        measure(cluster, set(options.only or PARTS), work)
        return 0
    except (BenchmarkError, OSError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        started.stop_all()
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
