"""The data set: a small CRM whose columns compress as real ones do.

About 2.4 times at zstd's level 3 as a whole: text of words, JSON, numerics, dates, uuids, and one column in each
document that doesn't compress at all. `pgbench_accounts` would compress 32 times and say nothing.
"""
import json
import os
import shutil
import struct
import subprocess
import sys
import time

from processes import BenchmarkError, as_operator, give_to_operator, say

# Raised when what is made changes, so that an older directory isn't reused.
VERSION = 1
# Rows of each table for each GB of data directory, found by measurement.
CONTACTS, COMMUNICATIONS, DOCUMENTS = 560_000, 1_100_000, 105_000

SETTINGS = {
    "shared_buffers": "512MB", "max_wal_size": "4GB", "checkpoint_timeout": "30min", "autovacuum": "off",
    "archive_mode": "on", "archive_command": "'/bin/true'", "wal_level": "replica", "hot_standby": "on",
    "listen_addresses": "''", "log_line_prefix": "'%m [%p] '", "max_wal_senders": "10", "wal_compression": "off",
    "max_locks_per_transaction": "256", "log_checkpoints": "off",
}

TABLES = {
    "contacts": (
        "CREATE TABLE contacts (id bigint, key uuid, name text, email text, phone text, score int, "
        "balance numeric(14, 2), created timestamptz, attributes jsonb, note text, changes int) "
        "WITH (fillfactor = 85)",
        "ALTER TABLE contacts ADD PRIMARY KEY (id); CREATE UNIQUE INDEX ON contacts (key);"
        "CREATE INDEX ON contacts (email); CREATE INDEX ON contacts (created)"),
    "communications": (
        "CREATE TABLE communications (id bigint, contact bigint, kind text, sent timestamptz, cost numeric(9, 4), "
        "body text, changes int) WITH (fillfactor = 85)",
        "ALTER TABLE communications ADD PRIMARY KEY (id); CREATE INDEX ON communications (contact, sent)"),
    "documents": (
        "CREATE TABLE documents (id uuid, contact bigint, digest text, content bytea, changes int) "
        "WITH (fillfactor = 80)",
        "ALTER TABLE documents ADD PRIMARY KEY (id); CREATE INDEX ON documents (contact)"),
}


def configure(server):
    """Everything that a server of this benchmark, restored ones too, is configured with."""
    settings = {**SETTINGS, "port": server.port, "unix_socket_directories": f"'{server.sockets}'"}
    with open(f"{server.directory}/postgresql.conf", "w", encoding="utf-8") as file:
        for name, value in settings.items():
            file.write(f"{name} = {value}\n")
    give_to_operator(f"{server.directory}/postgresql.conf")


def prepare(server, size, pristine):
    """Makes the data set at the server's directory, or copies the one that an earlier run left in `pristine`."""
    mark = f"{pristine}.json"
    wanted = {"version": VERSION, "size": size}
    if os.path.exists(mark):
        with open(mark, encoding="utf-8") as file:
            if json.load(file) == wanted:
                say("reusing the data set")
                shutil.rmtree(server.directory, ignore_errors=True)
                subprocess.run(["cp", "-a", "--reflink=auto", pristine, server.directory], check=True)
                configure(server)
                return
        os.remove(mark)
    shutil.rmtree(pristine, ignore_errors=True)
    shutil.rmtree(server.directory, ignore_errors=True)
    make(server, size)
    subprocess.run(["cp", "-a", "--reflink=auto", server.directory, pristine], check=True)
    with open(mark, "w", encoding="utf-8") as file:
        json.dump(wanted, file)


def make(server, size):
    say(f"making a data set of about {size / 1e9:.1f} GB")
    begin = time.monotonic()
    shutil.rmtree(server.directory, ignore_errors=True)
    server.create()
    configure(server)
    _load(server, size / 1e9)
    say(f"made {stored(server.directory) / 1e9:.2f} GB in {time.monotonic() - begin:.0f} s")


# With wal_level=minimal a table made in the same transaction is written once, without WAL.
LOADING = {"wal_level": "minimal", "max_wal_senders": 0, "archive_mode": "off", "fsync": "off",
           "max_wal_size": "20GB", "maintenance_work_mem": "512MB", "synchronous_commit": "off"}


