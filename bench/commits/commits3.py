"""commit-s3: durable commits on S3 whose every request takes 20 ms more, beside one PUT per commit in series.

A commit that waits for its own PUT takes one of those at least, so N threads that wait can be at most N times as
fast as the series; 256 threads show how far commits share their PUTs. The processor time of one PUT is that of this
process alone, against the server itself. A server that runs already (AGOLA_S3) is taken before one of our own.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import agola_core
from agola_core import Put
from agola_pytest.servers.s3 import S3Program, S3Server, missing_reason, start_s3
from bench.machine import workplace
from bench.result import Line, limit, ratio
from bench.slow_s3 import SlowS3, start_slow_s3

ROUNDS = 5
GOALS = {32: 25, 256: 150}
PROCESSOR_GOAL = 0.6
DELAY = 0.02
SERIES = 30
PAYLOAD = os.urandom(1024)


def run() -> list[Line]:
    series: list[float] = []
    processor: list[float] = []
    ours: dict[int, list[float]] = {32: [], 256: []}
    puts: dict[int, list[float]] = {32: [], 256: []}
    with (
        tempfile.TemporaryDirectory(dir=workplace()) as directory,
        start_s3(Path(directory) / "s3", _program()) as server,
        start_slow_s3(server, DELAY) as proxy,
        agola_core.open(
            data_types=["object"],
            storage=proxy.url(uuid.uuid4().hex),
            coordinator=str(Path(directory) / "coordinator.db"),
            durability="storage",
        ) as dm,
    ):
        for number in range(ROUNDS):
            processor.append(_processor_time(server))
            started = time.perf_counter()
            for index in range(SERIES):
                dm.storage.write(f"series/{number}/{index}", PAYLOAD)
            series.append(SERIES / (time.perf_counter() - started))
            for threads, rates in ours.items():
                before = proxy.requests()["PUT"]
                rate, commits = _commits(dm, threads)
                rates.append(rate)
                puts[threads].append((proxy.requests()["PUT"] - before) / commits)
        print(f"commit-s3: {_requests(dm, proxy)}")
    for threads, counts in puts.items():
        print(f"commit-s3: {statistics.median(counts):.3f} PUTs per commit with {threads} threads")
    lines = [
        ratio(f"commit-s3 {threads} / one PUT each in series", found, series, GOALS[threads])
        for threads, found in ours.items()
    ]
    used = limit("commit-s3 processor time of a PUT / 1 ms", processor, 1, PROCESSOR_GOAL, "ms")
    return [*lines, used]


def _program() -> S3Program:
    return S3Program.MINISTACK if missing_reason(S3Program.EXTERNAL) else S3Program.EXTERNAL


def _processor_time(server: S3Server) -> float:
    """Return how many milliseconds of this process's processor time a write of 1 KiB takes."""
    with contextlib.closing(agola_core.open_storage(server.url(uuid.uuid4().hex))) as storage:
        started = time.process_time()
        for index in range(SERIES * 5):
            storage.write(str(index), PAYLOAD)
        return 1000 * (time.process_time() - started) / (SERIES * 5)


def _requests(dm: agola_core.DataManager, proxy: SlowS3) -> str:
    """Return how many requests a commit, a checkpoint and a point read that finds nothing in memory make."""
    counts = []
    dm.stop_background_tasks()
    steps: dict[str, Callable[[], object]] = {
        "one commit": lambda: dm.write_wal([Put("object", "0-0", PAYLOAD)]),
        "a checkpoint of it": lambda: dm.checkpoint(force=True),
        "a read of a file that no read was in before": lambda: dm.read_object("object", "0-0"),
        "another read": lambda: dm.read_object("object", "1-0"),
    }
    for name, step in steps.items():
        before = proxy.requests()
        step()
        made = proxy.requests() - before
        counts.append(f"{name}: {', '.join(f'{count} {kind}' for kind, count in sorted(made.items())) or 'none'}")
    return "; ".join(counts)


def _commits(dm: agola_core.DataManager, threads: int) -> tuple[float, int]:
    each = 20

    def work(index: int) -> None:
        for number in range(each):
            dm.write_wal([Put("object", f"{index}-{number}", PAYLOAD)])

    workers = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    started = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return each * threads / (time.perf_counter() - started), each * threads
