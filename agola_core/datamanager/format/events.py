"""The stored form of events: a batch is one object, and small index entries lead to its events.

An append is one WAL; each of its batches is a put of the reserved type `EVENTS`. Its writer encodes the batch before
its position is known: the put's id is the number of events, its data the body. The leader that commits the WAL records
positions and versions in it (`WalRecord.placed`), and every reader makes the object from them (see `place`)::

    id      = the position of the batch's last event, 16 digits
    data    = first position (u64) first version (u64) microseconds since 1970 (u64), little-endian, body
    body    = MessagePack of [stream, [[type, data, tags, metadata, id] ...]]

Every other type here is an index, derived from the batches and never in a WAL. Keys end in 16 digits, so that they
sort by number, after a NUL, which no name contains.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from collections.abc import Sequence as Items
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from agola_core.datamanager.types import Action, Put
from agola_core.encoding.decoding import DECODE_ERRORS
from agola_core.errors import BadRequestError, CorruptionError

EVENTS = "agola.event"
"""Batches: last position -> header and body."""
STREAMS = "agola.event-stream"
"""Stream, NUL, last version of a batch -> the last position of the batch."""
HEADS = "agola.event-head"
"""Stream -> its last version."""
TYPES = "agola.event-type"
"""Event type, NUL, position -> the last position of its batch."""
TAGS = "agola.event-tag"
"""Tag, NUL, position -> the last position of its batch, and the event's type."""
IDS = "agola.event-id"
"""Event id -> its position and the last position of its batch."""
MARKS = "agola.event-mark"
"""Name of a reader -> the position up to which it has read. Ordinary objects."""

INDEXES = (HEADS, IDS, STREAMS, TAGS, TYPES)
"""The derived types, sorted."""
RESERVED = frozenset({EVENTS, MARKS, *INDEXES})
"""The types that no application writes."""

FIRST = 1
"""The first position of a store, and the first version of a stream."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HEADER = struct.Struct("<QQQ")


class Event(msgspec.Struct, frozen=True, array_like=True):
    """An event to append.

    Attributes:
        type: What kind of thing happened; 1 to 400 bytes of UTF-8 without NUL.
        data: What happened, in the application's own encoding.
        tags: What it is about, for queries and conditions; each as long as a type. Given twice, one counts once.
        metadata: What is noted besides, such as who caused it: text to plain values (text, numbers, bytes, lists ...).
        id: The writer's own name for it, unique in the store, so that a retry appends nothing twice; "" for none.
    """

    type: str
    data: bytes = b""
    tags: Items[str] = ()
    metadata: dict[str, Any] = {}
    id: str = ""

    def __post_init__(self) -> None:
        """Take the tags from any collection, each once.

        Raises:
            BadRequestError: They are no collection, or of what cannot be a tag.
        """
        if self.tags or type(self.tags) is not tuple:
            try:
                tags = (self.tags,) if isinstance(self.tags, str) else tuple(dict.fromkeys(self.tags))
            except TypeError as error:
                raise BadRequestError(f"tags are a list of names, not {self.tags!r}"[:300]) from error
            msgspec.structs.force_setattr(self, "tags", tags)


class StoredEvent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An event in a body: an `Event` as it was encoded."""

    type: str
    data: bytes
    tags: tuple[str, ...]
    metadata: dict[str, Any]
    id: str


