"""A store of many checkpointed objects of 1 KiB, and the same rows in raw SQLite, made once for a whole run.

`AGOLA_BENCH_OBJECTS` says how many objects; the goals are for the default.
"""

from __future__ import annotations

import atexit
import random
import shutil
import tempfile
from functools import cache
from pathlib import Path

import apsw

import agola_core
from agola_core import Options, Put
from bench import options
from bench.machine import workplace

OBJECTS = options.number("AGOLA_BENCH_OBJECTS", 1_000_000, least=10_000)
SIZE = 1024
OPTIONS = Options(background=False)
_WAL = 10_000


def object_id(number: int) -> str:
    return f"object-{number:09}"


def payload(generator: random.Random) -> bytes:
    return generator.randbytes(SIZE)


@cache
def directory() -> Path:
    """Return where big things may be made; removed at the end."""
    path = Path(tempfile.mkdtemp(prefix="bench-", dir=workplace()))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@cache
def store(objects: int) -> Path:
    """Return a store of so many objects, checkpointed."""
    path = directory() / f"store-{objects}"
    generator = random.Random(objects)
    with agola_core.open(path, data_types=["object"], options=OPTIONS) as dm:
        for start in range(0, objects, _WAL):
            dm.write_wal(
                [Put("object", object_id(number), payload(generator)) for number in range(start, start + _WAL)]
            )
        dm.checkpoint(force=True)
        dm.clean_up()
    return path


@cache
def raw(objects: int) -> Path:
    """Return a SQLite database of the same rows."""
    path = directory() / f"raw-{objects}.db"
    generator = random.Random(objects)
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE object (id TEXT PRIMARY KEY, data BLOB)")
    for start in range(0, objects, _WAL):
        with connection:
            connection.executemany(
                "INSERT INTO object VALUES (?, ?)",
                [(object_id(number), payload(generator)) for number in range(start, start + _WAL)],
            )
    connection.close()
    return path
