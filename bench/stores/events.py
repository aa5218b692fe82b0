"""events: what reads of a large event store cost: range requests and files at most, time, and memory.

`AGOLA_BENCH_EVENTS` says how many events. A stream has 50, which came in 10 appends far apart; five streams share a
tag. A process of its own reads: first a position when it has just opened the store, then each kind of read many times,
at random, once the files' indexes are in memory. The goals are those of `docs/events.md`, with r runs.
"""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

import agola_core
from agola_core import Options
from agola_core.events import Event, EventStore, Query, StreamEvents
from agola_core.objectstorage.posix.storage import FileReader
from bench import options
from bench.result import Line, limit
from bench.stores.bigstore import directory

EVENTS = options.number("AGOLA_BENCH_EVENTS", 200_000, least=1000)
STREAM = 50
BATCH = 5
READS = 500
PEAK_MIB = 150
_WAL_STREAMS = 1000
_CHECKPOINT_EVENTS = 100_000
_OPTIONS = Options(background=False)


class Cost(msgspec.Struct):
    """What reads of one kind took: milliseconds of each, and at most so many ranges and files."""

    name: str
    times: list[float]
    ranges: int
    files: int


class Costs(msgspec.Struct):
    """What the reading process found.

    Attributes:
        runs: Of the newest checkpoint.
        opened: Milliseconds, ranges and files of opening the store and reading one position.
        memory: Its peak, in MiB.
    """

    runs: int
    opened: Cost
    costs: list[Cost]
    memory: float


def run() -> list[Line]:
    path = directory() / f"events-{EVENTS}"
    print(f"events: {EVENTS:,} events appended and checkpointed in {_fill(path):.0f} s")
    command = [sys.executable, "-m", "bench.stores.events", str(path), str(EVENTS)]
    done = subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).parents[2])
    found = msgspec.json.decode(done.stdout, type=Costs)
    opened = found.opened
    print(
        f"events: {found.runs} runs; opening and the first read: {opened.times[0]:.0f} ms, {opened.ranges} range "
        f"requests, {opened.files} files"
    )
    of_tag = found.runs + STREAM // BATCH
    most = {"version": 1, "position": found.runs, "stream of 50": of_tag + 1, "50 with a tag": of_tag}
    lines = []
    for cost in found.costs:
        print(f"events: {cost.name}: {statistics.median(cost.times):.2f} ms, files at most: {cost.files}")
        name = f"events, {EVENTS:,}: {cost.name}, most range requests / runs"
        lines.append(limit(name, cost.ranges, found.runs, most[cost.name], "requests"))
    return [*lines, limit(f"events, {EVENTS:,}: peak memory / 1 MiB", found.memory, 1.0, PEAK_MIB, "MiB")]


def _fill(path: Path) -> float:
    started = time.perf_counter()
    generator = random.Random(1)
    streams = EVENTS // STREAM
    appended = 0
    with agola_core.open_events(path, options=_OPTIONS) as store:
        for version in range(0, STREAM, BATCH):
            for start in range(0, streams, _WAL_STREAMS):
                numbers = range(start, min(streams, start + _WAL_STREAMS))
                store.append_all(
                    [StreamEvents(_events(number, generator), f"s{number}", version) for number in numbers]
                )
                appended += len(numbers) * BATCH
                if appended >= _CHECKPOINT_EVENTS:
                    _checkpoint(store)
                    appended = 0
        _checkpoint(store)
    return time.perf_counter() - started


def _checkpoint(store: EventStore) -> None:
    store.store.checkpoint(force=True)
    store.store.clean_up()
    store.store.collect_garbage()


def _events(stream: int, generator: random.Random) -> list[Event]:
    return [Event("Happened", generator.randbytes(200), tags=[f"group:{stream // 5}"]) for _ in range(BATCH)]


class _Counter:
    """Counts the ranges that are read of this process's files, and the files."""

    def __init__(self) -> None:
        self.ranges = 0
        self.files: set[int] = set()
        original = FileReader.read

        def counted(reader: FileReader, offset: int, length: int) -> bytes:
            self.ranges += 1
            self.files.add(id(reader))
            return original(reader, offset, length)

        FileReader.read = counted  # type: ignore[assignment,method-assign] # its argument has another name

    def take(self, name: str, works: Iterable[Callable[[], Any]]) -> Cost:
        """Do works; return what they took."""
        cost = Cost(name, [], 0, 0)
        for work in works:
            self.ranges = 0
            self.files.clear()
            started = time.perf_counter()
            work()
            cost.times.append(1000 * (time.perf_counter() - started))
            cost.ranges = max(cost.ranges, self.ranges)
            cost.files = max(cost.files, len(self.files))
        return cost


def _read(path: str, events: int) -> Costs:
    counter = _Counter()
    generator = random.Random(2)
    streams = events // STREAM
    stores: list[EventStore] = []

    def opening() -> None:
        stores.append(agola_core.open_events(path, options=_OPTIONS))
        position()

    def position() -> None:
        after = generator.randrange(events)
        assert next(stores[0].read(after=after, limit=1)).position == after + 1

    def version() -> None:
        assert stores[0].version(f"s{generator.randrange(streams)}") == STREAM

    def stream() -> None:
        assert len(list(stores[0].read_stream(f"s{generator.randrange(streams)}"))) == STREAM

    def tag() -> None:
        query = Query(tags=[f"group:{generator.randrange(streams // 5)}"])
        assert len(list(stores[0].read(query, limit=STREAM))) == STREAM

    opened = counter.take("opening", [opening])
    kinds = {"version": version, "position": position, "stream of 50": stream, "50 with a tag": tag}
    for work in kinds.values():
        counter.take("indexes", [work] * (READS // 5))
    costs = [counter.take(name, [work] * READS) for name, work in kinds.items()]
    runs = len(stores[0].store._log.view.manifest.runs)
    stores[0].close()
    status = Path("/proc/self/status").read_text()  # a child's ru_maxrss begins with its parent's
    return Costs(runs, opened, costs, int(status.split("VmHWM:")[1].split()[0]) / 1024)


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(_read(sys.argv[1], int(sys.argv[2]))))
