"""Stored events of `eventsourcing` as events of streams, and back.

An aggregate is a stream, named by its id; an event's version in the stream is the
aggregate's, or one more for aggregates whose versions begin with 0. What the library calls
topic and state are an event's type and data.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Literal
from uuid import UUID

from eventsourcing.persistence import Notification, StoredEvent

from agola_core.errors import BadRequestError, ConflictError
from agola_core.events import Event, EventStore, RecordedEvent, StreamEvents

IdType = Literal["uuid", "text"]

_FIRST = "first"
"""Metadata of events of aggregates whose versions begin with 0."""
_KNOWN_STREAMS = 10_000


def change_group(*names: str) -> str:
    """Return the change group of something that is written only under a token; names may be any text."""
    digest = hashlib.blake2b("\0".join(names).encode(), digest_size=16)
    return f"eventsourcing:{digest.hexdigest()}"


def id_reader(id_type: IdType) -> Callable[[str], UUID | str]:
    """Return the function that makes an originator's id of a stream's name."""
    return UUID if id_type == "uuid" else str


class FirstVersions:
    """With which version each aggregate begins: 1, as in the library by default, or 0. Thread-safe.

    Versions of streams always begin with 1, and the first version of an aggregate never changes, so it is read once.
    """

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._known: dict[str, int] = {}

    def of(self, stream: str) -> int:
        """Return the first version of an aggregate; 1 for one that has no events."""
        first = self._known.get(stream)
        if first is None:
            for event in self._store.read_stream(stream, limit=1):
                first = first_version(event)
                self.learn(stream, first)
        return 1 if first is None else first

    def learn(self, stream: str, first: int) -> None:
        """Remember the first version of an aggregate that has events."""
        if len(self._known) >= _KNOWN_STREAMS:
            self._known.clear()
        self._known[stream] = first


def first_version(event: RecordedEvent) -> int:
    """Return the version with which the aggregate of an event begins."""
    return 0 if event.metadata.get(_FIRST) == 0 else 1


def by_stream(stored_events: Iterable[StoredEvent]) -> dict[str, list[StoredEvent]]:
    """Return the events of each aggregate, in their order, by the name of its stream."""
    by_id: dict[UUID | str, list[StoredEvent]] = {}
    for stored in stored_events:
        by_id.setdefault(stored.originator_id, []).append(stored)
    streams: dict[str, list[StoredEvent]] = {}
    for originator_id, events in by_id.items():  # the text of a UUID is made once
        streams.setdefault(str(originator_id), []).extend(events)
    return streams


def appends(streams: dict[str, list[StoredEvent]], firsts: Callable[[str], int]) -> list[StreamEvents]:
    """Return what is to be appended to which stream, and the versions that the streams must have.

    Args:
        streams: The events of each aggregate (see `by_stream`).
        firsts: The first version of an aggregate that may have events; one that begins with 0 here is not asked for.

    Raises:
        BadRequestError: A version is less than 0.
        ConflictError: Two versions of one aggregate are equal, or leave one out.
    """
    return [_append(stream, events, firsts) for stream, events in streams.items()]


def _append(stream: str, events: list[StoredEvent], firsts: Callable[[str], int]) -> StreamEvents:
    begin = events[0].originator_version
    if begin < 0:
        raise BadRequestError(f"a version is 0 or more: {stream} has {begin}")
    for version, stored in enumerate(events, begin):
        if stored.originator_version != version:
            raise ConflictError(f"version {stored.originator_version} of {stream} does not follow the one before")
    first = firsts(stream) if begin else 0
    metadata = {} if first else {_FIRST: 0}
    recorded = [Event(event.topic, bytes(event.state), metadata=metadata) for event in events]
    return StreamEvents(recorded, stream, begin - first)


def positions(stored_events: Sequence[StoredEvent], streams: dict[str, list[StoredEvent]], last: int) -> list[int]:
    """Return the position of each stored event of one append.

    Args:
        stored_events: In the order in which they were given.
        streams: The same, by stream, as they were appended.
        last: The position of the append's last event.
    """
    first = last - len(stored_events) + 1
    if len(streams) == 1:
        return list(range(first, last + 1))
    appended = itertools.chain.from_iterable(streams.values())
    by_event = {id(stored): position for position, stored in enumerate(appended, first)}
    return [by_event[id(stored)] for stored in stored_events]


def stored_event(event: RecordedEvent, read_id: Callable[[str], UUID | str]) -> StoredEvent:
    """Return a recorded event as the library's stored event."""
    return StoredEvent(read_id(event.stream), _version(event), event.type, event.data)


def notification(event: RecordedEvent, read_id: Callable[[str], UUID | str]) -> Notification:
    """Return a recorded event as the library's notification; its id is the event's position."""
    return Notification(
        originator_id=read_id(event.stream),
        originator_version=_version(event),
        topic=event.type,
        state=event.data,
        id=event.position,
    )


def _version(event: RecordedEvent) -> int:
    return event.version - 1 + first_version(event)
