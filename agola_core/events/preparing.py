"""From what an application appends to what the datamanager commits: checked, cut into batches and encoded."""

from __future__ import annotations

from collections.abc import Sequence as Items

from agola_core.datamanager.format.events import Event, QueryItem, unplaced
from agola_core.datamanager.log.commit.pending_wal import EventsAppend, StreamAppend
from agola_core.datamanager.types import Put
from agola_core.errors import BadRequestError
from agola_core.events.types import AppendCondition, Query, StreamEvents, check_name, is_name

_BATCH_EVENTS = 128
_BATCH_BYTES = 16 * 1024
"""A batch is decoded whole to read one of its events, so it stays small."""

_ALL = (QueryItem(),)


def prepare(appends: Items[StreamEvents], conditions: Items[AppendCondition]) -> tuple[EventsAppend, list[Put]]:
    """Return the events as the datamanager takes them, and their encoded batches.

    Raises:
        BadRequestError: Anything is not what it should be; names the event.
    """
    puts: list[Put] = []
    parts: list[StreamAppend] = []
    ids: list[str] = []
    checked = bool(conditions)
    for append in appends:
        events = _checked(append, ids)
        checked |= append.expected_version is not None
        stream = append.stream or ""
        sizes = []
        for batch in _batches(events):
            try:
                puts.append(unplaced(stream, batch))
            except (TypeError, ValueError, OverflowError, RecursionError) as error:
                raise BadRequestError(f"metadata of stream {stream!r}: {error}") from error
            sizes.append(len(batch))
        parts.append(StreamAppend(stream, append.expected_version, events, sizes))
    if len(parts) > 1 and len({part.stream for part in parts}) != len(parts):
        raise BadRequestError("a stream stands twice in one append")
    if ids and len(set(ids)) != len(ids):
        raise BadRequestError("an event id stands twice in one append")
    decided = tuple([_condition(condition) for condition in conditions]) if conditions else ()
    return EventsAppend(tuple(parts), decided, tuple(ids), checked or bool(ids)), puts


def _condition(condition: AppendCondition) -> tuple[tuple[QueryItem, ...], int]:
    if not isinstance(condition, AppendCondition) or not isinstance(condition.query, Query):
        raise BadRequestError(f"a condition is an AppendCondition with a Query: {condition!r}"[:300])
    if type(condition.after) is not int or condition.after < 0:
        raise BadRequestError(f"a condition's position is 0 or more: {condition.after!r}"[:300])
    return condition.query.items or _ALL, condition.after


def _checked(append: StreamEvents, ids: list[str]) -> tuple[Event, ...]:
    stream, expected = append.stream, append.expected_version
    if stream is not None:
        check_name(stream, "stream")
    if expected is not None:
        if type(expected) is not int or expected < 0:
            raise BadRequestError(f"an expected version is 0 or more, or None for any: {expected!r}"[:300])
        if stream is None:
            raise BadRequestError("an expected version needs a stream")
    if isinstance(append.events, Event):
        raise BadRequestError("events are a list, not a single one")
    events = tuple(append.events)
    if not events:
        raise BadRequestError("an append needs at least one event")
    checked: object = None
    for index, event in enumerate(events):
        if (
            type(event) is not Event
            or type(event.data) is not bytes
            or type(event.metadata) is not dict
            or (event.type != checked and not is_name(event.type))
        ):
            raise _complaint(event, index)
        checked = event.type
        if event.tags and not all(map(is_name, event.tags)):
            for tag in event.tags:
                check_name(tag, f"event {index}, tags")
        if event.metadata and any(type(key) is not str for key in event.metadata):
            raise _complaint(event, index)
        if event.id != "":
            check_name(event.id, f"event {index}, id")
            ids.append(event.id)
    return events


def _complaint(event: object, index: int) -> BadRequestError:
    if not isinstance(event, Event):
        return BadRequestError(f"event {index}: expected Event, not {type(event).__name__}")
    if type(event.data) is not bytes:
        return BadRequestError(f"event {index}: data must be bytes, not {type(event.data).__name__}")
    if type(event.metadata) is not dict or any(type(key) is not str for key in event.metadata):
        return BadRequestError(f"event {index}: metadata is a dict with text as keys")
    return BadRequestError(f"event {index}: not a type: {event.type!r}"[:300])


def _batches(events: tuple[Event, ...]) -> list[Items[Event]]:
    sizes = [len(event.data) for event in events]
    if len(events) <= _BATCH_EVENTS and sum(sizes) <= _BATCH_BYTES:
        return [events]
    batches: list[Items[Event]] = []
    first = size = 0
    for index, length in enumerate(sizes):
        if index > first and (index - first == _BATCH_EVENTS or size + length > _BATCH_BYTES):
            batches.append(events[first:index])
            first, size = index, 0
        size += length
    batches.append(events[first:])
    return batches
