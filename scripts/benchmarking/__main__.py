"""Measures Tidemark beside its peers on this host: the same data, the same two S3 servers, alternating runs.

The tables go to standard output as Markdown, progress to standard error. The exit status is 0 when every figure is
met, 1 when one isn't, and 2 when the benchmark itself failed. Nothing else should run on the host meanwhile.
"""
import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import dataset  # noqa: E402
import flatness  # noqa: E402
import replay  # noqa: E402
import report  # noqa: E402
import scenarios  # noqa: E402
from processes import BenchmarkError, Children, Meter, give_to_operator, say  # noqa: E402
from servers import Authority, PostgresServer, Region  # noqa: E402
from tools import BarmanCloud, PgBackRest, Pipeline, Tidemark  # noqa: E402

SCENARIOS = ["full", "unchanged", "changed", "restore", "recovery", "wal", "replay", "sizes", "relations"]
# What isn't in a quick run.
LONG = {"replay", "sizes", "relations"}
TOOLS = "tidemark,pgbackrest,barman,pipeline"
# Those that figures name: in a quick run.
COMPARED_TOOLS = "tidemark,pgbackrest"


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/benchmark", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=float, metavar="GB", default=2, help="of the data set (default 2)")
    parser.add_argument("--runs", type=int, metavar="N", help="rounds (default 5; with --quick 3)")
    parser.add_argument("--quick", action="store_true",
                        help="fewer runs, and of the tools that figures name: within 15 minutes on two cores")
    parser.add_argument("--only", action="append", choices=SCENARIOS, metavar="SCENARIO",
                        help=f"repeatable: {', '.join(SCENARIOS)}")
    parser.add_argument("--tools", metavar="LIST",
                        help=f"separated by commas (default: {TOOLS}; with --quick {COMPARED_TOOLS})")
    parser.add_argument("--changed", type=float, default=4, metavar="PERCENT", help="of the pages (default 4)")
    parser.add_argument("--segments", type=int, default=90, metavar="N", help="of WAL to replay (default 90)")
    parser.add_argument("--json", metavar="FILE", help="write every sample there")
    parser.add_argument("--reuse", metavar="DIR", help="work there, keep the data set there, and reuse it if it fits")
    parser.add_argument("--keep", action="store_true", help="keep the directory; a later run can reuse it")
    parser.add_argument("--prepare-only", action="store_true", help="make the data set in --reuse DIR, and end")
    parser.add_argument("--binary", metavar="PATH", help="measure this binary, without a build")
    parser.add_argument("--peers", help=argparse.SUPPRESS)
    parser.add_argument("--postgres-bin", help=argparse.SUPPRESS)
    options = parser.parse_args()
    # Of this size whatever is left out: a recovery's ratio is larger the less there is to fetch, since the replay, two
    # thirds of it, is the same for all.
    options.size = int(1e9 * options.size)
    options.runs = options.runs or (3 if options.quick else 5)
    options.tools = (options.tools or (COMPARED_TOOLS if options.quick else TOOLS)).split(",")
    return options


