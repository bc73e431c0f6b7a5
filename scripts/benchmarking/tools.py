"""How each tool is configured and called. Every peer as its manual recommends for S3, at the same zstd level."""
import os
import secrets
import shlex

from processes import give_to_operator


def write_private(path, text):
    with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    give_to_operator(path)


def make_directory(path):
    os.makedirs(path, exist_ok=True)
    give_to_operator(path)
    return path


class Tool:
    """`initialize` prepares empty regions; the others return the commands that do one thing, in their order."""
    name = bucket = ""
    restores = increments = True

    def __init__(self, work, server, regions, meter):
        self.work, self.server, self.regions, self.meter = work, server, regions, meter
        self.directory = make_directory(f"{work}/{self.name}")

    def initialize(self):
        pass


class Tidemark(Tool):
    name = bucket = "tidemark"

    def __init__(self, work, server, regions, meter, binary):
        super().__init__(work, server, regions, meter)
        self.binary, self.configuration = binary, f"{self.directory}/tidemark.yaml"
        places = "".join(
            f"    - {{name: {region.name}, endpoint: \"{region.endpoint}\", bucket: {self.bucket}, region: eu-1,"
            f" credentials-file: {region.credentials}, ca-file: {region.authority.authority}}}\n"
            for region in regions)
        write_private(self.configuration, f"""cluster: benchmark
postgres:
  connection: host={server.sockets} port={server.port} user=postgres dbname=postgres
  data-directory: {server.directory}
  bin-directory: {server.bin}
repository:
  durability: {{required: 2, degrade-after: 60s}}
  regions:
{places}encryption:
  identity-file: {self.directory}/identity.key
  writer-key-file: {self.directory}/writer.key
compression: {{level: 3}}
state-directory: {self.directory}/state
""")
        # As many as pgBackRest's `archive-get-queue-max` holds by default, 128 MiB.
        self.going_ahead = f"{self.directory}/ahead.yaml"
        with open(self.configuration, encoding="utf-8") as file:
            write_private(self.going_ahead, file.read() + "limits: {wal-ahead: 8}\n")

    def call(self, *arguments, configuration=None):
        return [self.binary, "--config", configuration or self.configuration, *arguments]

    def initialize(self):
        self.meter.run(self.call("init"))

    @property
    def archive_command(self):
        return f"{shlex.join(self.call('wal-push'))} %p"

    def full(self):
        return [self.call("--json", "backup", "--full")]

    def incremental(self):
        return [self.call("--json", "backup")]

    def restore(self, target):
        return [self.call("--json", "restore", "--target-directory", target, "--to-backup-end", "--no-start",
                          "--from-region", self.regions[0].name)]

    def recover(self, target, moment, port):
        return [self.call("--json", "restore", "--target-directory", target, "--to-time", moment, "--port", str(port))]

    def push(self, path):
        return [self.call("wal-push", path)]

    def fetch(self, name, destination):
        return [self.call("wal-fetch", name, destination, configuration=self.going_ahead)]

    def fetch_otherwise(self, name, destination):
        return [self.call("wal-fetch", name, destination)]


