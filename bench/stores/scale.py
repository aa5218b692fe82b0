"""scale: each operation on a store of many objects of 1 KiB, in a process of its own, beside a tenth of the objects.

`SCALE` says how many objects (1,000,000), `STORAGE` where they are: posix, or s3, a server of this machine. Opening,
recovering, a point read, 1,000 of them when all indexes are known, and a checkpoint of 1,000 changes are to take the
same time as with a tenth of the objects, the others at most twelve times as much; nothing is to take more memory than
150 MiB; export and import are to be faster than `gzip -1` is with the same bytes. What each turn takes is printed when
it ends.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bench import options
from bench.machine import workplace
from bench.result import Line, limit, ratio
from bench.stores.bigstore import OBJECTS as DEFAULT_OBJECTS
from bench.stores.bigstore import directory
from bench.stores.scale_operation import Taken, Target

OBJECTS = options.number("SCALE", DEFAULT_OBJECTS, least=1000)
STORAGE = options.choice("STORAGE", ("posix", "s3"))

ROUNDS = 5
SLOW_ROUNDS = 5 if OBJECTS <= 1_000_000 and STORAGE == "posix" else 1
PEAK_MIB = 150
FLAT, LINEAR = 1.5, 12.0
OPERATIONS = {
    "open": (FLAT, ROUNDS),
    "recover from storage": (FLAT, ROUNDS),
    "point read": (FLAT, ROUNDS),
    "1,000 point reads": (LINEAR, ROUNDS),
    "1,000 point reads, indexes known": (FLAT, ROUNDS),
    "checkpoint of 1,000 changes": (FLAT, ROUNDS),
    "gc": (LINEAR, ROUNDS),
    "ordered scan": (LINEAR, SLOW_ROUNDS),
    "verify": (LINEAR, SLOW_ROUNDS),
    "export": (LINEAR, SLOW_ROUNDS),
    "import": (LINEAR, SLOW_ROUNDS),
}
LIMITS_MS = {"open": 100.0, "recover from storage": 1000.0}
_DISK_BYTES = 4300
"""Bytes of disk for each object: the store, its export and a store of that, and a tenth of these."""
_SAMPLE = 100_000
_LINE_BYTES = 1424
"""Bytes of an object in a plain export, about."""


def run() -> list[Line]:
    _check_disk()
    tenth = max(1000, OBJECTS // 10)
    with _storage() as place:
        many, few = _made(place, OBJECTS), _made(place, tenth)
        os.sync()  # no turn waits for the disk to take what was just made
        turns = {
            operation: [(_take(operation, many, turn), _take(operation, few, turn)) for turn in range(rounds)]
            for operation, (_, rounds) in OPERATIONS.items()
        }
        gzip = _gzip_rate(few)
    lines = []
    for operation, pairs in turns.items():
        name = f"{operation}, {STORAGE} {OBJECTS:,}"
        ours, others = [taken for taken, _ in pairs], [taken for _, taken in pairs]
        seconds = [taken.seconds for taken in ours], [taken.seconds for taken in others]
        line = ratio(f"{name} / {tenth:,}", *seconds, OPERATIONS[operation][0], "s", at_most=True)
        lines.append(msgspec.structs.replace(line, processor=_us(ours), reference_processor=_us(others)))
        peaks = [taken.peak for taken in ours], [taken.peak for taken in others]
        lines.append(limit(f"{name} peak memory / {tenth:,}", *peaks, PEAK_MIB, "MiB"))
        if operation in LIMITS_MS:
            own, reference = ([1000 * value for value in column] for column in seconds)
            lines.append(limit(f"{name} time / {tenth:,}", own, reference, LIMITS_MS[operation], "ms"))
        if operation in ("export", "import"):
            rates = [OBJECTS * _LINE_BYTES / 1e6 / taken.seconds for taken in ours]
            lines.append(ratio(f"{name} / gzip -1", rates, gzip, 1.0, "MB/s"))
    return lines


def _us(turns: list[Taken]) -> list[float]:
    return [1e6 * taken.processor for taken in turns]


def _check_disk() -> None:
    needed, free = OBJECTS * _DISK_BYTES, shutil.disk_usage(workplace()).free
    if free < needed:
        raise SystemExit(
            f"SCALE={OBJECTS}: {needed / 1e9:.1f} GB of disk are needed, {free / 1e9:.1f} GB are free in {workplace()}"
        )


@contextmanager
def _storage() -> Iterator[str]:
    """Yield a URL of a storage, with `{}` for the name of a store; run its server while the block runs."""
    if STORAGE == "posix":
        yield f"posix://{directory()}/scale-{{}}/storage"
        return
    from agola_pytest.servers.s3 import S3Program, missing_reason, start_s3

    program = S3Program.RCLONE if missing_reason(S3Program.EXTERNAL) else S3Program.EXTERNAL
    with start_s3(directory() / "s3", program) as server:
        yield server.url("NAME").replace("NAME", f"{time.strftime('%H%M%S')}-{{}}")


def _made(place: str, objects: int) -> Target:
    """Return a store of so many objects in one run, as an import leaves it."""
    target = _target(place, str(objects), objects)
    _show("make", objects, _run("make", target))
    return target


def _target(place: str, name: str, objects: int) -> Target:
    own = directory() / f"scale-{name}"
    own.mkdir(exist_ok=True)
    return Target(place.format(name), f"{own}/coordinator.db", objects, f"{directory()}/scale-{objects}.zst")


def _take(operation: str, store: Target, turn: int) -> Taken:
    target = store
    if operation == "recover from storage":
        for file in Path(store.coordinator).parent.glob("coordinator.db*"):
            file.unlink()
    elif operation == "import":
        target = _imported(store, turn)
    taken = _run(operation, target)
    _show(operation, store.objects, taken)
    return taken


def _imported(store: Target, turn: int) -> Target:
    """Return an empty store beside another one; what an earlier turn imported is removed where that is a directory."""
    before, name, after = store.storage.rpartition(f"-{store.objects}")
    if STORAGE == "posix":
        shutil.rmtree(directory() / f"scale-{store.objects}-imported{turn - 1}", ignore_errors=True)
    coordinator = Path(store.coordinator).with_name(f"imported-{turn}.db")
    return msgspec.structs.replace(store, storage=f"{before}{name}-imported{turn}{after}", coordinator=str(coordinator))


def _run(operation: str, target: Target) -> Taken:
    command = [sys.executable, "-m", "bench.stores.scale_operation", operation, msgspec.json.encode(target).decode()]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return msgspec.json.decode(done.stdout, type=Taken)


def _show(operation: str, objects: int, taken: Taken) -> None:
    requests = ", ".join(f"{count:,} {method}" for method, count in sorted(taken.requests.items()))
    print(
        f"scale: {operation}, {STORAGE} {objects:,}: {taken.seconds:.4g} s, {taken.processor:.4g} s of processor time,"
        f" {taken.peak:.0f} MiB, {taken.read / 1e6:,.1f} MB read, {taken.written / 1e6:,.1f} MB written"
        + (f"; {requests}" if requests else ""),
        flush=True,
    )


def _gzip_rate(target: Target) -> list[float]:
    """Return the MB of a plain export that `gzip -1` takes in a second, in some turns, by a sample of it."""
    from agola_core.datamanager.transfer.parallel_compression import decompress_stream

    sample, rates = directory() / "sample", []
    with Path(target.export).open("rb") as file, sample.open("wb") as plain:
        source = decompress_stream(file)
        for _ in range(min(_SAMPLE, target.objects) * _LINE_BYTES >> 20):
            plain.write(source.read(1 << 20))
    for _ in range(ROUNDS):
        started = time.perf_counter()
        with (directory() / "sample.gz").open("wb") as packed:
            subprocess.run(["gzip", "-1", "-c", str(sample)], stdout=packed, check=True)
        rates.append(sample.stat().st_size / 1e6 / (time.perf_counter() - started))
    return rates
