"""idle: what `serve` takes while it has nothing to do, with SQLite and with etcd; the packages of the base install.

Wake-ups are the voluntary context switches of all its threads: a commit that waits for the disk has some.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.metadata import requires
from pathlib import Path

from agola_pytest.servers.etcd import EtcdMissingError, start_etcd
from bench.machine import workplace
from bench.processes import agola_core_command
from bench.result import Line, limit

LIMIT_MIB = 50.0
LIMIT_PERCENT = 0.3
LIMIT_PACKAGES = 5
ROUNDS = 5
_SETTLED_SECONDS = 10.0
_ROUND_SECONDS = 6.0
_SWITCHES = re.compile(r"^voluntary_ctxt_switches:\s+(\d+)", re.MULTILINE)


def run() -> list[Line]:
    """Measure both coordinators, one after the other."""
    packages = len(_packages("agola-core")) - 1
    with tempfile.TemporaryDirectory(dir=workplace()) as directory, ExitStack() as stack:
        root = Path(directory)
        lines = _idle("SQLite", "--data-dir", root / "sqlite")
        try:
            etcd = stack.enter_context(start_etcd(root / "etcd"))
        except EtcdMissingError as error:
            print(f"idle with etcd is left out: {error}", file=sys.stderr)
        else:
            lines += _idle("etcd", "--data-dir", root / "served", "--coordinator", etcd.url("bench"))
    return [*lines, limit("packages of the base install / itself", packages, 1, LIMIT_PACKAGES, "packages")]


def _idle(name: str, *options: object) -> list[Line]:
    with agola_core_command("serve", "--no-tokens", "--port", "0", *options) as (_, pid):
        time.sleep(_SETTLED_SECONDS)
        percents, wakes = zip(*_rounds(pid), strict=True)
        memory, threads = _resident(pid), len(_spent(pid))
    return [
        limit(f"idle serve on {name}, processor / 1 %", percents, 1, LIMIT_PERCENT, "% of a core"),
        limit(f"idle serve on {name}, memory / idle Python", memory, _idle_python(), LIMIT_MIB, "MiB"),
        limit(f"idle serve on {name}, wake-ups of all threads / threads", wakes, threads, threads, "per second"),
    ]


def _rounds(pid: int) -> Iterator[tuple[float, float]]:
    """Yield percents of a core, and wake-ups a second."""
    before = _spent(pid)
    for _ in range(ROUNDS):
        time.sleep(_ROUND_SECONDS)
        after = _spent(pid)
        yield (
            sum(after[thread][0] - before.get(thread, (0, 0))[0] for thread in after) / _ROUND_SECONDS / 1e7,
            sum(after[thread][1] - before.get(thread, (0, 0))[1] for thread in after) / _ROUND_SECONDS,
        )
        before = after


def _spent(pid: int) -> dict[str, tuple[int, int]]:
    """Return, for each thread, its nanoseconds on a processor and its voluntary switches."""
    spent = {}
    for thread in Path(f"/proc/{pid}/task").iterdir():
        found = _SWITCHES.search((thread / "status").read_text())
        assert found is not None
        spent[thread.name] = int((thread / "schedstat").read_text().split()[0]), int(found[1])
    return spent


def _idle_python() -> float:
    command = [sys.executable, "-c", "import os; os.write(1, b'.'); os.read(0, 1)"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        return _resident(process.pid)


def _resident(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _packages(name: str, seen: frozenset[str] = frozenset()) -> frozenset[str]:
    """Return a package and what it needs, without extras, all the way down."""
    seen |= {name}
    for requirement in requires(name) or []:
        needed = re.split(r"[^\w.-]", requirement)[0].lower()
        if "extra ==" not in requirement and needed not in seen:
            seen = _packages(needed, seen)
    return seen