class PgBackRest(Tool):
    name = bucket = "pgbackrest"

    def __init__(self, work, server, regions, meter):
        super().__init__(work, server, regions, meter)
        self.configuration, self.asynchronous = f"{self.directory}/pgbackrest.conf", f"{self.directory}/async.conf"
        options = ["[global]"]
        for number, region in enumerate(regions, 1):
            options += [f"repo{number}-{option}" for option in (
                "type=s3", "path=/benchmark", f"s3-bucket={self.bucket}", "s3-endpoint=localhost", "s3-region=eu-1",
                f"s3-key={region.key}", f"s3-key-secret={region.secret}", "s3-uri-style=path",
                f"storage-port={region.port}",
                f"storage-ca-file={region.authority.authority}", "cipher-type=aes-256-cbc",
                f"cipher-pass={secrets.token_hex(24)}", "bundle=y", "retention-full=99")]
        options += ["process-max=2", "compress-type=zst", "compress-level=3", "start-fast=y", "log-level-file=off",
                    "log-level-console=warn", "log-level-stderr=off"]
        options += [f"{name}-path={make_directory(f'{self.directory}/{name}')}" for name in ("spool", "lock", "log")]
        stanza = ["[main]", f"pg1-path={server.directory}", f"pg1-port={server.port}",
                  f"pg1-socket-path={server.sockets}", "pg1-user=postgres"]
        write_private(self.configuration, "\n".join([*options, *stanza, ""]))
        write_private(self.asynchronous, "\n".join([*options, "archive-async=y", *stanza, ""]))

    def call(self, *arguments, configuration=None):
        return ["pgbackrest", f"--config={configuration or self.configuration}", "--stanza=main", *arguments]

    def initialize(self):
        self.meter.run(self.call("--no-online", "stanza-create"))

    @property
    def archive_command(self):
        return f"{shlex.join(self.call('archive-push'))} %p"

    def full(self):
        return [self.call(f"--repo={number}", "--type=full", "backup") for number in (1, 2)]

    def incremental(self):
        return [self.call(f"--repo={number}", "--type=incr", "backup") for number in (1, 2)]

    def restore(self, target):
        make_directory(target)
        os.chmod(target, 0o700)
        return [self.call("--repo=1", "--type=immediate", f"--pg1-path={target}", "restore")]

    def recover(self, target, moment, port):
        make_directory(target)
        os.chmod(target, 0o700)
        restore = self.call("--type=time", f"--target={moment}", "--target-action=promote", f"--pg1-path={target}",
                            "restore", configuration=self.asynchronous)
        start = [self.server.program("pg_ctl"), "-D", target, "-l", f"{target}.log", "-s", "-w", "-t", "300", "-o",
                 f"-p {port} -c archive_mode=off", "start"]
        return [restore, start]

    def push(self, path):
        return [self.call("archive-push", path)]

    def fetch(self, name, destination):
        return [self.call("archive-get", name, destination)]

    def fetch_otherwise(self, name, destination):
        return [self.call("archive-get", name, destination, configuration=self.asynchronous)]


class BarmanCloud(Tool):
    """No encryption on the host, no incrementals: it has neither. lz4 is the best of its compressions for speed."""
    name = bucket = "barman"
    increments = False

    def __init__(self, work, server, regions, meter, programs):
        super().__init__(work, server, regions, meter)
        self.programs = programs

    def call(self, region, program, *arguments):
        return ["env", f"AWS_SHARED_CREDENTIALS_FILE={region.credentials}",
                f"AWS_CA_BUNDLE={region.authority.authority}", "AWS_DEFAULT_REGION=eu-1",
                # boto3 since 1.36 sends checksums in trailers otherwise, which rclone's server refuses.
                "AWS_REQUEST_CHECKSUM_CALCULATION=when_required", "AWS_RESPONSE_CHECKSUM_VALIDATION=when_required",
                f"{self.programs}/barman-cloud-{program}", "--endpoint-url", region.endpoint, *arguments]

    @property
    def archive_command(self):
        return " && ".join(
            f"{shlex.join(self.call(region, 'wal-archive', f's3://{self.bucket}', 'main'))} %p"
            for region in self.regions)

    def full(self):
        return [self.call(region, "backup", "--lz4", "--immediate-checkpoint", "-J", "2", "-h", self.server.sockets,
                          "-p", str(self.server.port), "-U", "postgres", "-n", "benchmark", f"s3://{self.bucket}",
                          "main") for region in self.regions]

    def restore(self, target):
        make_directory(target)
        os.chmod(target, 0o700)
        return [self.call(self.regions[0], "restore", f"s3://{self.bucket}", "main", "benchmark", target)]


class Pipeline(Tool):
    """pg_basebackup | zstd | openssl into one local file: no region, no WAL, the floor of the protocol with a pipe."""
    name = bucket = "pipeline"
    restores = increments = False
    archive_command = "/bin/true"

    @property
    def output(self):
        return f"{self.directory}/backup"

    def full(self):
        write_private(f"{self.directory}/pass", secrets.token_hex(24))
        base = [self.server.program("pg_basebackup"), "-h", self.server.sockets, "-p", str(self.server.port), "-U",
                "postgres", "-D", "-", "-Ft", "-X", "none", "--no-manifest", "-c", "fast"]
        seal = ["openssl", "enc", "-aes-256-cbc", "-pbkdf2", "-pass", f"file:{self.directory}/pass"]
        return [["bash", "-c", f"set -o pipefail; {shlex.join(base)} | zstd -q -3 -T2 | {shlex.join(seal)}"
                               f" >{shlex.quote(self.output)}"]]
