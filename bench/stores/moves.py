"""Export and import of a store beside `gzip -1` of the same bytes, and the memory that they take.

A tenth of the other benches' objects: rates and memory are the same with ten times as many.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

from bench.result import Line, limit, ratio
from bench.stores import bigstore

OBJECTS = max(10_000, bigstore.OBJECTS // 10)  # gzip takes 30 s for 1,000,000, five times three in turn
ROUNDS = 5
_PEAK_MB = 150
_OURS = textwrap.dedent("""
    import os, sys, time
    import agola_core
    from agola_core import Options
    from agola_core.datamanager import Compression

    verb, store, name = sys.argv[1:]
    with agola_core.open(store, data_types=["object"], options=Options(background=False)) as dm:
        started = time.perf_counter()
        if verb == "export":
            with open(name, "wb") as file:
                dm.export(file, compression=Compression.of(name))
                file.flush()
                os.fsync(file.fileno())
        else:
            with open(name, "rb") as file:
                dm.import_(file)
        seconds = time.perf_counter() - started
    status = open("/proc/self/status").read()  # a child's ru_maxrss begins with its parent's
    print(seconds, int(status.split("VmHWM:")[1].split()[0]) / 1024)
""")


def run() -> list[Line]:
    objects = OBJECTS
    store, directory = bigstore.store(objects), bigstore.directory()
    plain, packed, zipped = directory / "export", directory / "export.gz", directory / "export.zst"
    _ours("export", store, plain)
    size = plain.stat().st_size / 1e6
    rates: dict[str, list[float]] = {}
    peaks: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        rates.setdefault("copy", []).append(size / _timed(lambda: _copy(plain, directory / "copied")))
        rates.setdefault("gzip", []).append(size / _timed(lambda: _gzip(plain, directory / "gzipped")))
        for verb, where, file in (
            ("export", store, plain),
            ("export", store, packed),
            ("export", store, zipped),
            ("import", directory / "imported", packed),
            ("import", directory / "imported", zipped),
        ):
            seconds, peak = _ours(verb, where, file)
            rates.setdefault(f"{verb}{file.suffix}", []).append(size / seconds)
            peaks.setdefault(f"{verb}{file.suffix}", []).append(peak)
    lines = [ratio(f"export plain {objects:,} / file copy", rates["export"], rates["copy"], 0, "MB/s")]
    for name in ("export.gz", "export.zst", "import.gz", "import.zst"):
        lines.append(ratio(f"{name} {objects:,} / gzip -1", rates[name], rates["gzip"], 1.5, "MB/s"))
        lines.append(limit(f"{name} peak memory / of a tenth", peaks[name], _peak_of_tenth(name), _PEAK_MB, "MB"))
    return lines


def _peak_of_tenth(name: str) -> float:
    verb, suffix = name.split(".")
    small, file = bigstore.store(max(10_000, OBJECTS // 10)), bigstore.directory() / f"small.{suffix}"
    peak = _ours("export", small, file)[1]
    return peak if verb == "export" else _ours("import", bigstore.directory() / "imported", file)[1]


def _ours(verb: str, store: Path, file: Path) -> tuple[float, float]:
    command = [sys.executable, "-c", _OURS, verb, str(store), str(file)]
    seconds, peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(seconds), float(peak)


def _timed(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    descriptor = os.open(target, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _gzip(source: Path, target: Path) -> None:
    with target.open("wb") as file:
        subprocess.run(["gzip", "-1", "-c", str(source)], stdout=file, check=True)
        os.fsync(file.fileno())