class IndexedEvent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What of an event the indexes need; the rest is not decoded."""

    type: str
    data: msgspec.Raw
    tags: tuple[str, ...]
    metadata: msgspec.Raw
    id: str


class _Body(msgspec.Struct, frozen=True, array_like=True, gc=False):
    stream: str
    events: list[StoredEvent]


class _IndexedBody(msgspec.Struct, frozen=True, array_like=True, gc=False):
    stream: str
    events: list[IndexedEvent]


class RecordedEvent(msgspec.Struct, frozen=True):
    """An event of the store.

    Attributes:
        stream: The stream; "" for an event that is in none.
        version: Its number in the stream, from 1 without gaps; 0 outside streams.
        position: Its number in the store, from 1 without gaps: one total order.
        type: As it was given, and so all that follows.
        data: What happened.
        tags: What it is about.
        metadata: What was noted besides.
        id: Its writer's name for it, or "".
        recorded: When it was committed, by that process's clock; for information, it orders nothing.
    """

    stream: str
    version: int
    position: int
    type: str
    data: bytes
    tags: tuple[str, ...]
    metadata: dict[str, Any]
    id: str
    recorded: datetime


class Batch(msgspec.Struct, frozen=True):
    """A batch with its position.

    Attributes:
        stream: The stream; "" for events that are in none.
        position: Of the first event.
        version: Of the first event; 0 outside streams.
        events: In their order.
    """

    stream: str
    position: int
    version: int
    events: list[RecordedEvent]

    @property
    def last(self) -> int:
        """The position of the last event."""
        return self.position + len(self.events) - 1


_encode_body = msgspec.msgpack.Encoder().encode
_decode_body = msgspec.msgpack.Decoder(_Body).decode
_decode_indexed = msgspec.msgpack.Decoder(_IndexedBody).decode


def same_event(event: Event, recorded: RecordedEvent) -> bool:
    """Return whether an event is the one that was recorded: so it would be encoded."""
    given = (event.type, event.data, event.tags, event.metadata, event.id)
    return _encode_body(given) == _encode_body(
        (recorded.type, recorded.data, recorded.tags, recorded.metadata, recorded.id)
    )


def number(value: int) -> str:
    """Return a position or version as keys have it."""
    return f"{value:016d}"


def key(name: str, value: int) -> str:
    """Return the key of an index entry."""
    return f"{name}\0{value:016d}"


def key_number(text: str) -> int:
    """Return the position or version at the end of a key."""
    return int(text[-16:])


def unplaced(stream: str, events: Items[Event]) -> Put:
    """Return the put of a batch whose place is not known yet."""
    return Put(EVENTS, str(len(events)), _encode_body((stream, events)))


def place(actions: Iterable[Action], placed: tuple[int, ...], recorded: int) -> tuple[Action, ...]:
    """Return a WAL's actions with its batches in their places.

    Args:
        actions: As the writer encoded them.
        placed: The position of the first event, then the first version of each batch.
        recorded: The WAL's time.
    """
    position, *versions = placed
    found: list[Action] = []
    number_of_batch = 0
    for action in actions:
        if action.data_type == EVENTS and type(action) is Put:
            header = _HEADER.pack(position, versions[number_of_batch], recorded)
            position += int(action.id)
            number_of_batch += 1
            found.append(Put(EVENTS, f"{position - 1:016d}", header + action.data))
        else:
            found.append(action)
    return tuple(found)


def decode_batch(data: bytes) -> Batch:
    """Return a batch from its object.

    Raises:
        CorruptionError: It is none.
    """
    try:
        position, version, recorded = _HEADER.unpack_from(data)
        body = _decode_body(data[_HEADER.size :])
        time = _EPOCH + timedelta(microseconds=recorded)
    except (struct.error, OverflowError, *DECODE_ERRORS) as error:
        raise CorruptionError(f"not a batch of events: {error}", path=EVENTS) from error
    stream = body.stream
    step = 1 if stream else 0
    events, at_version, at = [], version, position
    for event in body.events:
        events.append(
            RecordedEvent(stream, at_version, at, event.type, event.data, event.tags, event.metadata, event.id, time)
        )
        at_version += step
        at += 1
    return Batch(stream, position, version, events)


def decode_indexed(data: bytes) -> tuple[int, int, str, list[IndexedEvent]]:
    """Return the first position, the first version, the stream and what the indexes need of a batch.

    Raises:
        CorruptionError: It is none.
    """
    try:
        position, version, _ = _HEADER.unpack_from(data)
        body = _decode_indexed(memoryview(data)[_HEADER.size :])
    except (struct.error, *DECODE_ERRORS) as error:
        raise CorruptionError(f"not a batch of events: {error}", path=EVENTS) from error
    return position, version, body.stream, body.events


class QueryItem(msgspec.Struct, frozen=True, gc=False):
    """One alternative of a query: events of one of some types that have all of some tags.

    Attributes:
        types: The types; empty for all.
        tags: The tags, each of which the event has; empty for no demand.
    """

    types: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()

    def matches(self, event_type: str, tags: Iterable[str]) -> bool:
        """Return whether an event is meant."""
        return (not self.types or event_type in self.types) and (not self.tags or self.tags.issubset(tags))
