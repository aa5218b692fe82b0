"""task-hop: from the end of one task to the start of the next, in a chain of `true` tasks on a host executor.

In one process, and through HTTP between a service and an executor in processes of their own. The reference is
fork, exec and wait of `true` from Python.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import httpx2
import msgspec

from agola_core.runservice.model.types import Run, RunResult
from agola_core.standalone import Standalone
from bench.machine import workplace
from bench.processes import agola_core_command
from bench.result import Line, limit
from bench.runservice.activeruns import chain

TASKS = 100
ROUNDS = 5
LIMIT_MS = 8.0


def run() -> list[Line]:
    with tempfile.TemporaryDirectory(dir=workplace()) as directory:
        bare, inside, over_http = [], [], []
        for turn in range(ROUNDS):
            bare.append(_bare())
            inside.append(_in_process(Path(directory, f"inside-{turn}")))
            over_http.append(_over_http(Path(directory, f"http-{turn}")))
    return [
        limit("task-hop, one process / bare true", inside, bare, LIMIT_MS, "ms"),
        limit("task-hop, over HTTP / bare true", over_http, bare, LIMIT_MS, "ms"),
    ]


def _bare() -> float:
    times = []
    for _ in range(TASKS):
        started = time.perf_counter()
        subprocess.run(["true"], check=True)
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times)


def _in_process(directory: Path) -> float:
    with Standalone(directory) as standalone:
        service = standalone.service
        state = service.create_run(chain("hop", TASKS)).run
        while not state.phase.is_finished:
            state = service.wait_change(state, 60.0)
        return _median_hop(state)


def _over_http(directory: Path) -> float:
    serve = ("serve", "--no-tokens", "--port", "0", "--no-executor", "--data-dir", directory / "serve")
    with (
        agola_core_command(*serve) as (url, _),
        agola_core_command("executor", "--url", url, "--directory", directory / "executor"),
        httpx2.Client(base_url=f"{url}/api/v1alpha") as client,
    ):
        answer = client.post("/runs", content=msgspec.json.encode(chain("hop", TASKS)))
        run_id = answer.raise_for_status().json()["run"]["id"]
        while True:
            answer = client.get(f"/runs/{run_id}").raise_for_status()
            state = msgspec.convert(answer.json()["run"], Run)
            if state.phase.is_finished:
                return _median_hop(state)
            time.sleep(0.5)


def _median_hop(state: Run) -> float:
    assert state.result is RunResult.SUCCESS, state.result
    tasks = [state.tasks[f"hop-{number}"] for number in range(TASKS)]
    hops = [
        (after.start_time - before.end_time).total_seconds()
        for before, after in pairwise(tasks)
        if after.start_time and before.end_time
    ]
    assert len(hops) == TASKS - 1
    return 1000 * statistics.median(hops)