def run(options, work, started):
    os.chmod(work, 0o755)
    for name in ("run", "restored"):
        os.makedirs(f"{work}/{name}", exist_ok=True)
    shutil.rmtree(f"{work}/restored")
    for name in ("", "/run", "/restored", "/bin"):
        os.makedirs(work + name, exist_ok=True)
        give_to_operator(work + name)
    binary = shutil.copy(options.binary, f"{work}/bin/tidemark")
    server = PostgresServer(f"{work}/server", work, options.postgres_bin, started)
    dataset.prepare(server, options.size, f"{work}/pristine")
    if options.prepare_only:
        return 0
    authority = Authority(f"{work}/authority")
    rclone = f"{options.peers}/bin/rclone"
    regions = [Region(name, work, rclone, authority, started, ["tidemark", "pgbackrest", "barman", "pipeline"])
               for name in ("west", "east")]
    log = f"{work}/command.log"
    environment = {"PATH": "/usr/bin:/bin", "HOME": work, "LC_ALL": "C.UTF-8", "BENCHMARK_LOG": log, "TZ": "UTC"}
    meter = Meter(started, server, regions, environment)
    makers = {
        "tidemark": lambda: Tidemark(work, server, regions, meter, binary),
        "pgbackrest": lambda: PgBackRest(work, server, regions, meter),
        "barman": lambda: BarmanCloud(work, server, regions, meter, f"{options.peers}/bin"),
        "pipeline": lambda: Pipeline(work, server, regions, meter),
    }
    unknown = set(options.tools) - makers.keys()
    if unknown:
        raise BenchmarkError(f"no such tool: {', '.join(sorted(unknown))}")
    bench = scenarios.Bench(work, server, regions, meter, [makers[name]() for name in options.tools])
    wanted = set(options.only or SCENARIOS)
    if options.quick and not options.only:
        wanted -= LONG
        bench.remark("a quick run: whether cost and memory stay flat at any size, and what a restore's choices gain, is"
                     " measured in a full run alone")
    bench.facts.update(facts(options, meter, server))
    bench.facts["wanted"] = wanted - {"wal"}
    bench.facts["wanted"] |= {"wal-push", "wal-fetch", "wal-fetch-other"} if "wal" in wanted else set()
    bench.facts["wanted"] |= {"sizes-restore"} if "sizes" in wanted else set()
    bench.facts["keeps"] = bool(options.reuse or options.keep)
    server.start()
    if wanted & {"full", "unchanged", "changed", "restore"}:
        scenarios.backups(bench, options.runs, wanted)
    if "recovery" in wanted:
        scenarios.recovery(bench, options.runs, options.segments)
    if "wal" in wanted:
        scenarios.wal(bench, 15 if options.quick else 40)
    if "replay" in wanted:
        replay.replay(bench, options.runs, options.segments)
    server.stop()
    # Last, since they configure Tidemark for other clusters.
    if "sizes" in wanted:
        flatness.sizes(bench, started, binary, options.size)
    if "relations" in wanted:
        flatness.relations(bench, started, binary)
    print(heading(bench.facts))
    print(report.markdown(bench))
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(report.document(bench), file, indent=1)
    return 0 if report.is_met(bench) else 1


def facts(options, meter, server):
    versions = {"postgresql": meter.run([server.program("postgres"), "--version"]).split()[2]}
    versions["pgbackrest"] = meter.run(["pgbackrest", "version"]).split()[1]
    versions["barman-cloud"] = meter.run([f"{options.peers}/bin/barman-cloud-backup", "--version"]).split()[1]
    versions["rclone"] = meter.run([f"{options.peers}/bin/rclone", "version"]).split()[1]
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return {
        "size": dataset.stored(server.directory), "runs": options.runs, "percent": options.changed,
        "versions": versions, "cores": os.cpu_count(), "processor": models[0] if models else platform.machine(),
    }


def heading(known):
    versions = ", ".join(f"{name} {version}" for name, version in known["versions"].items())
    return (f"{known['size'] / 1e9:.2f} GB, medians (ranges) of {known['runs']} runs, {known['cores']} cores of"
            f" {known['processor']}; {versions}.\n")


def main():
    options = arguments()
    if os.getloadavg()[0] > 1:
        say(f"the host is busy (load {os.getloadavg()[0]:.1f}): the figures will say little")
    started = Children()

    def end(number, _):
        # No error of a measurement: the next one isn't to begin.
        print(f"error: ended by {signal.Signals(number).name}", file=sys.stderr)
        sys.exit(2)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    work = os.path.abspath(options.reuse) if options.reuse else tempfile.mkdtemp(prefix="tidemark-benchmark.")
    os.makedirs(work, exist_ok=True)
    try:
        return run(options, work, started)
    except (BenchmarkError, OSError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        started.stop_all()
        for name in ("s3", "server", "restored", "emptied", "segments", "relations", "replay-base", "replay-archive"):
            shutil.rmtree(f"{work}/{name}", ignore_errors=True)
        if options.keep:
            say(f"kept: --reuse {work}")
        elif not options.reuse:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
