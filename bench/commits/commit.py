"""commit-1, commit-n, commit-many, commit-batch and conflict: WALs beside raw SQLite and the `eventsourcing` library.

All works take turns on the same disk, as it is and with slower syncs.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from uuid import uuid4

import apsw

import agola_core
from agola_core import ConflictError, DataManager, Put
from bench import slowsync
from bench.machine import workplace
from bench.result import Line, Of
from bench.turns import Turns, Work, compared, take_turns

BUDGET = 35.0
PAYLOAD = os.urandom(1024)
MANY = 100

BATCH_BUDGET = 15.0
BATCH_PUTS = 10_000
BATCH_PAYLOAD = os.urandom(200)


def run() -> list[Line]:
    return slowsync.both("bench.commits.commit")


def measure() -> list[Line]:
    with tempfile.TemporaryDirectory(dir=workplace()) as directory:
        root = Path(directory)
        return [*_commits(root), *_batches(root)]


def _commits(root: Path) -> list[Line]:
    groups = _Groups()
    saves = _eventsourcing(root / "events.db")
    with agola_core.open(root / "store", data_types=["object"]) as dm:
        numbers = count()

        def ours(_: int) -> None:
            dm.write_wal([Put("object", str(next(numbers)), PAYLOAD)])

        works: dict[str, tuple[Work, int]] = {
            "raw": (_raw(root / "raw.db"), 1),
            "ours-1": (ours, 1),
            "ours-16": (ours, 16),
            "conflict": (lambda thread: groups.write(dm, thread, next(numbers)), 16),
            "ours-64": (ours, 64),
        }
        if hasattr(dm, "write_wals"):

            def many(_: int) -> None:
                dm.write_wals([[Put("object", str(next(numbers)), PAYLOAD)] for _ in range(MANY)])

            works["many"] = (many, 1)
        if saves is not None:
            works |= {"saves-1": (saves, 1), "saves-16": (saves, 16)}
        found = take_turns(works, budget=BUDGET)
    slowed = slowsync.is_slowed()
    raw = found["raw"]
    lines = [
        _commit_1(found["ours-1"], raw, slowed),
        compared("commit-n 16 / raw commit", found["ours-16"], raw, 14 if slowed else 2),
        compared("commit-n 64 / raw commit", found["ours-64"], raw, 40 if slowed else 2),
        Line("commit-n 16 processor time", found["ours-16"].processor, raw.processor, 45, "us", Of.OURS, at_most=True),
        compared("conflict / commit-n 16", found["conflict"], found["ours-16"], 0.9),
        Line("conflict: refusals", [groups.refused], [1], 0, "refusals", Of.OURS, at_most=True),
    ]
    if "many" in found:
        each = Turns([MANY * r for r in found["many"].rates], [p / MANY for p in found["many"].processor])
        lines.append(compared(f"commit-many {MANY} / raw commit", each, raw, 5))
    if saves is not None:
        lines += [
            compared("commit-1 / eventsourcing", found["ours-1"], found["saves-1"], 1.5),
            compared("commit-n 16 / eventsourcing 16", found["ours-16"], found["saves-16"], 6),
            compared("commit-n 64 / eventsourcing 16", found["ours-64"], found["saves-16"], 6),
        ]
    return lines


def _commit_1(ours: Turns, raw: Turns, slowed: bool) -> Line:
    """Where a sync takes next to nothing, the goal is for the processor's time, else for the rate."""
    if slowed:
        return compared("commit-1 / raw commit", ours, raw, 0.93)
    return Line("commit-1 processor time / raw commit", ours.processor, raw.processor, 90, "us", Of.OURS, at_most=True)


def _batches(root: Path) -> list[Line]:
    connection = _database(root / "batches.db")
    numbers = count()
    with agola_core.open(root / "batches", data_types=["object"]) as dm:

        def raw(_: int) -> None:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT OR REPLACE INTO object VALUES (?, ?)", [(name, BATCH_PAYLOAD) for name in _names(numbers)]
            )
            connection.execute("COMMIT")

        def ours(_: int) -> None:
            dm.write_wal([Put("object", name, BATCH_PAYLOAD) for name in _names(numbers)])

        found = take_turns({"raw": (raw, 1), "ours": (ours, 1)}, budget=BATCH_BUDGET)
    rows = {
        name: Turns([BATCH_PUTS * r for r in turns.rates], [p / BATCH_PUTS for p in turns.processor])
        for name, turns in found.items()
    }
    return [compared("commit-batch / raw rows", rows["ours"], rows["raw"], 1.5, "rows per second")]


def _names(numbers: Iterable[int]) -> list[str]:
    number = next(iter(numbers))
    return [f"{number}-{index}" for index in range(BATCH_PUTS)]


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
        return None  # the table says it: `append` names the package
    recorder = SQLiteAggregateRecorder(SQLiteDatastore(str(path)))
    recorder.create_table()

    def save(_: int) -> None:
        recorder.insert_events([StoredEvent(uuid4(), 1, "event", PAYLOAD)])

    return save


if __name__ == "__main__":
    slowsync.main(measure)
