"""tasks: a run of 1,000 independent `true` tasks on one host executor, beside the same processes started bare."""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from agola_core.executor import ExecutorOptions
from agola_core.runservice.model.requests import RunCreateRequest
from agola_core.runservice.model.types import RunConfigTask, RunResult, RunStep
from agola_core.standalone import Standalone
from bench.result import Result

TASKS = 1_000
ROUNDS = 3
AT_ONCE = 16
GOAL = 0.4


def run() -> list[Result]:
    ours, bare = [], []
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as directory:
        script = Path(directory, "command")
        script.write_text("true\n")
        options = ExecutorOptions(active_tasks_limit=AT_ONCE)
        with Standalone(Path(directory, "data"), executor=options) as standalone:
            for turn in range(ROUNDS):
                bare.append(_bare(script))
                ours.append(_ours(standalone, turn))
    return [Result("tasks / bare processes", statistics.median(ours), statistics.median(bare), GOAL)]


def _bare(script: Path) -> float:
    started = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda _: subprocess.run(["/bin/sh", "-e", script], check=True), range(TASKS)))
    return TASKS / (time.perf_counter() - started)


def _ours(standalone: Standalone, turn: int) -> float:
    tasks = {
        name: RunConfigTask(id=name, name=name, steps=[RunStep(command="true")])
        for name in (f"t{turn}-{number}" for number in range(TASKS))
    }
    service = standalone.service
    started = time.perf_counter()
    run = service.create_run(RunCreateRequest(run_config_tasks=tasks, group=f"/project/p/branch/b{turn}")).run
    while not run.phase.is_finished:
        run = service.wait_change(run, 60.0)
    rate = TASKS / (time.perf_counter() - started)
    assert run.result is RunResult.SUCCESS
    service.wait_archived([run.id], 300.0)
    return rate
