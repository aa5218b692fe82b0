"""append-1, append-8, append-50, append-read and append-lag: events beside the SQLite recorder of `eventsourcing`.

Both take turns on the same disk; medians of the rounds are compared. Each append expects the version of its stream.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from uuid import UUID, uuid4

from eventsourcing.persistence import StoredEvent
from eventsourcing.sqlite import SQLiteApplicationRecorder, SQLiteDatastore

import agola_core
from agola_core.events import Event, EventStore
from bench.result import Limit, Result

ROUNDS = 11
APPENDS = 320
READS = 200
MANY = 50
DATA = os.urandom(100).hex().encode()
LAG_APPENDS = 200
PAUSE = 0.005

Work = Callable[[int], None]


def run() -> list[Result | Limit]:
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as directory:
        root = Path(directory)
        recorder = SQLiteApplicationRecorder(SQLiteDatastore(str(root / "events.db")))
        recorder.create_table()
        with agola_core.open_events(root / "store") as store:
            return [*_appends(store, recorder), *_lags(store, root / "store")]


def _appends(store: EventStore, recorder: SQLiteApplicationRecorder) -> list[Result | Limit]:
    numbers = count()
    read, read_id = "to-read", uuid4()
    for _ in range(MANY):
        store.append([Event("Happened", DATA)], read)
    recorder.insert_events([_stored(read_id, version) for version in range(1, MANY + 1)])

    def one(_: int) -> None:
        store.append([Event("Happened", DATA)], f"stream-{next(numbers)}", 0)

    def save_one(_: int) -> None:
        recorder.insert_events([_stored(uuid4(), 1)])

    def many(_: int) -> None:
        store.append([Event("Happened", DATA) for _ in range(MANY)], f"stream-{next(numbers)}", 0)

    def save_many(_: int) -> None:
        new = uuid4()
        recorder.insert_events([_stored(new, version) for version in range(1, MANY + 1)])

    def read_ours(_: int) -> None:
        assert len(list(store.read_stream(read))) == MANY

    def read_theirs(_: int) -> None:
        assert len(recorder.select_events(read_id)) == MANY

    turns: dict[str, tuple[Work, int, int]] = {
        "one": (one, 1, APPENDS),
        "save-one": (save_one, 1, APPENDS),
        "eight": (one, 8, APPENDS),
        "save-eight": (save_one, 8, APPENDS),
        "many": (many, 1, APPENDS // 10),
        "save-many": (save_many, 1, APPENDS // 10),
        "read": (read_ours, 1, READS),
        "select": (read_theirs, 1, READS),
    }
    rates: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(ROUNDS):
        for name, (work, threads, times) in turns.items():
            rates[name].append(rate(work, threads, times))
    median = {name: statistics.median(values) for name, values in rates.items()}
    store.store.checkpoint(force=True)
    read_ours(0)
    stored = statistics.median(rate(read_ours, 1, READS) for _ in range(ROUNDS))
    return [
        Result("append-1", median["one"], median["save-one"], 1.2),
        Result("append-8", median["eight"], median["save-eight"], 4),
        Result(f"append-{MANY}", median["many"], median["save-many"], 2),
        Result("append-read", median["read"], median["select"], 1.5),
        Result("append-read checkpointed", stored, median["select"], 1.5),
    ]


def _stored(originator: UUID, version: int) -> StoredEvent:
    return StoredEvent(originator, version, "Happened", DATA)


def rate(work: Work, threads: int, times: int) -> float:
    """Return how often a second threads together do some work."""
    each = times // threads

    def repeat() -> None:
        for number in range(each):
            work(number)

    workers = [threading.Thread(target=repeat) for _ in range(threads)]
    started = time.perf_counter()
    if threads == 1:
        repeat()
    else:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    return each * threads / (time.perf_counter() - started)


WRITER = textwrap.dedent("""
    import sys, time
    import agola_core
    from agola_core.events import Event

    with agola_core.open_events(sys.argv[1]) as store:
        for number in range(int(sys.argv[2])):
            time.sleep(float(sys.argv[3]))
            position = store.append([Event("Happened", b"x" * 200)], "other")
            print(time.perf_counter(), position, flush=True)
""")


def _lags(store: EventStore, path: Path) -> list[Result | Limit]:
    """The reference is one fsync of a small file."""
    reference = statistics.median(_fsyncs(path.parent / "file")) * 1000
    same = []
    seen: dict[int, float] = {}
    with store.subscribe() as subscription:
        reader = threading.Thread(target=_note, args=(subscription, seen, LAG_APPENDS))
        reader.start()
        committed: dict[int, float] = {}
        for _ in range(LAG_APPENDS):
            time.sleep(PAUSE)
            position = store.append([Event("Happened", DATA)], "own")
            committed[position] = time.perf_counter()
        reader.join()
        same = [max(0.0, (seen[position] - at) * 1000) for position, at in committed.items()]
    with store.subscribe() as subscription:
        seen = {}
        command = [sys.executable, "-c", WRITER, str(path), str(LAG_APPENDS), str(PAUSE)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            _note(subscription, seen, LAG_APPENDS)
            assert process.stdout is not None
            lines = [line.split() for line in process.stdout]
        other = [max(0.0, (seen[int(position)] - float(at)) * 1000) for at, position in lines]
    return [
        Limit("append-lag same process", statistics.median(same), reference, 3, "ms"),
        Limit("append-lag other process", statistics.median(other), reference, 10, "ms"),
    ]


def _note(subscription: agola_core.events.Subscription, seen: dict[int, float], wanted: int) -> None:
    while len(seen) < wanted:
        event = subscription.next(60)
        assert event is not None
        seen[event.position] = time.perf_counter()


def _fsyncs(path: Path) -> Iterator[float]:
    with path.open("wb", buffering=0) as file:
        for _ in range(100):
            file.write(b"x")
            started = time.perf_counter()
            os.fsync(file.fileno())
            yield time.perf_counter() - started
