"""tasks: a run of 500 independent `true` tasks on one host executor, beside the same processes started bare.

Twice: on the disk of the checkout, and on tmpfs.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from agola_core.executor import ExecutorOptions
from agola_core.runservice.model.requests import RunCreateRequest
from agola_core.runservice.model.types import RunConfigTask, RunResult, RunStep
from agola_core.standalone import Standalone
from bench.machine import workplace
from bench.result import Line, limit, ratio

TASKS = 500
ROUNDS = 5
AT_ONCE = 16
GOAL_MS = 2.5
RATE_GOAL = 0.2
_MEMORY = Path("/dev/shm")


def run() -> list[Line]:
    lines = _measured("tasks", workplace())
    if _MEMORY.is_dir():  # where files cost next to nothing, what is left is the program's own
        lines += _measured("tasks on tmpfs", _MEMORY)
    return lines


def _measured(name: str, place: Path) -> list[Line]:
    ours, bare = [], []
    with tempfile.TemporaryDirectory(dir=place, prefix="agola-bench-") as directory:
        script = Path(directory, "command")
        script.write_text("true\n")
        options = ExecutorOptions(active_tasks_limit=AT_ONCE)
        with Standalone(Path(directory, "data"), executor=options) as standalone:
            for turn in range(ROUNDS):
                bare.append(_bare(script))
                ours.append(_ours(standalone, turn))
    cost = limit(f"{name}: processor time of one / bare process", _column(ours, 1), _column(bare, 1), GOAL_MS, "ms")
    return [cost, ratio(f"{name} / bare processes", _column(ours, 0), _column(bare, 0), RATE_GOAL)]


def _column(rows: list[tuple[float, float]], index: int) -> list[float]:
    return [row[index] for row in rows]


def _bare(script: Path) -> tuple[float, float]:
    started, processor = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda _: subprocess.run(["/bin/sh", "-e", script], check=True), range(TASKS)))
    return TASKS / (time.perf_counter() - started), _each(processor)


def _ours(standalone: Standalone, turn: int) -> tuple[float, float]:
    tasks = {
        name: RunConfigTask(id=name, name=name, steps=[RunStep(command="true")])
        for name in (f"t{turn}-{number}" for number in range(TASKS))
    }
    service = standalone.service
    started, processor = time.perf_counter(), time.process_time()
    run = service.create_run(RunCreateRequest(run_config_tasks=tasks, group=f"/project/p/branch/b{turn}")).run
    while not run.phase.is_finished:
        run = service.wait_change(run, 60.0)
    rate = TASKS / (time.perf_counter() - started)
    assert run.result is RunResult.SUCCESS
    service.wait_archived([run.id], 300.0)
    return rate, _each(processor)


def _each(since: float) -> float:
    """Return this process's milliseconds on the processor for each task; its children's are not in them."""
    return 1000 * (time.process_time() - since) / TASKS
