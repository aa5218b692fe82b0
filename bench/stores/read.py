"""read-hot and read-cold: point reads in a large checkpointed store, beside raw SQLite point reads of the same rows.

Hot reads go to ids that were read before, cold ones to any; a cold read is one request of the storage at most
once a file's index is known, which is counted, not timed.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import apsw

import agola_core
from agola_core.objectstorage.posix.storage import FileReader
from bench.result import Line, limit, ratio
from bench.stores.bigstore import OBJECTS, OPTIONS, object_id, raw, store

ROUNDS = 7
READS = 5000
HOT = 1000


def run() -> list[Line]:
    generator = random.Random(1)
    hot = [object_id(generator.randrange(OBJECTS)) for _ in range(HOT)]
    connection = apsw.Connection(str(raw(OBJECTS)), flags=apsw.SQLITE_OPEN_READONLY)

    def reference(key: str) -> Any:
        return connection.execute("SELECT data FROM object WHERE id = ?", (key,)).get

    with agola_core.open(store(OBJECTS), data_types=["object"], options=OPTIONS) as dm:

        def ours(key: str) -> Any:
            return dm.read_object("object", key)

        rates: dict[str, list[float]] = {}
        for _ in range(ROUNDS):
            hot_keys = [generator.choice(hot) for _ in range(READS)]
            cold_keys = [object_id(generator.randrange(OBJECTS)) for _ in range(READS)]
            for key in hot:
                ours(key)
                reference(key)
            for name, work in (("ours", ours), ("raw", reference)):
                rates.setdefault(f"{name}-hot", []).append(_rate(work, hot_keys))
                rates.setdefault(f"{name}-cold", []).append(_rate(work, cold_keys))
        most = _most_requests(ours, generator)
    return [
        ratio("read-hot / raw read", rates["ours-hot"], rates["raw-hot"], 0.5),
        ratio("read-cold / raw read", rates["ours-cold"], rates["raw-cold"], 0.5),
        limit("read-cold, most requests of one read", most, 1, 1, "requests"),
    ]


def _rate(work: Callable[[str], Any], keys: list[str]) -> float:
    started = time.perf_counter()
    for key in keys:
        work(key)
    return len(keys) / (time.perf_counter() - started)


def _most_requests(work: Callable[[str], Any], generator: random.Random) -> int:
    """Return the most ranges that one read took; every file's index was read before."""
    count, most = 0, 0
    original = FileReader.read

    def counted(reader: FileReader, offset: int, length: int) -> bytes:
        nonlocal count
        count += 1
        return original(reader, offset, length)

    FileReader.read = counted  # type: ignore[assignment,method-assign] # its argument has another name
    try:
        for _ in range(READS):
            count = 0
            work(object_id(generator.randrange(OBJECTS)))
            most = max(most, count)
    finally:
        FileReader.read = original  # type: ignore[method-assign]
    return most