def _load(server, gigabytes):
    server.start(**LOADING)
    counts = {"contacts": int(CONTACTS * gigabytes), "communications": int(COMMUNICATIONS * gigabytes),
              "documents": int(DOCUMENTS * gigabytes)}
    maker = f"{os.path.dirname(os.path.abspath(__file__))}/rows.py"
    running = []
    for table, (made, indexes) in TABLES.items():
        rows = subprocess.Popen([sys.executable, maker, table, str(counts[table]), str(counts["contacts"])],
                                stdout=subprocess.PIPE)
        load = subprocess.Popen(
            as_operator([*server.psql(), "--single-transaction", "-c", made, "-c", f"COPY {table} FROM STDIN (FREEZE)",
                         "-c", indexes]), stdin=rows.stdout, cwd="/")
        rows.stdout.close()
        running += [rows, load]
    if any([process.wait() for process in running]):
        raise BenchmarkError("loading the data set failed: see above")
    server.sql("VACUUM (FREEZE, ANALYZE); CHECKPOINT")
    server.stop()


def stored(directory):
    """Bytes of the files that a backup takes: all but pg_wal's."""
    total = 0
    for place, directories, files in os.walk(directory):
        if place == directory and "pg_wal" in directories:
            directories.remove("pg_wal")
        for file in files:
            try:
                total += os.stat(f"{place}/{file}").st_size
            except FileNotFoundError:
                pass
    return total


def change_pages(server, percent, seed):
    """Changes one row in each of so many randomly chosen pages of all tables, and says what share of all pages that
    was: (pages changed) / (pages of the data directory), counted by their LSNs."""
    begin = server.sql("CHECKPOINT; SELECT pg_current_wal_insert_lsn()").splitlines()[-1]
    pages = int(server.sql("SELECT (sum(pg_relation_size(oid)) / 8192)::bigint FROM pg_class "
                           "WHERE relkind IN ('r', 'i', 't')"))
    tables = int(server.sql("SELECT (sum(pg_relation_size(oid)) / 8192)::bigint FROM pg_class WHERE relname IN "
                            "('contacts', 'communications', 'documents')"))
    share = percent * pages / tables
    for table in TABLES:
        # The new row stays in its page: fillfactor left room, and no index names the changed column.
        server.sql(f"UPDATE {table} SET changes = changes + 1 WHERE ctid IN (SELECT DISTINCT ON ("
                   f"(ctid::text::point)[0]) ctid FROM {table} TABLESAMPLE SYSTEM ({share}) REPEATABLE ({seed}))")
    server.sql("CHECKPOINT")
    return changed_pages(server, begin) / pages


def changed_pages(server, lsn):
    high, low = (int(part, 16) for part in lsn.split("/"))
    limit, changed = high << 32 | low, 0
    for place, _, files in os.walk(f"{server.directory}/base"):
        for name in files:
            if not name.split("_")[0].split(".")[0].isdigit():
                continue
            with open(f"{place}/{name}", "rb") as file:
                while piece := file.read(1 << 20):
                    for offset in range(0, len(piece) - 7, 8192):
                        first, second = struct.unpack_from("<II", piece, offset)
                        changed += (first << 32 | second) > limit
    return changed


WORKLOAD = """
\\set first random_exponential(1, {contacts} - 10, 20)
\\set message random_exponential(1, {communications}, 20)
BEGIN;
UPDATE contacts SET score = score + 1, attributes = attributes || jsonb_build_object('touched', now())
  WHERE id BETWEEN :first AND :first + 3;
UPDATE communications SET changes = changes + 1 WHERE id = :message;
INSERT INTO communications
  SELECT :message + 1000000000, :first, 'mail', now(), 1.5, repeat(md5(:message::text) || ' of the customer ', 3), 0
  ON CONFLICT DO NOTHING;
COMMIT;
"""


def write_segments(server, count, work):
    """Runs transactions until they made so many segments of WAL: as an application's, most of them on few rows."""
    contacts, communications = server.sql("SELECT max(id) FROM contacts; SELECT max(id) FROM communications "
                                          "WHERE id < 1000000000").splitlines()
    script = f"{work}/workload.sql"
    with open(script, "w", encoding="utf-8") as file:
        file.write(WORKLOAD.format(contacts=contacts, communications=communications))
    begin = server.sql("SELECT pg_current_wal_lsn()")
    while int(server.sql(f"SELECT pg_current_wal_lsn() - '{begin}'::pg_lsn").split(".")[0]) < count << 24:
        subprocess.run(
            as_operator(["env", "PGOPTIONS=-c synchronous_commit=off", server.program("pgbench"), "-h",
                         server.sockets, "-p", str(server.port), "-U", "postgres", "-n", "-c", "4", "-j", "2", "-T",
                         "2", "-f", script, "postgres"]),
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
