"""commit-s3: durable commits on S3 whose every request takes 20 ms more, beside one PUT per commit in series.

A commit that waits for its own PUT takes one of those at least, so N threads that wait can be at most N times as
fast as the series; 256 threads show how far commits share their PUTs.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
from pathlib import Path

import agola_core
from agola_core import Put
from agola_pytest.faults.s3_proxy import S3Proxy
from agola_pytest.servers.s3 import start_s3
from bench.result import Result

ROUNDS = 5
DELAY = 0.02
SERIES = 30
PAYLOAD = os.urandom(1024)


def run() -> list[Result]:
    series: list[float] = []
    ours: dict[int, list[float]] = {32: [], 256: []}
    puts: dict[int, list[float]] = {32: [], 256: []}
    with (
        tempfile.TemporaryDirectory(dir=Path.cwd()) as directory,
        start_s3(Path(directory) / "s3") as server,
        S3Proxy(server, DELAY) as proxy,
        agola_core.open(
            data_types=["object"],
            storage=proxy.url("store"),
            coordinator=str(Path(directory) / "coordinator.db"),
            durability="storage",
        ) as dm,
    ):
        for number in range(ROUNDS):
            started = time.perf_counter()
            for index in range(SERIES):
                dm.storage.write(f"series/{number}/{index}", PAYLOAD)
            series.append(SERIES / (time.perf_counter() - started))
            for threads, rates in ours.items():
                before = _puts(proxy)
                rate, commits = _commits(dm, threads)
                rates.append(rate)
                puts[threads].append((_puts(proxy) - before) / commits)
    reference = statistics.median(series)
    for threads, counts in puts.items():
        print(f"commit-s3: {statistics.median(counts):.3f} PUTs per commit with {threads} threads")
    return [
        Result(f"commit-s3 {threads} / one PUT each in series", statistics.median(rates), reference, 100)
        for threads, rates in ours.items()
    ]


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
