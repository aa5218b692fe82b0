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
from pathlib import Path

import agola_core
from agola_core import Put
from agola_pytest.faults.s3_proxy import S3Proxy
from agola_pytest.servers.s3 import S3Program, S3Server, missing_reason, start_s3
from bench.machine import workplace
from bench.result import Line, limit, ratio

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
        S3Proxy(server, DELAY) as proxy,
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
                before = _puts(proxy)
                rate, commits = _commits(dm, threads)
                rates.append(rate)
                puts[threads].append((_puts(proxy) - before) / commits)
    for threads, counts in puts.items():
        print(f"commit-s3: {statistics.median(counts):.3f} PUTs per commit with {threads} threads")
    rates = [
        ratio(f"commit-s3 {threads} / one PUT each in series", found, series, GOALS[threads])
        for threads, found in ours.items()
    ]
    used = limit("commit-s3 processor time of a PUT / 1 ms", processor, 1, PROCESSOR_GOAL, "ms")
    return [*rates, used]


def _program() -> S3Program:
    return S3Program.MINISTACK if missing_reason(S3Program.EXTERNAL) else S3Program.EXTERNAL


def _processor_time(server: S3Server) -> float:
    """Return how many milliseconds of this process's processor time a write of 1 KiB takes."""
    with contextlib.closing(agola_core.open_storage(server.url(uuid.uuid4().hex))) as storage:
        started = time.process_time()
        for index in range(SERIES * 5):
            storage.write(str(index), PAYLOAD)
        return 1000 * (time.process_time() - started) / (SERIES * 5)


def _puts(proxy: S3Proxy) -> int:
    return sum(request.method == "PUT" for request in proxy.requests)


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
