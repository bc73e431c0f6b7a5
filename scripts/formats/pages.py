"""Pages of a throw-away PostgreSQL: what it writes to disk for several kinds of data, and what changes in them."""
import json
import os
import random
import subprocess
import sys

from processes import BenchmarkError, as_operator

PAGE = 8192
MIB = 1 << 20
# Bytes of each kind that are compressed; more says nothing else.
SAMPLE_BYTES = 32 * MIB

TABLES = {
    "contacts": "CREATE TABLE contacts (id bigint, key uuid, name text, email text, phone text, score int, "
                "balance numeric(14, 2), created timestamptz, attributes jsonb, note text, changes int) "
                "WITH (fillfactor = 85)",
    "communications": "CREATE TABLE communications (id bigint, contact bigint, kind text, sent timestamptz, "
                      "cost numeric(9, 4), body text, changes int) WITH (fillfactor = 85)",
    "documents": "CREATE TABLE documents (id uuid, contact bigint, digest text, content bytea, changes int) "
                 "WITH (fillfactor = 80)",
}
INDEXES = ("ALTER TABLE contacts ADD PRIMARY KEY (id); CREATE INDEX contacts_key ON contacts (key);"
           "CREATE INDEX contacts_email ON contacts (email);"
           "ALTER TABLE communications ADD PRIMARY KEY (id);"
           "CREATE INDEX communications_contact ON communications (contact, sent);"
           "ALTER TABLE documents ADD PRIMARY KEY (id);"
           "CREATE INDEX events_document ON events USING gin (document);")
# What is measured: a name for people, and the relations it lies in.
KINDS = {
    "heap: uuid, numeric, text, jsonb": ["contacts"],
    "heap: text": ["communications"],
    "heap: half of it random": ["documents"],
    "wide JSON": ["events"],
    "btree": ["contacts_pkey", "contacts_key", "contacts_email"],
    "GIN": ["events_document"],
    "pgbench_accounts": ["pgbench_accounts"],
    "random bytea": ["TOAST blobs"],
    "emptied pages": ["emptied"],
}


class Cluster:
    """The cluster and where its relations lie."""

    def __init__(self, server, scale):
        self.server, self.scale = server, scale

    def make(self):
        """`scale` is in the units of scripts/benchmark's data set: about a gigabyte."""
        server, scale = self.server, self.scale
        server.create()
        self.start()
        contacts = int(560_000 * scale)
        maker = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "benchmarking", "rows.py")
        for table, count in {"contacts": contacts, "communications": int(1_100_000 * scale),
                             "documents": int(105_000 * scale)}.items():
            rows = subprocess.Popen([sys.executable, maker, table, str(count), str(contacts)], stdout=subprocess.PIPE)
            self._copy(table, TABLES[table], rows.stdout)
            if rows.wait():
                raise BenchmarkError(f"making rows of {table} failed")
        self._copy("events", "CREATE TABLE events (id bigint, document jsonb)", lines=events(int(40_000 * scale) or 1))
        self._copy("blobs", "CREATE TABLE blobs (content bytea); ALTER TABLE blobs ALTER content SET STORAGE EXTERNAL",
                   lines=("\\\\x" + random.Random(number).randbytes(100_000).hex() + "\n"
                          for number in range(int(1000 * scale))))
        server.sql(INDEXES)
        self.pgbench("-i", "-s", str(max(1, int(20 * scale))))
        server.sql("VACUUM (FREEZE, ANALYZE)")
        server.sql(f"CREATE TABLE emptied AS SELECT * FROM contacts LIMIT {contacts // 4}; DELETE FROM emptied;")
        # Else VACUUM would cut the empty pages off.
        server.sql("VACUUM (TRUNCATE off) emptied")
        server.sql("CHECKPOINT")

    def start(self):
        self.server.start(listen_addresses="", shared_buffers="256MB", max_wal_size="8GB", checkpoint_timeout="1h",
                          autovacuum="off", fsync="off", wal_keep_size="512MB")

    def _copy(self, table, made, stream=None, lines=None):
        load = subprocess.Popen(as_operator([*self.server.psql(), "-c", made, "-c", f"COPY {table} FROM STDIN"]),
                                stdin=stream or subprocess.PIPE, cwd="/")
        if lines:
            for line in lines:
                load.stdin.write(line.encode())
            load.stdin.close()
        if load.wait():
            raise BenchmarkError(f"loading {table} failed")

    def pgbench(self, *arguments):
        result = subprocess.run(
            as_operator([self.server.program("pgbench"), "-h", self.server.sockets, "-p", str(self.server.port),
                         "-U", "postgres", *arguments, "postgres"]),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/")
        if result.returncode:
            raise BenchmarkError(f"pgbench: {result.stdout}")

    def sample(self, relations):
        data = bytearray()
        for relation in relations:
            if relation.startswith("TOAST "):
                found = self.server.sql(
                    f"SELECT pg_relation_filepath(reltoastrelid) FROM pg_class WHERE relname = '{relation[6:]}'")
            else:
                found = self.server.sql(f"SELECT pg_relation_filepath('{relation}')")
            with open(f"{self.server.directory}/{found}", "rb") as file:
                data += file.read(SAMPLE_BYTES // len(relations))
        return bytes(data)

    def wal(self, write):
        """The WAL segments that `write` causes, as they are archived: after a checkpoint, so with whole pages."""
        self.server.sql("CHECKPOINT")
        begin = self.server.sql("SELECT pg_walfile_name(pg_switch_wal() + 1)")
        write()
        end = self.server.sql("SELECT pg_walfile_name(pg_switch_wal())")
        directory = f"{self.server.directory}/pg_wal"
        names = sorted(name for name in os.listdir(directory) if len(name) == 24 and begin < name < end)
        data = bytearray()
        for name in names[:SAMPLE_BYTES // (16 * MIB)]:
            with open(f"{directory}/{name}", "rb") as file:
                data += file.read()
        if not data:
            raise BenchmarkError("no whole segment of WAL was written")
        return bytes(data)

    def files(self):
        """The bytes of each relation's file, read after a checkpoint."""
        self.server.sql("CHECKPOINT")
        base = f"{self.server.directory}/base"
        found = {}
        for directory, _, names in os.walk(base):
            for name in sorted(names):
                with open(f"{directory}/{name}", "rb") as file:
                    found[os.path.relpath(f"{directory}/{name}", base)] = file.read()
        return found


def events(count):
    """JSON documents of about two KB, as applications write them."""
    draw = random.Random(7)
    words = ["".join(draw.choices("etaoinshrdlucmfwypvbg", k=2 + number % 9)) for number in range(4000)]
    for number in range(count):
        document = {
            "id": f"{draw.getrandbits(64):016x}", "type": draw.choice(("order", "invoice", "visit", "ticket")),
            "at": f"2026-{1 + int(draw.random() * 12):02}-{1 + int(draw.random() * 28):02}T08:{number % 60:02}:00Z",
            "customer": {"id": int(draw.random() * 1e6), "name": " ".join(draw.choices(words, k=2)),
                         "address": {"street": " ".join(draw.choices(words, k=2)), "zip": int(draw.random() * 1e5)}},
            "items": [{"sku": f"{draw.getrandbits(40):010x}", "count": 1 + int(draw.random() * 9),
                       "price": round(draw.random() * 1000, 2), "text": " ".join(draw.choices(words, k=12))}
                      for _ in range(1 + int(draw.random() * 9))],
            "labels": draw.choices(words[:200], k=5),
        }
        yield f"{number}\t{json.dumps(document)}\n"
