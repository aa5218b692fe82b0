"""The readdb: its rebuild beside a raw executemany, and the time from a commit to its readers."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import apsw

import agola_core
from agola_core import Options, Put
from agola_core.datamanager import Action, DataManager
from agola_core.db import Tx
from agola_core.readdb import ReadDB
from agola_core.runtime.context import Context
from bench import options
from bench.machine import sync_seconds, workplace
from bench.result import Line, limit, ratio

OBJECTS = options.number("AGOLA_BENCH_OBJECTS", 1_000_000, least=10_000)
REBUILD_BYTES = 200
ROUNDS = 5
COMMITS = 60
PAUSE = 0.005
SCHEMA = "CREATE TABLE object (id TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID"
COUNT = "SELECT count(*) FROM object WHERE id > ? AND id < ?"
INSERT = "INSERT OR REPLACE INTO object VALUES (?, ?)"


class Objects:
    """Every object as a row."""

    name = "objects"
    version = 1
    data_types = ("object",)
    schema = SCHEMA

    def apply(self, tx: Tx, actions: Iterable[Action]) -> None:
        for part in _parts(actions):
            puts = [(action.id, action.data) for action in part if isinstance(action, Put)]
            if puts:
                tx.executemany(INSERT, puts)
            else:
                tx.executemany("DELETE FROM object WHERE id = ?", [(action.id,) for action in part])


def _parts(actions: Iterable[Action]) -> Iterator[list[Action]]:
    part: list[Action] = []
    for action in actions:
        if part and isinstance(part[0], Put) is not isinstance(action, Put):
            yield part
            part = []
        part.append(action)
    if part:
        yield part


def fill(dm: DataManager, objects: int, size: int) -> None:
    """Write objects that compress as JSON does, about to a third."""
    for start in range(0, objects, 10_000):
        dm.write_wal(
            [
                Put("object", f"{number:010}", (os.urandom(size // 4).hex() + "x" * size)[:size].encode())
                for number in range(start, min(objects, start + 10_000))
            ]
        )
    dm.checkpoint(force=True)


def rebuild() -> list[Line]:
    """Measure readdb-rebuild."""
    ours, raw = [], []
    with (
        tempfile.TemporaryDirectory() as directory,
        agola_core.open(Path(directory) / "s", data_types=["object"], options=Options(background=False)) as dm,
    ):
        fill(dm, OBJECTS, REBUILD_BYTES)
        rows = [(object_id, data) for object_id, data in dm.list_objects("object")]
        for number in range(ROUNDS):
            started = time.perf_counter()
            _raw(Path(directory) / f"raw-{number}", rows)
            raw.append(len(rows) / (time.perf_counter() - started))
            readdb = ReadDB(dm, Path(directory) / f"readdb-{number}", [Objects()])
            started = time.perf_counter()
            readdb.catch_up()
            ours.append(len(rows) / (time.perf_counter() - started))
            readdb.close()
    return [ratio(f"readdb-rebuild {OBJECTS:,} / raw executemany", ours, raw, 0.7, "rows/s")]


def _raw(path: Path, rows: list[tuple[str, bytes]]) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(SCHEMA)
    with connection:
        connection.executemany(INSERT, rows)
    connection.close()


WRITER = textwrap.dedent("""
    import sys, time
    import agola_core
    from agola_core import Put

    with agola_core.open(sys.argv[1], data_types=["object"]) as dm:
        for number in range(int(sys.argv[2])):
            time.sleep(float(sys.argv[3]))
            dm.write_wal([Put("object", f"{sys.argv[4]}-{number:010}", b"x" * 200)])
            print(time.perf_counter(), number, flush=True)
""")


def lag() -> list[Line]:
    """Measure readdb-lag; the reference is one sync of a small file."""
    reference = [1000 * seconds for seconds in sync_seconds()]
    same, other = [], []
    with tempfile.TemporaryDirectory(dir=workplace()) as directory:
        path = Path(directory)
        with agola_core.open(path / "s", data_types=["object"]) as dm, ReadDB(dm, path / "r", [Objects()]) as readdb:
            for turn in range(ROUNDS):
                same.append(statistics.median(_same(dm, readdb, turn)))
                other.append(statistics.median(_other(path / "s", readdb, turn)))
    return [
        limit("readdb-lag same process / a sync", same, reference, 1, "ms"),
        limit("readdb-lag other process / a sync", other, reference, 5, "ms"),
    ]


def _same(dm: DataManager, readdb: ReadDB, turn: int) -> Iterator[float]:
    """Yield the milliseconds from commits to this process's readdb."""
    for number in range(COMMITS):
        time.sleep(PAUSE)
        token = dm.write_wal([Put("object", f"own-{turn}-{number:010}", b"x" * 200)])
        committed = time.perf_counter()
        readdb.wait_for(token, 10)
        yield (time.perf_counter() - committed) * 1000


def _other(store: Path, readdb: ReadDB, turn: int) -> Iterator[float]:
    """Yield the milliseconds from commits of another process to this one's readdb; one clock serves both."""
    command = [sys.executable, "-c", WRITER, str(store), str(COMMITS), str(PAUSE), str(turn)]
    seen: dict[int, float] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        count = 0
        while count < COMMITS and process.poll() is None:
            found = readdb.read(Context(), lambda tx: next(tx.rows(COUNT, (f"{turn}-", f"{turn}.")))[0])
            now = time.perf_counter()
            for new in range(count, found):
                seen[new] = now
            count = found
            with contextlib.suppress(agola_core.UnavailableError):
                readdb.wait_for(readdb.position.next(), 5)
        assert process.stdout is not None
        for line in process.stdout:
            committed, number = line.split()
            if int(number) in seen:
                yield max(0.0, (seen[int(number)] - float(committed)) * 1000)
