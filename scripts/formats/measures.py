"""The measurements. Speeds are bytes by CPU seconds of one thread: they hold on a busy host, wall times don't."""
import re
import subprocess
import time

import zstandard

MIB = 1 << 20
PAGE = 8192
LEVELS = (-1, 1, 2, 3, 6, 9)
FRAMES = (64 << 10, 256 << 10, 512 << 10, MIB, 2 * MIB, 4 * MIB)
BLOCKS = tuple(kib << 10 for kib in (8, 16, 32, 64, 128, 256))
DIGESTS = ("sha256", "sha512-256", "blake2b512", "sha1", "md5")
# As in Sources/BaseBackup and Sources/BackupRepository.
FRAME, DIGEST_BYTES, LEVEL, STORED_GAIN = MIB, 16, 3, 32


def cpu(body):
    begin = time.thread_time()
    value = body()
    return value, max(time.thread_time() - begin, 1e-6)


def cut(data, size):
    return [data[start:start + size] for start in range(0, len(data), size)]


def compression(data, level, frame):
    """(ratio, MB/s compressing, MB/s decompressing) of independent frames."""
    compressor, decompressor = zstandard.ZstdCompressor(level=level), zstandard.ZstdDecompressor()
    frames = cut(data, frame)
    compressed, seconds = cpu(lambda: [compressor.compress(piece) for piece in frames])
    _, back = cpu(lambda: [decompressor.decompress(piece) for piece in compressed])
    return len(data) / sum(map(len, compressed)), len(data) / seconds / 1e6, len(data) / back / 1e6


def size(bytes_):
    return f"{bytes_ // MIB} MiB" if bytes_ >= MIB else f"{bytes_ >> 10} KiB"


