"""Export and import of a store beside `gzip -1` of the same bytes, and the memory that they take."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from bench import bigstore
from bench.result import Limit, Result

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


def run() -> list[Result | Limit]:
    objects = bigstore.OBJECTS
    store, directory = bigstore.store(objects), bigstore.directory()
    plain, packed = directory / "export", directory / "export.gz"
    small = bigstore.store(max(10_000, objects // 10 // 10_000 * 10_000))
    results: list[Result | Limit] = []
    seconds, _ = _ours("export", store, plain)
    size = plain.stat().st_size / 1e6
    copied = _timed(lambda: _copy(plain, directory / "copy"))
    results.append(Result(f"export plain {objects:,} / file copy", size / seconds, size / copied, 0, "MB/s"))
    gzipped = _timed(lambda: _gzip(plain, directory / "gzipped"))
    for target in (packed, directory / "export.zst"):
        seconds, peak = _ours("export", store, target)
        name = f"export {target.suffix} {objects:,}"
        results.append(Result(f"{name} / gzip -1", size / seconds, size / gzipped, 1, "MB/s"))
        results.append(_memory(name, peak, _ours("export", small, directory / f"small{target.suffix}")[1]))
    empty = directory / "imported"
    for source in (packed, directory / "export.zst"):
        seconds, peak = _ours("import", empty, source)
        name = f"import {source.suffix} {objects:,}"
        results.append(Result(f"{name} / gzip -1", size / seconds, size / gzipped, 1, "MB/s"))
        results.append(_memory(name, peak, _ours("import", empty, directory / f"small{source.suffix}")[1]))
    return results


def _memory(name: str, peak: float, tenth: float) -> Limit:
    """Return the peak beside the one with a tenth of the objects."""
    return Limit(f"{name} peak memory / of a tenth", peak, tenth, _PEAK_MB, "MB")


def _ours(verb: str, store: Path, file: Path) -> tuple[float, float]:
    command = [sys.executable, "-c", _OURS, verb, str(store), str(file)]
    seconds, peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(seconds), float(peak)


def _timed(work) -> float:
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
