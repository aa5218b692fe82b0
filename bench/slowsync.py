"""Runs a bench twice, each time in a process of its own: on the disk as it is, and with 1 ms added to every sync.

A small library that sleeps in fsync and fdatasync is preloaded for the second; ours and the reference wait alike.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from bench.result import Line

ADDED_MS = 1.0
SLOWED = f"+ {ADDED_MS:g} ms"
_SOURCE = Path(__file__).with_name("slowsync.c")
_LIBRARY = Path(__file__).parent / "results" / "slowsync.so"
_DELAY = "SLOW_SYNC_US"


def is_slowed() -> bool:
    """Return whether this process waits longer for each sync."""
    return _DELAY in os.environ


def both(module: str) -> list[Line]:
    """Return the lines of a module's `main`: as the disk is, then slowed."""
    lines = _child(module, {})
    library = _compiled()
    if library is None:
        print(f"{module}: no C compiler (cc) is found, so the lines with {SLOWED} are left out", file=sys.stderr)
        return lines
    slowed = {"LD_PRELOAD": str(library), _DELAY: str(round(1000 * ADDED_MS))}
    return lines + [msgspec.structs.replace(line, name=f"{line.name}, {SLOWED}") for line in _child(module, slowed)]


def main(measure: Callable[[], list[Line]]) -> None:
    """Be the process that measures."""
    sys.stdout.buffer.write(msgspec.json.encode(measure()))


def _child(module: str, environment: dict[str, str]) -> list[Line]:
    command = [sys.executable, "-m", module]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env={**os.environ, **environment})
    return msgspec.json.decode(done.stdout, type=list[Line])


def _compiled() -> Path | None:
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    if not _LIBRARY.exists() or _LIBRARY.stat().st_mtime < _SOURCE.stat().st_mtime:
        _LIBRARY.parent.mkdir(exist_ok=True)
        made = _LIBRARY.with_suffix(f".{os.getpid()}")
        subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", made, _SOURCE, "-ldl"], check=True)
        made.replace(_LIBRARY)
    return _LIBRARY
