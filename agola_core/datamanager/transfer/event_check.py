"""Whether the events of an import are whole: positions and versions without gaps, and indexes that say the same.

An export without a digest may have been cut or changed, and an index that lies would be found only much later. What
the batches say should be in the indexes, and what is in them, are compared by sums of hashes, in whatever order they
come and without holding any of it.
"""

from __future__ import annotations

import hashlib
from collections import Counter

from agola_core.datamanager.format.events import (
    EVENTS,
    FIRST,
    HEADS,
    IDS,
    INDEXES,
    MARKS,
    STREAMS,
    TAGS,
    TYPES,
    Batch,
    decode_batch,
    key,
    key_number,
    number,
)
from agola_core.errors import BadRequestError, CorruptionError

_MODULUS = 1 << 128


class EventsCheck:
    """Looks at the objects of an import, each type's in the order of their ids."""

    def __init__(self) -> None:
        self._head = 0
        self._stream = ""
        self._version = 0
        self._sums: Counter[str] = Counter()

    def entry(self, data_type: str, object_id: str, data: bytes) -> None:
        """Look at an object.

        Raises:
            BadRequestError: It is a batch that does not follow, or an entry of an index that is none.
        """
        if data_type == EVENTS:
            self._batch(object_id, data)
        elif data_type in INDEXES:
            try:
                if data_type == STREAMS:
                    self._follow(object_id)
                self._add(data_type, object_id, data, -1)
            except ValueError as error:
                raise BadRequestError("not an entry of an index of events") from error
        elif data_type == MARKS and not data.isdigit():
            raise BadRequestError("not the position of a reader")

    def end(self) -> None:
        """Look at the whole.

        Raises:
            BadRequestError: The indexes do not say what the events do.
        """
        self._end_stream()
        for what, total in self._sums.items():
            if total % _MODULUS:
                raise BadRequestError(f"the events do not fit their index {what!r}: entries are missing or others")

    def _batch(self, object_id: str, data: bytes) -> None:
        try:
            batch = decode_batch(data)
        except CorruptionError as error:
            raise BadRequestError(error.message) from error
        if not batch.events or batch.position != self._head + 1 or object_id != number(batch.last):
            raise BadRequestError(f"events do not follow position {self._head}")
        self._head = batch.last
        end = b"%d" % batch.last
        if batch.stream:
            self._add(STREAMS, key(batch.stream, batch.version + len(batch.events) - 1), end, 1)
            self._add("versions", key(batch.stream, batch.version), b"", 1)
        self._add_events(batch, end)

    def _add_events(self, batch: Batch, end: bytes) -> None:
        for event in batch.events:
            self._add(TYPES, key(event.type, event.position), end, 1)
            for tag in event.tags:
                self._add(TAGS, key(tag, event.position), end + b" " + event.type.encode(), 1)
            if event.id:
                self._add(IDS, event.id, b"%d %d" % (event.position, batch.last), 1)

    def _follow(self, entry: str) -> None:
        """Note where a batch of a stream must begin, by the end of the one before it."""
        stream = entry[:-17]
        if stream != self._stream:
            self._end_stream()
            self._stream, self._version = stream, 0
        self._add("versions", key(stream, self._version + FIRST), b"", -1)
        self._version = key_number(entry)

    def _end_stream(self) -> None:
        if self._stream:
            self._add(HEADS, self._stream, b"%d" % self._version, 1)

    def _add(self, what: str, entry: str, data: bytes, sign: int) -> None:
        hashed = hashlib.blake2b(f"{len(entry)} {entry}".encode() + data, digest_size=16).digest()
        self._sums[what] += sign * int.from_bytes(hashed, "little")
