"""open: importing the library, opening a large store, recovering one from its storage alone. Whole processes."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import agola_core
from agola_core import Options, Put
from bench.result import Line, limit, ratio
from bench.stores.bigstore import OBJECTS, directory, store

ROUNDS = 5
WALS = 10_000
_IMPORT = "import time; started = time.perf_counter(); import {}; print(time.perf_counter() - started)"
_OPEN = textwrap.dedent("""
    import sys, time, agola_core
    from agola_core.datamanager.sstable.manifest import read_manifest
    options = agola_core.Options(background=False)
    started = time.perf_counter()
    with agola_core.open(sys.argv[1], data_types=["object"], options=options) as dm:
        dm.read_object("object", sys.argv[2])
        opened = time.perf_counter() - started
        from agola_core.datamanager.format.control import read_control
        path = read_control(dm.coordinator).checkpoint.path
        started = time.perf_counter()
        read_manifest(dm.storage, path)
        print(opened, time.perf_counter() - started)
""")


def run() -> list[Line]:
    imports: dict[str, list[float]] = {name: [] for name in ("agola_core", "fsspec")}
    for name in imports:
        _measure(_IMPORT.format(name))  # compiles it
    for _ in range(ROUNDS):
        for name, times in imports.items():
            times.append(_measure(_IMPORT.format(name))[0])
    path = store(OBJECTS)
    opened, manifest = _columns([_measure(_OPEN, path, "object-000000001") for _ in range(ROUNDS)])
    recovered, _ = _columns([_recover(path, "object-000000001") for _ in range(ROUNDS)])
    wals = _many_wals()
    replayed, _ = _columns([_recover(_copy(wals), "1") for _ in range(ROUNDS)])
    return [
        ratio(
            "import agola_core / import fsspec",
            imports["agola_core"],
            imports["fsspec"],
            1.5,
            "seconds",
            at_most=True,
        ),
        limit(f"open {OBJECTS:,} objects and read one / manifest", opened, manifest, 100, "ms"),
        limit(f"recover {OBJECTS:,} objects from storage / manifest", recovered, manifest, 1000, "ms"),
        limit(f"recover {WALS:,} WALs from storage / manifest", replayed, manifest, 5000, "ms"),
    ]


def _measure(code: str, *arguments: object) -> list[float]:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    return [float(figure) for figure in done.stdout.split()]


def _columns(rows: list[list[float]]) -> list[list[float]]:
    """Return the figures of each kind, in milliseconds."""
    return [[1000 * figure for figure in column] for column in zip(*rows, strict=True)]


def _recover(path: Path, object_id: str) -> list[float]:
    for file in path.glob("coordinator.db*"):
        file.unlink()
    return _measure(_OPEN, path, object_id)


def _many_wals() -> Path:
    """Return a store of WALs that no checkpoint has, committed by many threads."""
    path = directory() / "wals"
    options = Options(background=False, checkpoint_wals=10 * WALS)
    with (
        agola_core.open(path, data_types=["object"], options=options) as dm,
        ThreadPoolExecutor(16) as pool,
    ):
        for start in range(0, WALS, 500):
            numbers = range(start, start + 500)
            list(pool.map(lambda number: dm.write_wal([Put("object", f"{number % 5000}", b"x" * 1000)]), numbers))
            dm.sync()
    return path


def _copy(path: Path) -> Path:
    """Return a copy: a recovery leaves a checkpoint behind."""
    copy = path.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    return shutil.copytree(path, copy)
