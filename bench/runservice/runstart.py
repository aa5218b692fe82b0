"""run-start: `agola-core run` of one `true` step, from Enter to the prompt, beside `python -c pass`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.machine import workplace
from bench.result import Line, limit

ROUNDS = 15
LIMIT_SECONDS = 0.25
CONFIG = '{"runs": [{"name": "one", "tasks": [{"name": "one", "steps": [{"run": "true"}]}]}]}'


def run() -> list[Line]:
    ours, bare = [], []
    with tempfile.TemporaryDirectory(dir=workplace()) as directory:
        config = Path(directory, "run.json")
        config.write_text(CONFIG)
        command = [
            str(Path(sys.executable).with_name("agola-core")),
            "run",
            str(config),
            "--data-dir",
            f"{directory}/data",
        ]
        _seconds(command)  # makes the store, and compiles what it imports
        for _ in range(ROUNDS):
            ours.append(_seconds(command))
            bare.append(_seconds([sys.executable, "-c", "pass"]))
    return [limit("run-start / python -c pass", ours, bare, LIMIT_SECONDS, "s")]


def _seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started
