"""Dynamic consistency boundaries of `eventsourcing` on the event store, which decides their conditions itself."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_

from eventsourcing.dcb.api import (
    DCBAppendCondition,
    DCBEvent,
    DCBQuery,
    DCBReadResponse,
    DCBRecorder,
    DCBSequencedEvent,
    DCBSubscription,
)
from eventsourcing.persistence import ProgrammingError

from agola_core.events import AppendCondition, Event, Events, EventStore, Query, RecordedEvent
from agola_eventsourcing.errors import translated


class AgolaDCBRecorder(DCBRecorder):
    """Appends and reads events by types and tags.

    Args:
        store: The store, which stays the factory's to close.

    Attributes:
        store: The store.
    """

    def __init__(self, store: EventStore) -> None:
        self.store = store

    def read(
        self, query: DCBQuery | None = None, *, after: int | None = None, limit: int | None = None
    ) -> AgolaReadResponse:
        """Return the events that a query means, in the order of their positions (see the library)."""
        with translated():
            self.store.store.refresh()  # what other processes have committed, as from any database
            return AgolaReadResponse(self.store.read(_query(query), after=after or 0, limit=limit), limit)

    def append(self, events: Sequence[DCBEvent], condition: DCBAppendCondition | None = None) -> int:
        """Append events as one WAL, and return the position of the last.

        Raises:
            IntegrityError: An event matches the condition.
        """
        if not events:
            raise ProgrammingError("an append needs at least one event")
        appended = [Event(event.type, bytes(event.data), tuple(event.tags)) for event in events]
        with translated():
            if condition is None:
                return self.store.append(appended)
            decided_on = AppendCondition(_query(condition.fail_if_events_match), condition.after or 0)
            return self.store.append(appended, condition=decided_on)

    def subscribe(self, query: DCBQuery | None = None, *, after: int | None = None) -> AgolaDCBSubscription:
        """Return the events that a query means, those that are there and then those to come."""
        return AgolaDCBSubscription(self, query, after)


class AgolaReadResponse(DCBReadResponse):
    """Events that are read as they are iterated.

    Args:
        events: The events.
        limit: The most of them; None for all.
    """

    def __init__(self, events: Events, limit: int | None) -> None:
        self._events = events
        self._limit = limit
        self._ahead: list[DCBSequencedEvent] | None = None

    @property
    def head(self) -> int | None:
        """Where the store ends, for a read without a limit; else the position of the last event that was read."""
        if self._limit is None:
            return self._events.head or None
        if self._ahead is None:
            with translated():
                self._ahead = [_sequenced(event) for event in self._events][::-1]
            self._last = self._ahead[0].position if self._ahead else None
        return self._last

    def __next__(self) -> DCBSequencedEvent:
        """Return the next event."""
        if self._limit is not None:
            _ = self.head
            if not self._ahead:
                raise StopIteration
            return self._ahead.pop()
        with translated():
            return _sequenced(next(self._events))


class AgolaDCBSubscription(DCBSubscription[AgolaDCBRecorder]):
    """The events that a query means, those that are there and then those to come, from every process.

    Args:
        recorder: The recorder.
        query: The query; None for all events.
        after: Only positions greater than this.
    """

    def __init__(self, recorder: AgolaDCBRecorder, query: DCBQuery | None = None, after: int | None = None) -> None:
        super().__init__(recorder, query, after)
        with translated():
            self._events = recorder.store.subscribe(_query(query), after=after or 0)

    def __next__(self) -> DCBSequencedEvent:
        """Return the next event; wait until there is one.

        Raises:
            StopIteration: The subscription was stopped.
        """
        with translated():
            for event in self._events:
                if not self._has_been_stopped:
                    return _sequenced(event)
                break
        raise StopIteration

    def stop(self) -> None:
        """End the subscription, also while another thread waits for its next event."""
        super().stop()
        self._events.close()


def _query(query: DCBQuery | None) -> Query:
    if query is None or not query.items:
        return Query()
    return reduce(or_, (Query(types=item.types, tags=item.tags) for item in query.items))


def _sequenced(event: RecordedEvent) -> DCBSequencedEvent:
    return DCBSequencedEvent(DCBEvent(event.type, event.data, list(event.tags)), event.position)
