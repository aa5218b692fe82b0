"""Which machine the figures are of."""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import apsw


def describe() -> dict[str, str]:
    """Return the facts about this machine that a figure depends on."""
    return {
        "processor": f"{_model()}, {len(os.sched_getaffinity(0))} cores",
        "load at the start": f"{os.getloadavg()[0]:.1f}",
        "sync of the disk": f"{1000 * statistics.median(sync_seconds()):.2f} ms (median of 100 fdatasync of 1 KiB)",
        "versions": f"agola-core {version('agola-core')}, Python {platform.python_version()}, "
        f"SQLite {apsw.sqlite_lib_version()}, Linux {platform.release()}",
        "date": time.strftime("%Y-%m-%d"),
    }


def sync_seconds(times: int = 100) -> Iterator[float]:
    """Yield how long syncs of a small file take, in the directory where benches make theirs."""
    with tempfile.NamedTemporaryFile(dir=workplace(), buffering=0) as file:
        for _ in range(times):
            file.write(b"x" * 1024)
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            yield time.perf_counter() - started


def _model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def workplace() -> Path:
    """Return the directory in which benches make theirs: on the disk of the checkout, and ignored by git."""
    path = Path(__file__).parent / "results"
    path.mkdir(exist_ok=True)
    return path
