"""checkpoint-amp: what a checkpoint of 1,000 random puts writes into a large store, and whether its time follows
the change and not the store, nor the number of its data files."""

from __future__ import annotations

import random
import time
from pathlib import Path

import agola_core
from agola_core import Put
from bench.result import Line, limit, ratio
from bench.stores import manyfiles
from bench.stores.bigstore import OBJECTS, OPTIONS, object_id, payload, store

PUTS = 1000
CHECKPOINTS = 12


def run() -> list[Line]:
    small = max(OBJECTS // 10, 10_000)
    amplification, seconds = _checkpoints(OBJECTS)
    _, small_seconds = _checkpoints(small)
    return [
        limit(f"checkpoint-amp, {OBJECTS:,} objects: bytes written / changed", amplification, 1, 10, "x"),
        ratio(
            f"checkpoint time, {OBJECTS:,} / {small:,} objects", seconds, small_seconds, 1.5, "seconds", at_most=True
        ),
        *manyfiles.run(),
    ]


def _checkpoints(objects: int) -> tuple[float, list[float]]:
    """Return the bytes written for each byte changed, over several checkpoints and their merges, and their seconds."""
    path = store(objects)
    generator = random.Random(2)
    changed, written, times = 0, 0, []
    with agola_core.open(path, data_types=["object"], options=OPTIONS) as dm:
        for _ in range(CHECKPOINTS):
            puts = [Put("object", object_id(generator.randrange(objects)), payload(generator)) for _ in range(PUTS)]
            dm.write_wal(puts)
            dm.sync()
            before = _files(path)
            started = time.perf_counter()
            dm.checkpoint(force=True)
            times.append(time.perf_counter() - started)
            changed += sum(len(put.id) + len(put.data) for put in puts)
            written += sum(size for name, size in _files(path).items() if name not in before)
    return written / changed, times


def _files(path: Path) -> dict[str, int]:
    return {str(file): file.stat().st_size for file in (path / "storage/data").rglob("*") if file.is_file()}
