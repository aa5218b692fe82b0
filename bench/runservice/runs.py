"""runs: what one scheduling event costs with 10, 1,000 and 10,000 active runs; it should be the same.

An event is a task's end: its report, the decision, the start of the next task. The cost is processor time, which
other programs on the machine do not change much; each number of runs has a process's turn in every round.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import agola_core
from agola_core import Options
from agola_core.runservice.archive.projection import DATA_TYPES
from agola_core.runservice.inprocess import InProcessDirectory
from agola_core.runservice.service import RunService
from bench.machine import workplace
from bench.result import Line, ratio
from bench.runservice.activeruns import PlayedExecutor, chain, fill

COUNTS = (10, 1_000, 10_000)
ROUNDS = 5
HOPS = 60
GOAL = 1.5


def run() -> list[Line]:
    costs: dict[int, list[float]] = {count: [] for count in COUNTS}
    with tempfile.TemporaryDirectory(dir=workplace()) as directory:
        for count in COUNTS:
            with _open(directory, count) as dm:
                fill(dm, count)
        for turn in range(ROUNDS):
            for count in COUNTS:
                costs[count].append(_cost(directory, count, turn))
    few = costs[COUNTS[0]]
    return [
        ratio(f"runs: an event with {count:,} / {COUNTS[0]} active", costs[count], few, GOAL, "ms", at_most=True)
        for count in COUNTS[1:]
    ]


def _open(directory: str, count: int) -> agola_core.DataManager:
    return agola_core.open(Path(directory, str(count)), data_types=DATA_TYPES, options=Options(background=False))


def _cost(directory: str, count: int, turn: int) -> float:
    """Return the processor milliseconds of an event."""
    executors = InProcessDirectory()
    with (
        _open(directory, count) as dm,
        RunService(dm, Path(directory, f"{count}.db"), executors) as service,
    ):
        executor = PlayedExecutor(service)
        executors.add("played", executor)
        warm = service.create_run(chain(f"warm{turn}", 10)).run
        service.wait_archived([warm.id], 60)
        started = time.process_time()
        run_id = service.create_run(chain(f"probe{turn}", HOPS)).run.id
        with executor.condition:
            assert executor.condition.wait_for(lambda: f"probe{turn}-{HOPS - 1}" in executor.came, 120)
        cost = 1000 * (time.process_time() - started) / HOPS
        service.wait_archived([run_id], 60)
        return cost
