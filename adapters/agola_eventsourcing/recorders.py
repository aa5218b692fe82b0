"""Recorders of aggregates, applications and processes on the event store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    Notification,
    ProcessRecorder,
    StoredEvent,
    Tracking,
)

from agola_core.datamanager import ChangeGroupsToken, Put
from agola_core.errors import ConflictError
from agola_core.events import EventStore, Query
from agola_eventsourcing.errors import translated
from agola_eventsourcing.streams import (
    FirstVersions,
    IdType,
    appends,
    by_stream,
    first_version,
    id_reader,
    notification,
    positions,
    stored_event,
)
from agola_eventsourcing.subscription import AgolaSubscription
from agola_eventsourcing.tracking import AgolaTrackingRecorder, tracked


class AgolaAggregateRecorder(AggregateRecorder):
    """Records the events of aggregates, each aggregate in a stream.

    Args:
        store: The store, which stays the factory's to close.
        id_type: Whether ids of aggregates are UUIDs or text.

    Attributes:
        store: The store.
    """

    def __init__(self, store: EventStore, id_type: IdType = "uuid") -> None:
        super().__init__()
        self.store = store
        self.read_id = id_reader(id_type)
        self._firsts = FirstVersions(store)

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Append events as one WAL, all or none.

        Raises:
            IntegrityError: An aggregate has such a version already, or lacks the one before.
        """
        self._insert(stored_events, **kwargs)
        return None

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """Return events of an aggregate (see the library)."""
        with translated():
            self.store.store.refresh()  # what other processes have committed, as from any database
            stream = str(originator_id)
            offset = 0 if gt is None and lte is None else 1 - self._firsts.of(stream)
            events = list(
                self.store.read_stream(
                    stream,
                    after=0 if gt is None else max(gt + offset, 0),
                    until=None if lte is None else max(lte + offset, 0),
                    limit=limit,
                    backwards=desc,
                )
            )
            if events:
                self._firsts.learn(stream, first_version(events[0]))
            return [stored_event(event, self.read_id) for event in events]

    def _insert(self, stored_events: Sequence[StoredEvent], **_: Any) -> list[int]:
        with translated():
            return self._append(stored_events, (), None)

    def _append(
        self, stored_events: Sequence[StoredEvent], along: Sequence[Put], token: ChangeGroupsToken | None
    ) -> list[int]:
        if not stored_events:
            if along:
                self.store.store.write_wal(along, token)
            return []
        streams = by_stream(stored_events)
        begun = {stream for stream, events in streams.items() if events[0].originator_version == 1}
        parts = appends(streams, lambda stream: 1 if stream in begun else self._firsts.of(stream))
        try:
            last = self.store.append_all(parts, along=along, token=token)
        except ConflictError:
            if all(self._firsts.of(stream) for stream in begun):
                raise
            parts = appends(streams, self._firsts.of)  # version 1 is the second event of some aggregate
            last = self.store.append_all(parts, along=along, token=token)
        return positions(stored_events, streams, last)


class AgolaApplicationRecorder(AgolaAggregateRecorder, ApplicationRecorder):
    """Records the events of an application, whose notifications are numbered by the positions of the store."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Append events as one WAL, and return the ids of their notifications."""
        return self._insert(stored_events, **kwargs)

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """Return notifications (see the library)."""
        after = max((start or 0) - (1 if inclusive_of_start else 0), 0)
        found: list[Notification] = []
        with translated():
            if limit < 1:
                return found
            self.store.store.refresh()
            for event in self.store.read(Query(types=topics), after=after, until=stop):
                if event.stream:  # others are not an aggregate's
                    found.append(notification(event, self.read_id))
                    if len(found) == limit:
                        break
        return found

    def max_notification_id(self) -> int | None:
        """Return the id of the newest notification; None when there is none."""
        with translated():
            self.store.store.refresh()
            return self.store.head or None

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> AgolaSubscription:
        """Return the notifications after one, those that are there and then those to come."""
        return AgolaSubscription(self, gt, topics)


class AgolaProcessRecorder(AgolaTrackingRecorder, AgolaApplicationRecorder, ProcessRecorder):
    """Records events together with the position of the notification that they were made of, all or none."""

    def __init__(self, store: EventStore, id_type: IdType = "uuid") -> None:
        AgolaApplicationRecorder.__init__(self, store, id_type)

    def _insert(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> list[int]:
        tracking: Tracking | None = kwargs.get("tracking")
        if tracking is None:
            return super()._insert(stored_events, **kwargs)
        with translated():
            return tracked(self.store, tracking, lambda put, token: self._append(stored_events, [put], token))
