"""Many files: a checkpoint of 1,000 changes, and an opening, in a store of as many data files as one of 1 TB has.

The files are small; what names them is not. Whole processes: a checkpoint's time, and the bytes of its manifest and of
all that it writes; the time of an opening with one point read; the memory of both.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from functools import cache
from pathlib import Path
from typing import NamedTuple

import agola_core
from agola_core import Options, Put
from bench import options
from bench.result import Line, limit, ratio
from bench.stores.bigstore import directory

FILES = options.number("AGOLA_BENCH_FILES", 30_000, least=1000)
ROUNDS = 5
MANIFEST_KB = 40
PEAK_MIB = 150
FLAT = 1.5
_WAL = 500
_CODE = textwrap.dedent("""
    import random, sys, time
    from pathlib import Path
    import agola_core
    from agola_core import Options, Put

    def moved():
        return dict(line.split(": ") for line in open("/proc/self/io").read().splitlines())

    operation, path, files = sys.argv[1], sys.argv[2], int(sys.argv[3])
    started = time.perf_counter()
    with agola_core.open(path, data_types=["object"], options=Options(background=False)) as dm:
        if operation == "open":
            dm.read_object("object", f"object-{random.randrange(files):09}")
        else:
            names = [f"object-{random.randrange(files):09}-{number}" for number in range(1000)]
            dm.write_wal([Put("object", name, random.randbytes(1024)) for name in names])
            dm.sync()
            before = moved()
            started = time.perf_counter()
            dm.checkpoint(force=True)
        seconds, after = time.perf_counter() - started, moved()
        written = int(after["wchar"]) - (int(before["wchar"]) if operation != "open" else 0)
    status = open("/proc/self/status").read()
    newest = max(Path(path).glob("storage/data/lineages/*/manifests/*.json"), key=lambda file: file.name)
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    print(1000 * seconds, peak, newest.stat().st_size / 1000, written / 1000, int(after["rchar"]) / 1000)
""")


class Taken(NamedTuple):
    """What an operation took: milliseconds, MiB, and KB of the newest manifest, written and read."""

    milliseconds: float
    peak: float
    manifest: float
    written: float
    read: float


def run() -> list[Line]:
    lines = []
    for operation in ("checkpoint", "open"):
        turns = [(_take(operation, FILES), _take(operation, FILES // 10)) for _ in range(ROUNDS)]
        many, few = zip(*turns, strict=True)
        name = f"{operation}, {FILES:,} / {FILES // 10:,} files"
        print(f"{name}: {many[-1].written:,.0f} KB written, {many[-1].read:,.0f} KB read")
        if operation == "checkpoint":
            sizes = [taken.manifest for taken in many], [taken.manifest for taken in few]
            lines.append(limit(f"{name}: bytes of its manifest", *sizes, MANIFEST_KB, "KB"))
        times = [taken.milliseconds for taken in many], [taken.milliseconds for taken in few]
        lines.append(ratio(name, *times, FLAT, "ms", at_most=True))
        peaks = [taken.peak for taken in many], [taken.peak for taken in few]
        lines.append(limit(f"{name}: peak memory", *peaks, PEAK_MIB, "MiB"))
    return lines


def _take(operation: str, files: int) -> Taken:
    arguments = [sys.executable, "-c", _CODE, operation, str(_store(files)), str(files)]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    return Taken(*map(float, done.stdout.split()))


@cache
def _store(files: int) -> Path:
    """Return a store of so many data files in one run."""
    path = directory() / f"files-{files}"
    value = bytes(Options().block_size)
    options = Options(background=False, file_size=1, checkpoint_bytes=1 << 40, retain_wals=0, grace_period=0)
    with agola_core.open(path, data_types=["object"], options=options) as dm:
        for start in range(0, files, _WAL):
            dm.write_wal([Put("object", f"object-{number:09}", value) for number in range(start, start + _WAL)])
        dm.checkpoint(force=True)
        dm.clean_up()
        dm.collect_garbage()
        assert dm.status().data_files == files
    return path
