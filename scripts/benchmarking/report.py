"""The report: a table for each scenario, the figures with their limits, and the same as JSON."""
import dataclasses
import statistics

import flatness
from processes import BenchmarkError

TITLES = {
    "full": "Full backup into two regions", "unchanged": "Backup after nothing changed",
    "changed": "Backup after {changed} of the pages changed at random", "restore": "Restore of files from one region",
    "recovery": "Point-in-time recovery, to the first write", "wal-push": "One segment archived into two regions",
    "wal-fetch": "One segment fetched, of one after the other (Tidemark with wal-ahead)",
    "wal-fetch-other": "The same in the other way (Tidemark without wal-ahead, pgBackRest with archive-async)",
    "sizes": "Full backup, by size", "sizes-restore": "Restore of files, by size",
    "relations": "Full backup, by the number of relations",
    "replay": "Replay by PostgreSQL alone, and what each choice of a restore gains",
}


@dataclasses.dataclass
class Figure:
    name: str
    limit: float
    values: list
    unit: str = "×"

    @property
    def value(self):
        return statistics.median(self.values)

    @property
    def is_met(self):
        return self.value <= self.limit


def ratios(ours, theirs, what):
    """Run by run: neighbours in time are compared, so that what slows the host slows both."""
    return [getattr(left, what) / getattr(right, what) for left, right in zip(ours, theirs) if getattr(right, what)]


def figures(bench):
    """The figures that could be measured, and the names of those that could not."""
    samples = bench.samples
    found, missing = [], []

    def compare(name, limit, scenario, what, peer="pgbackrest", peer_scenario=None):
        ours = samples.get(scenario, {}).get("tidemark")
        theirs = samples.get(peer_scenario or scenario, {}).get(peer)
        if scenario not in bench.facts["wanted"]:
            return
        values = ratios(ours, theirs, what) if ours and theirs else []
        if values:
            found.append(Figure(name, limit, values))
        else:
            missing.append(name)

    compare("full backup: wall, of pgBackRest's two runs", 0.6, "full", "wall")
    compare("full backup: CPU of client and PostgreSQL, of pgBackRest's", 0.65, "full", "cpu")
    compare("full backup: stored bytes, of pgBackRest's", 1.03, "full", "stored")
    compare("nothing changed: wall, of our full backup", 0.3, "unchanged", "wall", "tidemark", "full")
    compare("pages changed: stored bytes, of pgBackRest's file-level incremental", 0.35, "changed", "stored")
    compare("restore of files: wall, of pgBackRest's", 0.8, "restore", "wall")
    compare("recovery to the first write: wall, of pgBackRest's", 0.75, "recovery", "wall")
    compare("wal-push into two regions: wall, of archive-push's", 0.5, "wal-push", "wall")
    compare("wal-fetch of one after the other: wall, of archive-get's", 0.5, "wal-fetch", "wall")
    flat = flatness.compared(bench)
    found += [Figure(name, 1.15, [ratio]) for name, ratio in flat]
    missing += [f"flat cost and memory: {scenario}" for scenario, count in (("sizes", 2), ("relations", 4))
                if scenario in bench.facts["wanted"] and len(samples.get(scenario, {})) < count]
    peaks = [sample.peak for scenario, tools in samples.items() for name, runs in tools.items() for sample in runs
             if name == "tidemark" or scenario in flatness.SCENARIOS]
    if peaks:
        found.append(Figure("peak memory of any Tidemark process, MiB", 256, [max(peaks) / 2 ** 20], ""))
    return found, missing


def spread(values, scale=1.0, digits=2):
    middle, low, high = (value * scale for value in (statistics.median(values), min(values), max(values)))
    text = f"{middle:.{digits}f}"
    return text if len(values) == 1 else f"{text} ({low:.{digits}f}–{high:.{digits}f})"


def table(bench, scenario):
    tools = bench.samples[scenario]
    reference = "tidemark" if "tidemark" in tools else next(iter(tools))
    share = "{:.1f} %".format(100 * statistics.median(bench.facts["changed"])) if "changed" in bench.facts else ""
    lines = [f"### {TITLES[scenario].format(changed=share)}", "",
             "| | wall s | CPU s, client | PostgreSQL | S3 servers | peak MiB, largest | all | stored MB | requests "
             f"| wall, to {reference} | CPU, to {reference} |",
             "|---|---|---|---|---|---|---|---|---|---|---|"]
    digits = 3 if scenario.startswith("wal") else 2
    for name, samples in tools.items():
        def column(what, scale=1.0, digits=digits):
            return spread([getattr(sample, what) for sample in samples], scale, digits)

        def ratio(what):
            values = ratios(samples, tools[reference], what)
            return "–" if name == reference or not values else f"{statistics.median(values):.2f}"

        lines.append(
            f"| {name} | {column('wall')} | {column('client_cpu')} | {column('postgres_cpu')} | {column('s3_cpu')} | "
            f"{column('peak', 2 ** -20, 0)} | {column('peak_tree', 2 ** -20, 0)} | {column('stored', 1e-6, 1)} | "
            f"{column('requests', 1, 0)} | {ratio('wall')} | {ratio('cpu')} |")
    return "\n".join(lines) + "\n"


def markdown(bench):
    parts = [table(bench, scenario) for scenario in TITLES if scenario in bench.samples
             and scenario in bench.facts["wanted"]]
    found, missing = figures(bench)
    lines = ["### Figures", "", "| figure | at most | measured | range | |", "|---|---|---|---|---|"]
    for figure in found:
        lines.append(f"| {figure.name} | {figure.limit:g} {figure.unit} | {figure.value:.2f} {figure.unit} | "
                     f"{min(figure.values):.2f}–{max(figure.values):.2f} | {'met' if figure.is_met else 'NOT MET'} |")
    lines += [f"| {name} | | could not be measured | | NOT MET |" for name in missing]
    parts.append("\n".join(lines) + "\n")
    if bench.remarks:
        remarks = [f"- {' '.join(remark.split())}" for remark in bench.remarks]
        parts.append("\n".join(["### Remarks", "", *remarks]) + "\n")
    return "\n".join(parts)


def document(bench):
    found, missing = figures(bench)
    return {
        "facts": {key: sorted(value) if isinstance(value, set) else value for key, value in bench.facts.items()},
        "samples": {scenario: {tool: [dataclasses.asdict(sample) for sample in samples]
                               for tool, samples in tools.items()} for scenario, tools in bench.samples.items()},
        "figures": [{"name": figure.name, "limit": figure.limit, "median": figure.value, "values": figure.values,
                     "met": figure.is_met} for figure in found],
        "notMeasured": missing, "remarks": bench.remarks,
    }


def is_met(bench):
    found, missing = figures(bench)
    if not bench.samples:
        raise BenchmarkError("nothing was measured")
    return not missing and all(figure.is_met for figure in found)
