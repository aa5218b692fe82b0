"""commit-1 and commit-n: WALs of one 1 KiB put, beside raw SQLite commits and the `eventsourcing` library.

All rounds take turns on the same disk, so a slow moment hits everybody; medians of the rounds are compared.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import apsw

import agola_core
from agola_core import Put
from bench.result import Result

ROUNDS = 7
COMMITS = 1000
PAYLOAD = os.urandom(1024)


def run() -> list[Result]:
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as directory:
        root = Path(directory)
        with agola_core.open(root / "store", data_types=["object"]) as dm:
            raw = _raw(root / "raw.db")
            saves = _eventsourcing(root / "events.db")

            def ours(number: int) -> None:
                dm.write_wal([Put("object", str(number), PAYLOAD)])

            rates: dict[str, list[float]] = {}
            for _ in range(ROUNDS):
                _note(rates, "raw", _rate(raw, 1))
                _note(rates, "ours-1", _rate(ours, 1))
                _note(rates, "ours-16", _rate(ours, 16))
                _note(rates, "ours-64", _rate(ours, 64))
                if saves is not None:
                    _note(rates, "eventsourcing", _rate(saves, 1))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    results = [
        Result("commit-1 / raw commit", medians["ours-1"], medians["raw"], 0.85),
        Result("commit-n 16 / raw commit", medians["ours-16"], medians["raw"], 4),
        Result("commit-n 64 / raw commit", medians["ours-64"], medians["raw"], 4),
    ]
    if "eventsourcing" in medians:
        results.append(Result("commit-1 / eventsourcing", medians["ours-1"], medians["eventsourcing"], 1.3))
    return results


def _note(rates: dict[str, list[float]], name: str, rate: float) -> None:
    rates.setdefault(name, []).append(rate)


def _rate(commit: Callable[[int], None], threads: int) -> float:
    each = COMMITS // threads

    def work(first: int) -> None:
        for number in range(each):
            commit(first + number)

    workers = [threading.Thread(target=work, args=(index * each,)) for index in range(threads)]
    started = time.perf_counter()
    if threads == 1:
        work(0)
    else:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    return each * threads / (time.perf_counter() - started)


def _raw(path: Path) -> Callable[[int], None]:
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE object (id TEXT PRIMARY KEY, data BLOB)")

    def commit(number: int) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT OR REPLACE INTO object VALUES (?, ?)", (str(number), PAYLOAD))
        connection.execute("COMMIT")

    return commit


def _eventsourcing(path: Path) -> Callable[[int], None] | None:
    try:
        from eventsourcing.persistence import StoredEvent
        from eventsourcing.sqlite import SQLiteAggregateRecorder, SQLiteDatastore
    except ModuleNotFoundError:
        print("eventsourcing is not installed: it is left out (pip install --group bench)")
        return None
    recorder = SQLiteAggregateRecorder(SQLiteDatastore(str(path)))
    recorder.create_table()

    def save(_: int) -> None:
        recorder.insert_events([StoredEvent(uuid4(), 1, "event", PAYLOAD)])

    return save
