"""append-1, append-8, append-50, append-read and append-lag: events beside the SQLite recorder of `eventsourcing`.

Both take turns on the same disk, as it is and with slower syncs. Each append expects the version of its stream.
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
from itertools import count
from pathlib import Path
from uuid import UUID, uuid4

from eventsourcing.persistence import StoredEvent
from eventsourcing.sqlite import SQLiteApplicationRecorder, SQLiteDatastore

import agola_core
from agola_core.events import Event, EventStore
from bench import slowsync
from bench.machine import sync_seconds, workplace
from bench.result import Line, limit
from bench.turns import Work, compared, take_turns

BUDGET = 25.0
READ_BUDGET = 10.0
MANY = 50
DATA = os.urandom(100).hex().encode()
LAG_ROUNDS = 5
LAG_APPENDS = 60
PAUSE = 0.005


def run() -> list[Line]:
    return slowsync.both("bench.commits.append")


def measure() -> list[Line]:
    with tempfile.TemporaryDirectory(dir=workplace()) as directory:
        root = Path(directory)
        recorder = SQLiteApplicationRecorder(SQLiteDatastore(str(root / "events.db")))
        recorder.create_table()
        with agola_core.open_events(root / "store") as store:
            lines = _appends(store, recorder)
            return lines if slowsync.is_slowed() else [*lines, *_reads(store, recorder), *_lags(store, root / "store")]


def _appends(store: EventStore, recorder: SQLiteApplicationRecorder) -> list[Line]:
    numbers = count()

    def one(_: int) -> None:
        store.append([Event("Happened", DATA)], f"stream-{next(numbers)}", 0)

    def save_one(_: int) -> None:
        recorder.insert_events([_stored(uuid4(), 1)])

    def many(_: int) -> None:
        store.append([Event("Happened", DATA) for _ in range(MANY)], f"stream-{next(numbers)}", 0)

    def save_many(_: int) -> None:
        new = uuid4()
        recorder.insert_events([_stored(new, version) for version in range(1, MANY + 1)])

    works: dict[str, tuple[Work, int]] = {
        "one": (one, 1),
        "save-one": (save_one, 1),
        "eight": (one, 8),
        "save-eight": (save_one, 8),
        "many": (many, 1),
        "save-many": (save_many, 1),
    }
    found = take_turns(works, budget=BUDGET)
    return [
        compared("append-1 / eventsourcing", found["one"], found["save-one"], 1.2),
        compared("append-8 / eventsourcing", found["eight"], found["save-eight"], 4),
        compared(f"append-{MANY} / eventsourcing", found["many"], found["save-many"], 2),
    ]


def _reads(store: EventStore, recorder: SQLiteApplicationRecorder) -> list[Line]:
    stream, stream_id = "to-read", uuid4()
    for _ in range(MANY):
        store.append([Event("Happened", DATA)], stream)
    recorder.insert_events([_stored(stream_id, version) for version in range(1, MANY + 1)])

    def ours(_: int) -> None:
        assert len(list(store.read_stream(stream))) == MANY

    def theirs(_: int) -> None:
        assert len(recorder.select_events(stream_id)) == MANY

    works: dict[str, tuple[Work, int]] = {"ours": (ours, 1), "theirs": (theirs, 1)}
    memory = take_turns(works, budget=READ_BUDGET)
    store.store.checkpoint(force=True)
    stored = take_turns(works, budget=READ_BUDGET)
    return [
        compared("append-read / eventsourcing", memory["ours"], memory["theirs"], 1.5),
        compared("append-read checkpointed / eventsourcing", stored["ours"], stored["theirs"], 1.5),
    ]


def _stored(originator: UUID, version: int) -> StoredEvent:
    return StoredEvent(originator, version, "Happened", DATA)


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


def _lags(store: EventStore, path: Path) -> list[Line]:
    """The reference is one sync of a small file."""
    reference = [1000 * seconds for seconds in sync_seconds()]
    same, other = [], []
    for _ in range(LAG_ROUNDS):
        same.append(statistics.median(_same_process(store)))
        other.append(statistics.median(_other_process(store, path)))
    return [
        limit("append-lag same process / a sync", same, reference, 3, "ms"),
        limit("append-lag other process / a sync", other, reference, 10, "ms"),
    ]


def _same_process(store: EventStore) -> list[float]:
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
    return [max(0.0, (seen[position] - at) * 1000) for position, at in committed.items()]


def _other_process(store: EventStore, path: Path) -> list[float]:
    seen: dict[int, float] = {}
    with store.subscribe() as subscription:
        command = [sys.executable, "-c", WRITER, str(path), str(LAG_APPENDS), str(PAUSE)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            _note(subscription, seen, LAG_APPENDS)
            assert process.stdout is not None
            lines = [line.split() for line in process.stdout]
    return [max(0.0, (seen[int(position)] - float(at)) * 1000) for at, position in lines]


def _note(subscription: agola_core.events.Subscription, seen: dict[int, float], wanted: int) -> None:
    while len(seen) < wanted:
        event = subscription.next(60)
        assert event is not None
        seen[event.position] = time.perf_counter()


if __name__ == "__main__":
    slowsync.main(measure)
