"""The command line in processes of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def agola_core_command(*arguments: object) -> Iterator[tuple[str, int]]:
    """Run `agola-core`; yield the first URL that it prints, and the process's id; end it afterwards."""
    command = [sys.executable, "-m", "agola_cli.main", *map(str, arguments)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if found := re.search(r"http://[\w.:\[\]]+", line):
                yield found[0], process.pid
                break
        else:
            raise RuntimeError(f"{' '.join(command)} ended")
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


def processor_seconds(pid: int) -> float:
    """Return the seconds that a process has spent on processors, its ended children's not among them."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