def table(head, rows):
    print("| " + " | ".join(head) + " |")
    print("|" + "|".join("---" if number == 0 else "---:" for number in range(len(head))) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def levels(kinds):
    print("### Compression by level: frames of 1 MiB\n")
    print("Ratio · MB/s compressing · MB/s decompressing, of one thread.\n")
    table(["kind"] + [f"level {level}" for level in LEVELS],
          [[kind] + ["{:.2f} · {:.0f} · {:.0f}".format(*compression(data, level, FRAME)) for level in LEVELS]
           for kind, data in kinds.items()])


def frames(kinds):
    for level in (1, LEVEL):
        print(f"### Compression by frame size: level {level}\n")
        table(["kind"] + [size(frame) for frame in FRAMES],
              [[kind] + ["{:.2f} · {:.0f} · {:.0f}".format(*compression(data, level, frame)) for frame in FRAMES]
               for kind, data in kinds.items()])


def _number(value):
    count = 1
    while value >= 0x80:
        value >>= 7
        count += 1
    return count


class Table:
    """The file table's bytes as Packer and FileTable make them: a digest for each block and runs of blocks that lie
    one after another in one frame. `places` of the predecessor: file -> (label, pack, frame, offset) of each block."""

    def __init__(self, block):
        self.block, self.places, self.label = block, {}, 0

    def backup(self, files, changed, compressor):
        """Takes a backup of which `changed(file)` says which blocks are new; returns its figures."""
        places, chunk, chunk_fill, kept = {}, [], 0, 0
        self.label += 1
        pack, frame, pack_fill = 1, 0, 0
        stored = blocks = 0
        for name, data in files.items():
            new = changed(name)
            mine = places[name] = []
            for number, start in enumerate(range(0, len(data), self.block)):
                piece = data[start:start + self.block]
                blocks += 1
                if chunk_fill + self.block > FRAME:
                    stored_now = self._frame(chunk, compressor)
                    stored, pack_fill = stored + stored_now, pack_fill + stored_now
                    frame += 1 if chunk else 0
                    if pack_fill > 16 * MIB:
                        pack, frame, pack_fill = pack + 1, 0, 0
                    chunk, chunk_fill, kept = [], 0, 0
                chunk_fill += len(piece)
                if new is None or new[number]:
                    mine.append((self.label, pack, frame, kept))
                    chunk.append(piece)
                    kept += len(piece)
                else:
                    mine.append(self.places[name][number])
        stored += self._frame(chunk, compressor)
        self.places = places
        runs, run_bytes = self._runs(places)
        return {"stored": stored, "blocks": blocks, "runs": runs, "table": blocks * DIGEST_BYTES + run_bytes}

    @staticmethod
    def _frame(chunk, compressor):
        if not chunk:
            return 0
        plaintext = b"".join(chunk)
        count = len(compressor.compress(plaintext))
        # Tag, and the frame's line in the footer.
        return min(count, len(plaintext)) + 16 + 48

    def _runs(self, places):
        runs = bytes_ = 0
        for blocks in places.values():
            previous, count = None, 0
            for place in blocks:
                if previous and place[:3] == previous[:3] and place[3] == previous[3] + self.block:
                    count += 1
                else:
                    runs += 1
                    count = 1
                    bytes_ += 1 + sum(map(_number, place))
                previous = place
            # A run's length takes a second byte only beyond 127 blocks, which no frame has.
        return runs, bytes_


def blocks(before, changes, digest_speed):
    """Incremental backups at each block size. `changes`: name -> files after the change."""
    print("### Blocks: what an incremental stores\n")
    total = sum(map(len, before.values()))
    print(f"{total / 1e6:.0f} MB of relations, level {LEVEL}, frames of up to 1 MiB. Stored: of the full backup's"
          " bytes, the file table included. Table: MB for each TB of the database, digests and runs of the full backup."
          " Runs: for each GB; each is a piece of a file that a restore writes at once.\n")
    compressor = zstandard.ZstdCompressor(level=LEVEL)
    rows = {}
    for block in BLOCKS:
        model = Table(block)
        full = model.backup(before, lambda name: None, compressor)
        full_places = model.places
        row = [f"{full['table'] / total * 1e6:.0f}", f"{full['runs'] / total * 1e9:.0f}"]
        for after in changes.values():
            model.places = full_places
            model.label = 1

            def new(name):
                old, now = before.get(name), after[name]
                if old is None:
                    return None
                return [now[start:start + block] != old[start:start + block] for start in range(0, len(now), block)]

            changed = model.backup(after, new, compressor)
            everything = full["stored"] + full["table"]
            row.append(f"{100 * (changed['stored'] + changed['table']) / everything:.1f} %"
                       f" ({100 * changed['stored'] / everything:.1f} %)")
            row.append(f"{changed['runs'] / total * 1e9:.0f}")
        rows[block] = [size(block)] + row + [f"{digest_speed.get(block, 0):.0f}"]
    head = ["block", "table", "full: runs"]
    for name in changes:
        head += [f"{name}: stored (without table)", "runs"]
    table(head + ["SHA-256 MB/s"], rows.values())


def digests():
    """MB/s of OpenSSL's digests by message size; `openssl speed` counts CPU seconds."""
    print("### Digests through OpenSSL, MB/s\n")
    found = {}
    for digest in DIGESTS:
        for block in BLOCKS:
            result = subprocess.run(["openssl", "speed", "-seconds", "1", "-bytes", str(block), "-evp", digest],
                                    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
            value = re.search(r"([\d.]+)k\s*$", result.stdout.strip())
            found[digest, block] = float(value.group(1)) / 1000 if value else float("nan")
    table(["digest"] + [size(block) for block in BLOCKS],
          [[digest] + [f"{found[digest, block]:.0f}" for block in BLOCKS] for digest in DIGESTS])
    return {block: found["sha256", block] for block in BLOCKS}


def packs(ratio, stored_share):
    """Arithmetic from the code's structure, with the ratio that was measured."""
    print("### Packs\n")
    print("Requests: PUTs into two regions for each GB of the database at ratio"
          f" {ratio:.2f}. Lost by a kill: the open pack, and packs that no part of the file table describes yet (4),"
          " in bytes of the database, at most. Memory: the open pack, one that waits, two on their way. Read for one"
          " file of 16 MB: whole packs, from a full backup, at most.\n")
    rows = []
    for pack in (4 * MIB, 8 * MIB, 16 * MIB, 32 * MIB, 64 * MIB):
        touched = (16 * MIB / ratio + pack) // pack + 1
        rows.append([size(pack), f"{2 * 1e9 / ratio / pack:.0f}", f"{5 * pack * ratio / 1e6:.0f} MB",
                     f"{4 * pack // MIB} MiB", f"{touched * pack / MIB:.0f} MiB",
                     f"{1e12 / ratio / pack:,.0f}"])
    table(["pack", "PUTs a GB", "lost by a kill", "memory", "read for 16 MB", "objects a TB"], rows)


def _sample(frame, pieces):
    """So many pieces of the frame, 64 KiB together."""
    length = (64 << 10) // pieces
    if len(frame) <= 64 << 10:
        return frame
    step = (len(frame) - length) // max(1, pieces - 1) if pieces > 1 else 0
    return b"".join(frame[number * step:number * step + length] for number in range(pieces))


def _probing(pieces, compressor, count, level, after_stored):
    """The bytes stored of each frame when a probe may keep it from being tried."""
    probe, is_suspect, counts = zstandard.ZstdCompressor(level=level), not after_stored, []
    for piece in pieces:
        if is_suspect:
            sample = _sample(piece, count)
            if len(probe.compress(sample)) >= len(sample) - len(sample) // STORED_GAIN:
                counts.append(len(piece))
                continue
        result = len(compressor.compress(piece))
        gains = result < len(piece) - len(piece) // STORED_GAIN
        counts.append(result if gains else len(piece))
        is_suspect = not (after_stored and gains)
    return counts


# Pieces and level of a probe, and whether it is made only after a frame that was stored, as FrameCompressor does.
PROBES = {"1 × 64 KiB": (1, 1, False), "4 × 16 KiB": (4, 1, False), "8 × 8 KiB": (8, 1, False),
          "8 × 8 KiB, level -1": (8, -1, False), "8 × 8 KiB after a stored frame": (8, 1, True)}


def adaptive(kinds):
    print("### Adaptive compression\n")
    print(f"Frames of 1 MiB at level {LEVEL}. A frame is stored when less than 1/{STORED_GAIN} is gained. A probe"
          " compresses a sample of 64 KiB first, at level 1, and stores the frame when the sample gains less than that."
          " CPU milliseconds for each 100 MB, and bytes stored against always trying.\n")
    rows = []
    level3 = zstandard.ZstdCompressor(level=LEVEL)
    for kind, data in kinds.items():
        pieces = cut(data, FRAME)
        outcome, tried = cpu(lambda: [len(level3.compress(piece)) for piece in pieces])
        gains = [count < len(piece) - len(piece) // STORED_GAIN for count, piece in zip(outcome, pieces)]
        stored = sum(count if gain else len(piece) for count, gain, piece in zip(outcome, gains, pieces))
        row = [kind, f"{100 * sum(not gain for gain in gains) / len(gains):.0f} %", f"{tried / len(data) * 1e11:.0f}"]
        for count, level, after_stored in PROBES.values():
            counts, spent = cpu(lambda: _probing(pieces, level3, count, level, after_stored))
            row.append(f"{spent / len(data) * 1e11:.0f} ({100 * (sum(counts) / stored - 1):+.1f} %)")
        rows.append(row)
    table(["kind", "frames stored", "always tried"] + list(PROBES), rows)


