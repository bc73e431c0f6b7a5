"""What each choice for a recovery gains: PostgreSQL alone replays the same WAL, as `restore` lets it and with one thing
changed. The segments lie ready, so that neither region nor download is in the figures."""
import os
import random
import shutil
import subprocess

import dataset
from processes import as_operator, give_to_operator, say, wait_until

REFERENCE = "as restore does it"
# What `restore` writes for the replay: Sources/PointInTimeRestore/RecoverySettings.swift.
SETTINGS = {"checkpoint_timeout": "1d", "max_wal_size": "20GB", "recovery_prefetch": "off", "bgwriter_delay": "10ms",
            "bgwriter_lru_maxpages": "1000", "bgwriter_lru_multiplier": "4", "bgwriter_flush_after": "0"}
# name: (settings, whether the segments were flushed before they are asked for, whether it is promoted when it pauses)
VARIANTS = {
    REFERENCE: (SETTINGS, True, True),
    "with PostgreSQL's restartpoints": ({**SETTINGS, "checkpoint_timeout": "5min", "max_wal_size": "1GB"}, True, True),
    "segments not flushed ahead": (SETTINGS, False, True),
    "ended by recovery_target_action": (SETTINGS, True, False),
    "with recovery_prefetch": ({**SETTINGS, "recovery_prefetch": "try"}, True, True),
    "with PostgreSQL's bgwriter": ({name: value for name, value in SETTINGS.items() if "bgwriter" not in name},
                                   True, True),
    "shared_buffers 2 GB": ({**SETTINGS, "shared_buffers": "2GB"}, True, True),
}
# So often the primary makes a checkpoint: a restartpoint can only be where one was.
SEGMENTS_OF_CHECKPOINT = 15


def replay(bench, rounds, segments):
    base, archive = f"{bench.work}/replay-base", f"{bench.work}/replay-archive"
    for path in (base, archive):
        shutil.rmtree(path, ignore_errors=True)
    server = bench.server
    bench.empty_regions()
    server.stop()
    subprocess.run(["cp", "-a", "--reflink=auto", server.directory, base], check=True)
    os.makedirs(archive)
    give_to_operator(archive)
    server.start()
    server.archive_with(f"cp %p {archive}/%f")
    say(f"writing {segments} segments of WAL")
    for _ in range(0, segments, SEGMENTS_OF_CHECKPOINT):
        dataset.write_segments(server, SEGMENTS_OF_CHECKPOINT, bench.work)
        server.sql("CHECKPOINT")
    target = server.sql("SELECT pg_create_restore_point('replay')")
    server.sql("CREATE TABLE after_the_target (id int)")
    server.finish_archiving(600)
    server.archive_with("/bin/true")
    server.stop()
    say(f"replaying to {target}")
    # The table compares with the first.
    bench.samples["replay"] = {name: [] for name in VARIANTS}
    try:
        for _ in range(rounds):
            # In another order each time: the first ones meet memory that nothing touched for a while.
            for name in random.sample(list(VARIANTS), len(VARIANTS)):
                _replay(bench, name, base, archive)
    finally:
        for path in (base, archive):
            shutil.rmtree(path)
        server.start()


def _replay(bench, name, base, archive):
    settings, is_flushed, promotes = VARIANTS[name]
    server, directory, spool = bench.server, f"{bench.work}/restored/replay", f"{bench.work}/restored/replay.spool"
    for source, copy in ((base, directory), (archive, spool)):
        subprocess.run(["cp", "-a", source, copy], check=True)
        if source == base or is_flushed:
            subprocess.run(["sync", "-f", copy], check=True)
    lines = {**settings, "restore_command": f"mv -f {spool}/%f %p 2>/dev/null", "archive_mode": "off",
             "recovery_target_name": "replay", "recovery_target_action": "pause" if promotes else "promote"}
    with open(f"{directory}/postgresql.auto.conf", "w", encoding="utf-8") as file:
        file.write("".join(f"{key} = '{value}'\n" for key, value in lines.items()))
    open(f"{directory}/recovery.signal", "w", encoding="ascii").close()

    def answers(statement):
        return subprocess.run(as_operator([*server.psql(), "-c", statement]), stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True, cwd="/")

    def writes():
        if not os.path.exists(f"{server.sockets}/.s.PGSQL.{server.port}"):
            return False
        if promotes and answers("SELECT pg_get_wal_replay_pause_state()").stdout.strip() == "paused":
            answers("SELECT pg_promote(false); SELECT pg_sleep(0.01); "
                    "SELECT pg_wal_replay_resume(), pg_wal_replay_pause()")
        return answers("CREATE TABLE first_write (id int)").returncode == 0

    try:
        start = [server.program("pg_ctl"), "-D", directory, "-l", f"{directory}.log", "-s", "-W", "start"]
        bench.record("replay", name, bench.meter.measure(
            [start], "tidemark", until=lambda: wait_until(600, "the first write", writes), flushes=False))
    finally:
        bench.meter.started.reap_orphans(ends_them=True)
        bench.remove(directory)
