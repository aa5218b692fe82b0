"""size: the memory of an idle `serve`, beside a bare interpreter's; the packages that the base install brings."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from importlib.metadata import requires
from pathlib import Path

from bench.processes import agola_core_command
from bench.result import Line, limit

LIMIT_MIB = 80.0
LIMIT_PACKAGES = 5
_SETTLED_SECONDS = 10.0


def run() -> list[Line]:
    """Measure both."""
    return [
        limit("idle serve / idle Python", _idle_serve(), _idle_python(), LIMIT_MIB, "MiB"),
        limit("packages of the base install / itself", len(_packages("agola-core")) - 1, 1, LIMIT_PACKAGES, "packages"),
    ]


def _idle_serve() -> float:
    with (
        tempfile.TemporaryDirectory(prefix="agola-bench-") as directory,
        agola_core_command("serve", "--no-tokens", "--port", "0", "--data-dir", directory) as (url, pid),
    ):
        with urllib.request.urlopen(f"{url}/") as answer:
            answer.read()
        time.sleep(_SETTLED_SECONDS)
        return _resident(pid)


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
