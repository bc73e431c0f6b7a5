"""The throw-away servers: PostgreSQL, and rclone's S3 server over TLS for each region. All on loopback."""
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess

from processes import BenchmarkError, as_operator, give_to_operator, wait_until

REQUEST = re.compile(rb"serve s3: (?:CREATE OBJECT|GET OBJECT|HEAD OBJECT|DELETE|LIST BUCKETS?\n|HEAD BUCKET|COPY|"
                     rb"(?:initiate|put|complete|abort|list) multipart)")


# The first address of the name, since pgBackRest tries no other, and asks for a name that the certificate has.
FAMILY, _, _, _, ADDRESS = socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)[0]
LOOPBACK = f"[{ADDRESS[0]}]" if FAMILY == socket.AF_INET6 else ADDRESS[0]


def free_port():
    with socket.socket(FAMILY) as probe:
        probe.bind(ADDRESS)
        return probe.getsockname()[1]


class Authority:
    """A certificate authority of our own and a certificate for loopback."""

    def __init__(self, directory):
        os.makedirs(directory, exist_ok=True)
        self.certificate, self.key = f"{directory}/server.pem", f"{directory}/server.key"
        self.authority = f"{directory}/ca.pem"
        key = f"{directory}/ca.key"
        self._openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                      "-subj", "/CN=benchmark authority", "-keyout", key, "-out", self.authority)
        self._openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                      "-subj", "/CN=localhost", "-keyout", self.key, "-out", f"{directory}/server.csr")
        with open(f"{directory}/extensions", "w", encoding="ascii") as file:
            file.write("subjectAltName=DNS:localhost\n")
        self._openssl("x509", "-req", "-in", f"{directory}/server.csr", "-CA", self.authority, "-CAkey", key,
                      "-CAcreateserial", "-days", "30", "-extfile", f"{directory}/extensions", "-out",
                      self.certificate)

    @staticmethod
    def _openssl(*arguments):
        result = subprocess.run(["openssl", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if result.returncode:
            raise BenchmarkError(f"openssl {arguments[0]}: {result.stdout}")


class Region:
    """One S3 server with a bucket for each tool. `empty` begins anew: what a server remembers goes as well."""

    def __init__(self, name, work, rclone, authority, started, buckets):
        self.name, self.rclone, self.authority, self.started, self.buckets = name, rclone, authority, started, buckets
        self.port, self.key, self.secret = free_port(), secrets.token_hex(10), secrets.token_hex(20)
        self.directory, self.log = f"{work}/s3/{name}", f"{work}/s3-{name}.log"
        self.credentials = f"{work}/{name}.credentials"
        with open(os.open(self.credentials, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
            file.write(f"[default]\naws_access_key_id = {self.key}\naws_secret_access_key = {self.secret}\n")
        give_to_operator(self.credentials)
        self.process, self._counted, self._offset = None, 0, 0

    @property
    def endpoint(self):
        return f"https://localhost:{self.port}"

    def empty(self):
        if self.process:
            self.started.stop(self.process)
        shutil.rmtree(self.directory, ignore_errors=True)
        for bucket in self.buckets:
            os.makedirs(f"{self.directory}/{bucket}")
        open(self.log, "w", encoding="ascii").close()
        self._counted = self._offset = 0
        # The keys go by the environment: a command line is everybody's to read. The log counts the requests. For ETags
        # it would read every object that it lists; it would read again what it stored, and digest what it serves:
        # seconds of these cores that no region takes from its clients. What it receives is checked against Content-MD5
        # all the same.
        self.process = self.started.start(
            [self.rclone, "serve", "s3", "-vv", "--etag-hash", "", "--ignore-checksum", "--no-checksum", "--addr",
             f"{LOOPBACK}:{self.port}", "--cert", self.authority.certificate, "--key", self.authority.key,
             self.directory], self.log,
            {"RCLONE_CONFIG": "/dev/null", "RCLONE_AUTH_KEY": f'"{self.key},{self.secret}"'})
        wait_until(30, f"the start of the S3 server {self.name}", self._accepts)

    def _accepts(self):
        if self.process.poll() is not None:
            with open(self.log, encoding="utf-8", errors="replace") as file:
                raise BenchmarkError(f"the S3 server {self.name} ended: {file.read()[-2000:]}")
        with socket.socket(FAMILY) as probe:
            return probe.connect_ex((ADDRESS[0], self.port)) == 0

    def stored(self, bucket):
        return self._each_file(bucket, lambda file: os.fstat(file.fileno()).st_size)

    def bring_to_page_cache(self, bucket):
        self._each_file(bucket, lambda file: sum(iter(lambda: len(file.read(1 << 20)), 0)))

    def _each_file(self, bucket, look):
        """The sum of what `look` returns. What is being uploaded is renamed in a moment, and counts for nothing."""
        total = 0
        for directory, _, names in os.walk(f"{self.directory}/{bucket}"):
            for name in names:
                try:
                    with open(f"{directory}/{name}", "rb") as file:
                        total += look(file)
                except FileNotFoundError:
                    pass
        return total

    def requests(self):
        with open(self.log, "rb") as file:
            file.seek(self._offset)
            text = file.read()
        whole = text[:text.rfind(b"\n") + 1]
        self._offset += len(whole)
        self._counted += len(REQUEST.findall(whole))
        return self._counted


class PostgresServer:
    def __init__(self, directory, work, bin_directory, started):
        self.directory, self.bin, self.started = directory, bin_directory, started
        self.sockets, self.log, self.port = f"{work}/run", f"{work}/postgres.log", free_port()
        self.process = None

    def program(self, name):
        return f"{self.bin}/{name}"

    def create(self):
        self._check([self.program("initdb"), "-D", self.directory, "-U", "postgres", "--auth=trust",
                     "--data-checksums", "--encoding=UTF8", "--locale=C", "--no-sync"])

    def start(self, **settings):
        """Settings go on the command line, so that no backup captures them."""
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self.process = self.started.start(
            as_operator([self.program("postgres"), "-D", self.directory, "-p", str(self.port), "-k", self.sockets,
                         "-h", "", *arguments]), self.log)
        wait_until(120, "the start of PostgreSQL", self._is_ready)

    def _is_ready(self):
        if self.process.poll() is not None:
            with open(self.log, encoding="utf-8", errors="replace") as file:
                raise BenchmarkError(f"PostgreSQL ended: {file.read()[-2000:]}")
        return subprocess.run([self.program("pg_isready"), "-q", "-h", self.sockets, "-p", str(self.port)]
                              ).returncode == 0

    def stop(self):
        if self.process:
            self.started.stop(self.process, signal.SIGINT)
            self.process = None

    def psql(self, port=None, database="postgres"):
        return [self.program("psql"), "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-h", self.sockets, "-p",
                str(port or self.port), "-U", "postgres", "-d", database]

    def sql(self, statement, database="postgres"):
        return self._check([*self.psql(database=database), "-f", "-"], statement).strip()

    def archive_with(self, command):
        """Lets PostgreSQL archive by this command, and returns when it has nothing left to archive."""
        quoted = command.replace("'", "''")
        self.sql(f"ALTER SYSTEM SET archive_command = '{quoted}'")
        self.sql("SELECT pg_reload_conf()")
        wait_until(30, "the reload", lambda: self.sql("SHOW archive_command") == command)
        self.sql("CHECKPOINT")
        self.finish_archiving()

    def finish_archiving(self, limit=60):
        segment = self.sql("SELECT pg_walfile_name(pg_switch_wal())")
        status = f"{self.directory}/pg_wal/archive_status"
        try:
            wait_until(limit, f"the archiving of {segment}", lambda: not any(
                name.endswith(".ready") for name in os.listdir(status)))
        except BenchmarkError as error:
            with open(self.log, encoding="utf-8", errors="replace") as file:
                raise BenchmarkError(f"{error}\n{file.read()[-2000:]}") from error

    @staticmethod
    def _check(command, text=None):
        result = subprocess.run(
            as_operator(command), input=text, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/")
        if result.returncode:
            raise BenchmarkError(f"{command[0]}: {result.stderr or result.stdout}")
        return result.stdout
