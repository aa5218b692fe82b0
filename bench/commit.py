"""commit-1, commit-n, commit-batch and conflict: WALs beside raw SQLite and the `eventsourcing` library.

All rounds take turns on the same disk, so a slow moment hits everybody; medians of the rounds are compared.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from uuid import uuid4

import apsw

import agola_core
from agola_core import ConflictError, DataManager, Put
from bench.result import Result

ROUNDS = 15
COMMITS = 640
PAYLOAD = os.urandom(1024)

BATCH_ROUNDS = 5
BATCH_PUTS = 10_000
BATCH_PAYLOAD = os.urandom(200)

Work = Callable[[int], None]


def run() -> list[Result]:
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as directory:
        root = Path(directory)
        return [*_commits(root), *_batches(root)]


def _commits(root: Path) -> list[Result]:
    groups = _Groups()
    saves = _eventsourcing(root / "events.db")
    with agola_core.open(root / "store", data_types=["object"]) as dm:
        numbers = count()

        def ours(_: int) -> None:
            dm.write_wal([Put("object", str(next(numbers)), PAYLOAD)])

        turns: dict[str, tuple[Work, int]] = {
            "raw": (_raw(root / "raw.db"), 1),
            "ours-1": (ours, 1),
            "ours-16": (ours, 16),
            "conflict": (lambda number: groups.write(dm, number * 16 // COMMITS, next(numbers)), 16),
            "ours-64": (ours, 64),
        }
        if saves is not None:
            turns |= {"saves-1": (saves, 1), "saves-16": (saves, 16)}
        rates: dict[str, list[float]] = {name: [] for name in turns}
        for _ in range(ROUNDS):
            for name, (work, threads) in turns.items():
                rates[name].append(rate(work, threads))
    median = {name: statistics.median(values) for name, values in rates.items()}
    results = [
        Result("commit-1 / raw commit", median["ours-1"], median["raw"], 0.85),
        Result("commit-n 16 / raw commit", median["ours-16"], median["raw"], 4),
        Result("commit-n 64 / raw commit", median["ours-64"], median["raw"], 4),
        Result("conflict / commit-n 16", median["conflict"], median["ours-16"], 0.9),
        Result("conflict: refusals", groups.refused, 1, 0, "refusals", at_most=True),
    ]
    if saves is not None:
        results += [
            Result("commit-1 / eventsourcing", median["ours-1"], median["saves-1"], 1.3),
            Result("commit-n 16 / eventsourcing 16", median["ours-16"], median["saves-16"], 6),
            Result("commit-n 64 / eventsourcing 16", median["ours-64"], median["saves-16"], 6),
        ]
    return results


def _batches(root: Path) -> list[Result]:
    connection = _database(root / "batches.db")
    ours: list[float] = []
    raw: list[float] = []
    with agola_core.open(root / "batches", data_types=["object"]) as dm:
        for number in range(BATCH_ROUNDS):
            names = [f"{number}-{index}" for index in range(BATCH_PUTS)]
            started = time.perf_counter()
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT OR REPLACE INTO object VALUES (?, ?)", [(name, BATCH_PAYLOAD) for name in names]
            )
            connection.execute("COMMIT")
            raw.append(BATCH_PUTS / (time.perf_counter() - started))
            started = time.perf_counter()
            dm.write_wal([Put("object", name, BATCH_PAYLOAD) for name in names])
            ours.append(BATCH_PUTS / (time.perf_counter() - started))
    return [Result("commit-batch / raw rows", statistics.median(ours), statistics.median(raw), 1.5, "rows per second")]


class _Groups:
    """Writers each on its own change group: nobody may be refused."""

    def __init__(self) -> None:
        self.refused = 0
        self._tokens: dict[int, agola_core.ChangeGroupsToken] = {}

    def write(self, dm: DataManager, thread: int, number: int) -> None:
        token = self._tokens.get(thread) or dm.change_groups_token([f"group-{thread}"])
        try:
            self._tokens[thread] = dm.write_wal([Put("object", str(number), PAYLOAD)], token)
        except ConflictError:
            self.refused += 1


def rate(work: Work, threads: int) -> float:
    """Return how often a second threads together do some work, which gets a number of its own each time."""
    each = COMMITS // threads

    def repeat(thread: int) -> None:
        for number in range(each):
            work(thread * each + number)

    workers = [threading.Thread(target=repeat, args=(index,)) for index in range(threads)]
    started = time.perf_counter()
    if threads == 1:
        repeat(0)
    else:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    return each * threads / (time.perf_counter() - started)


def _database(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE object (id TEXT PRIMARY KEY, data BLOB)")
    return connection


def _raw(path: Path) -> Work:
    connection, numbers = _database(path), count()

    def commit(_: int) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT OR REPLACE INTO object VALUES (?, ?)", (str(next(numbers)), PAYLOAD))
        connection.execute("COMMIT")

    return commit


def _eventsourcing(path: Path) -> Work | None:
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
