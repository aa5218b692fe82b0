"""scale: each operation on a store of many objects, in a process of its own: its time and its memory, beside a tenth.

Opening, a point read and a checkpoint of 1,000 changes are to take the same time as with a tenth of the objects, the
others at most twelve times as much; nothing is to take more memory than 150 MiB. Bytes read and written are printed.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import NamedTuple

from bench.bigstore import OBJECTS, directory, store
from bench.result import Line, limit, ratio

ROUNDS = 5
PEAK_MIB = 150
FLAT, LINEAR = 1.5, 12.0
OPERATIONS = {
    "open": FLAT,
    "point read": FLAT,
    "checkpoint of 1,000 changes": FLAT,
    "ordered scan": LINEAR,
    "gc": LINEAR,
    "verify": LINEAR,
    "export": LINEAR,
    "import": LINEAR,
}
_CODE = textwrap.dedent("""
    import random, sys, time
    from pathlib import Path
    import agola_core
    from agola_core import Options, Put
    from agola_core.datamanager import Compression

    operation, path, objects, export = sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
    started = time.perf_counter()
    with agola_core.open(path, data_types=["object"], options=Options(background=False)) as dm:
        if operation != "open":
            started = time.perf_counter()
        if operation == "point read":
            dm.read_object("object", f"object-{random.randrange(objects):09}")
        elif operation == "ordered scan":
            assert sum(1 for _ in dm.list_objects("object")) == objects
        elif operation.startswith("checkpoint"):
            names = random.sample(range(objects), 1000)
            dm.write_wal([Put("object", f"object-{number:09}", random.randbytes(1024)) for number in names])
            dm.sync()
            started = time.perf_counter()
            dm.checkpoint(force=True)
        elif operation == "gc":
            dm.collect_garbage()
        elif operation == "verify":
            assert dm.verify() == []
        elif operation == "export":
            with export.open("wb") as file:
                dm.export(file, compression=Compression.of("x.zst"))
        elif operation == "import":
            with export.open("rb") as file:
                dm.import_(file)
        seconds = time.perf_counter() - started
    moved = dict(line.split(": ") for line in open("/proc/self/io").read().splitlines())
    status = open("/proc/self/status").read()  # a child's ru_maxrss begins with its parent's
    print(seconds, int(status.split("VmHWM:")[1].split()[0]) / 1024, moved["rchar"], moved["wchar"])
""")


class Taken(NamedTuple):
    """What an operation took."""

    seconds: float
    peak: float
    read: float
    written: float


def run() -> list[Line]:
    tenth = max(10_000, OBJECTS // 10)
    lines = []
    for operation, most in OPERATIONS.items():
        turns = [(_take(operation, OBJECTS), _take(operation, tenth)) for _ in range(ROUNDS)]
        many, few = zip(*turns, strict=True)
        name = f"{operation}, {OBJECTS:,}"
        print(f"scale: {name}: {many[-1].read / 1e6:,.0f} MB read, {many[-1].written / 1e6:,.0f} MB written")
        seconds = [taken.seconds for taken in many], [taken.seconds for taken in few]
        lines.append(ratio(f"{name} / {tenth:,} objects", *seconds, most, "s", at_most=True))
        peaks = [taken.peak for taken in many], [taken.peak for taken in few]
        lines.append(limit(f"{name} peak memory / {tenth:,} objects", *peaks, PEAK_MIB, "MiB"))
    return lines


def _take(operation: str, objects: int) -> Taken:
    path = directory() / f"imported-{objects}" if operation == "import" else store(objects)
    arguments = [operation, str(path), str(objects), str(directory() / f"scale-{objects}.zst")]
    done = subprocess.run([sys.executable, "-c", _CODE, *arguments], check=True, capture_output=True, text=True)
    return Taken(*map(float, done.stdout.split()))
