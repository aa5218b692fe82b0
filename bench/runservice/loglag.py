"""log-lag: from a step's write of a line to a follower of `GET /logs`, over HTTP, beside the same line through a pipe.

With the executor inside `serve`, and with one in a process of its own. The step prints the time of each line, at
intervals that no poll is in phase with.
"""

from __future__ import annotations

import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import httpx2

from bench.machine import workplace
from bench.processes import agola_core_command
from bench.result import Line, limit

LINES = 100
ROUNDS = 5
LIMIT_MS = 50.0
_WRITER = f"""
import random, time
for _ in range({LINES}):
    time.sleep(random.uniform(0.005, 0.035))
    print(repr(time.time()), flush=True)
"""
_COMMAND = f"{shlex.quote(sys.executable)} -c {shlex.quote(_WRITER)}"


def run() -> list[Line]:
    with tempfile.TemporaryDirectory(dir=workplace()) as directory:
        pipe = [_percentiles(_piped()) for _ in range(ROUNDS)]
        inside = _measure(Path(directory, "inside"), own_executor=False)
        apart = _measure(Path(directory, "apart"), own_executor=True)
    return [
        limit(f"log-lag, {where}, {figure} / a pipe", _column(times, at), _column(pipe, at), LIMIT_MS, "ms")
        for where, times in (("executor in serve", inside), ("own executor", apart))
        for at, figure in enumerate(("median", "99th percentile"))
    ]


def _column(rows: list[tuple[float, float]], index: int) -> list[float]:
    return [row[index] for row in rows]


def _percentiles(times: list[float]) -> tuple[float, float]:
    assert len(times) == LINES, len(times)
    return statistics.median(times), statistics.quantiles(times, n=100, method="inclusive")[98]


def _late(lines: Iterable[str]) -> list[float]:
    """Return by how many milliseconds each line came after the time that it names."""
    return [1000 * (time.time() - float(line)) for line in lines]


def _piped() -> list[float]:
    with subprocess.Popen([sys.executable, "-c", _WRITER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        return _late(process.stdout)


def _measure(directory: Path, *, own_executor: bool) -> list[tuple[float, float]]:
    options = ["--no-executor"] if own_executor else []
    with ExitStack() as stack:
        serve = agola_core_command("serve", "--no-tokens", "--port", 0, "--data-dir", directory / "serve", *options)
        url, _ = stack.enter_context(serve)
        if own_executor:
            executor = agola_core_command("executor", "--url", url, "--directory", directory / "executor")
            stack.enter_context(executor)
        client = stack.enter_context(httpx2.Client(base_url=f"{url}/api/v1alpha", timeout=60))
        return [_percentiles(_followed(client, f"lag-{turn}")) for turn in range(ROUNDS)]


def _followed(client: httpx2.Client, task_id: str) -> list[float]:
    steps = [{"type": "run", "name": "one", "command": _COMMAND}]
    tasks = {task_id: {"id": task_id, "name": task_id, "depends": {}, "steps": steps}}
    answer = client.post("/runs", json={"name": "lag", "group": "/project/lag", "run_config_tasks": tasks})
    run_id = answer.raise_for_status().json()["run"]["id"]
    asked = {"runid": run_id, "taskid": task_id, "step": 0, "follow": ""}
    with client.stream("GET", "/logs", params=asked) as log:
        return _late(log.raise_for_status().iter_lines())
