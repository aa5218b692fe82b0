"""One operation on one store, in a process of its own: `python -m bench.stores.scale_operation OPERATION STORE`.

It prints what the operation took (see `Taken`) as JSON. `STORE` is the JSON of a `Target`.
"""

from __future__ import annotations

import base64
import io
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import msgspec

import agola_core
from agola_core import Options, Put

if TYPE_CHECKING:
    from agola_core.datamanager.manager import DataManager

SIZE = 1024
CHANGES = 1000
READS = 1000
STEP = 10_000
"""A read of every so many objects comes to every data file: one has about 31,000."""


class Target(msgspec.Struct, frozen=True):
    """A store, and the file that it is exported to and imported from.

    Attributes:
        storage: The URL of its storage.
        coordinator: The URL of its coordinator.
        objects: How many objects it has.
        export: The path of the file.
    """

    storage: str
    coordinator: str
    objects: int
    export: str


class Taken(msgspec.Struct, frozen=True):
    """What an operation took.

    Attributes:
        seconds: Time.
        processor: Processor time of the whole process's threads, in seconds.
        peak: The most memory that the process had, in MiB.
        read: Bytes read: by system calls, or from the S3 server.
        written: Bytes written, likewise.
        requests: Requests to the S3 server by method.
    """

    seconds: float
    processor: float
    peak: float
    read: int
    written: int
    requests: dict[str, int]


def object_id(number: int) -> str:
    return f"object-{number:09}"


class _Moved:
    """Counts what is moved: by the kernel's count of system calls, and by requests."""

    def __init__(self) -> None:
        from agola_core.objectstorage.s3.protocol.connection import Connections

        self.requests: Counter[str] = Counter()
        self.received = self.sent = 0
        original = Connections.request

        def request(connections, method, target, headers, body, seconds):  # type: ignore[no-untyped-def]
            answer = original(connections, method, target, headers, body, seconds)
            self.requests["LIST" if "list-type" in target else method] += 1
            self.received += len(answer.body)
            self.sent += len(body)
            return answer

        Connections.request = request  # type: ignore[method-assign]

    def now(self) -> tuple[int, int]:
        counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
        return int(counts["rchar"]) + self.received, int(counts["wchar"]) + self.sent


def _generated(objects: int) -> Iterator[bytes]:
    """Yield the export of a store that nobody had: the entries alone, as Agola 0.2 writes them."""
    generator = random.Random(objects)
    for start in range(0, objects, 1000):
        yield b"".join(
            b'{"id":"%s","data_type":"object","data":"%s"}'
            % (object_id(number).encode(), base64.b64encode(generator.randbytes(SIZE)))
            for number in range(start, min(start + 1000, objects))
        )


class _Pieces(io.RawIOBase):
    """A file of pieces that are made while it is read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self._held = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if not self._held:
            self._held = memoryview(next(self._pieces, b""))
        piece = self._held[: len(buffer)]
        buffer[: len(piece)] = piece
        self._held = self._held[len(piece) :]
        return len(piece)


def _make(dm: DataManager, target: Target) -> None:
    dm.import_(cast("IO[bytes]", io.BufferedReader(_Pieces(_generated(target.objects)), 1 << 20)))


def _point_read(dm: DataManager, target: Target, *, reads: int) -> None:
    for _ in range(reads):
        dm.read_object("object", object_id(random.randrange(target.objects)))


def _scan(dm: DataManager, target: Target) -> None:
    found = sum(1 for _ in dm.list_objects("object"))
    assert found == target.objects, found


def _checkpoint(dm: DataManager, _target: Target) -> None:
    dm.checkpoint(force=True)


def _collect(dm: DataManager, _target: Target) -> None:
    dm.collect_garbage()


def _nothing(_dm: DataManager, _target: Target) -> None:
    """Do nothing: opening is what is measured."""


def _verify(dm: DataManager, _target: Target) -> None:
    findings = dm.verify()
    assert findings == [], findings


def _change(dm: DataManager, target: Target) -> None:
    numbers = random.sample(range(target.objects), CHANGES)
    dm.write_wal([Put("object", object_id(number), random.randbytes(SIZE)) for number in numbers])
    dm.sync()


def _export(dm: DataManager, target: Target) -> None:
    from agola_core.datamanager import Compression

    with Path(target.export).open("wb") as file:
        dm.export(file, compression=Compression.of("x.zst"))


def _import(dm: DataManager, target: Target) -> None:
    with Path(target.export).open("rb") as file:
        dm.import_(file)


OPERATIONS: dict[str, Callable[[DataManager, Target], None]] = {
    "make": _make,
    "open": _nothing,
    "recover from storage": _nothing,
    "point read": partial(_point_read, reads=1),
    f"{READS:,} point reads": partial(_point_read, reads=READS),
    f"{READS:,} point reads, indexes known": partial(_point_read, reads=READS),
    f"checkpoint of {CHANGES:,} changes": _checkpoint,
    "ordered scan": _scan,
    "gc": _collect,
    "verify": _verify,
    "export": _export,
    "import": _import,
}
_WITH_OPENING = ("open", "recover from storage")


def main(operation: str, target: Target) -> None:
    moved = _Moved()
    opened = _now(moved)
    with agola_core.open(
        storage=target.storage,
        coordinator=target.coordinator,
        data_types=["object"],
        options=Options(background=False),
    ) as dm:
        if operation.startswith("checkpoint"):
            _change(dm, target)
        elif operation.endswith("indexes known"):
            for number in range(0, target.objects, STEP):
                dm.read_object("object", object_id(number))
        before = opened if operation in _WITH_OPENING else _now(moved)
        OPERATIONS[operation](dm, target)
        after = _now(moved)
    status = Path("/proc/self/status").read_text()  # a child's ru_maxrss begins with its parent's
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    seconds, processor, read, written = (end - begin for begin, end in zip(before[:4], after[:4], strict=True))
    requests = after[4] - before[4]
    taken = Taken(seconds, processor, peak, int(read), int(written), dict(requests))
    print(msgspec.json.encode(taken).decode())


def _now(moved: _Moved) -> tuple[float, float, int, int, Counter[str]]:
    return time.perf_counter(), time.process_time(), *moved.now(), Counter(moved.requests)


if __name__ == "__main__":
    main(sys.argv[1], msgspec.json.decode(sys.argv[2], type=Target))
