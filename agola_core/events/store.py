"""The event store: streams of events on a datamanager's log."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Items
from typing import TYPE_CHECKING, Self, TypeVar, cast

from agola_core.datamanager.format.events import Event
from agola_core.datamanager.manager import DataManager
from agola_core.datamanager.read.reader import Reader
from agola_core.datamanager.types import Action, ChangeGroupsToken, Put
from agola_core.errors import BadRequestError, ClosedError, ForbiddenError
from agola_core.events.consumer import Consumer
from agola_core.events.preparing import prepare
from agola_core.events.reading import Events, read_query, read_stream
from agola_core.events.subscription import Subscription, mark, marked
from agola_core.events.types import ANY, AppendCondition, Query, StreamEvents, check_name, check_query
from agola_core.runtime.closing import Closing
from agola_core.runtime.lazy import LazyModule

if TYPE_CHECKING:
    from agola_core.datamanager.read import past_store
else:
    past_store = LazyModule("agola_core.datamanager.read.past_store")

T = TypeVar("T")

_EVERYTHING = Query()


class EventStore(Closing):
    """The events of a store. Thread-safe; a context manager.

    Every method raises `ClosedError` once it was closed. On a past store it only reads: what writes, subscribes or
    consumes raises `ForbiddenError`.

    Args:
        store: An open datamanager, or a past store (`agola_core.open(at=...)`); it stays its owner's to close.

    Attributes:
        store: The datamanager, for checkpoints, exports and everything else that is not about events.

    Example:
        >>> import agola_core, tempfile
        >>> with tempfile.TemporaryDirectory() as directory, agola_core.open_events(directory) as store:
        ...     position = store.append([Event("Opened", tags=["account:1"])], stream="account-1")
        ...     [event.type for event in store.read(Query(tags=["account:1"]))]
        ['Opened']
    """

    def __init__(self, store: DataManager | past_store.PastStore) -> None:
        if not isinstance(store, Reader):
            raise BadRequestError(f"an event store stands on an open datamanager, not on {type(store).__name__}")
        self.store = cast("DataManager", store)
        self._writable = isinstance(store, DataManager)
        self._closed = False

    def __enter__(self) -> Self:
        """Return this."""
        self._check_open()
        return self

    # Writing

    def append(
        self,
        events: Iterable[Event],
        stream: str | None = None,
        expected_version: int | None = ANY,
        *,
        condition: AppendCondition | Iterable[AppendCondition] = (),
        along: Iterable[Action] = (),
        token: ChangeGroupsToken | None = None,
        by: Subscription | None = None,
        timeout: float | None = None,
    ) -> int:
        """Append events as one WAL, all or none, and return the position of the last.

        The conditions are decided when the WAL is committed, against all events of all writers.
        Events with ids that are all there already, just so, are not appended again: their position is returned.

        Args:
            events: At least one.
            stream: The stream; None for events that only queries find.
            expected_version: The version that the stream must have: 0 for `NO_STREAM`, None for `ANY`.
            condition: No event may be there that matches it; several must all hold.
            along: Puts and deletes of objects in the same WAL, and marks of readers (`mark`).
            token: What the writer saw of some change groups.
            by: The reader of a group (`consume`) that appends: refused once its turn is over.
            timeout: Seconds to wait for the WAL's turn, and with storage durability for its sync.

        Raises:
            ConflictError: The stream has another version, an event matches, a change group moved, or `by` has lost
                its turn.
            FencedError: `by` knows that it has lost its turn, or never had it.
            BadRequestError: Anything is malformed, or an event's id was used in another append.
            DeadlineError: As for `write_wal`.
            UnknownOutcomeError: As for `write_wal`; a retry tells, when the events have ids.
        """
        conditions = _conditions(condition)
        return self._append(
            [StreamEvents(_listed(events), stream, expected_version)], conditions, along, token, by, timeout
        )

    def append_all(
        self,
        appends: Iterable[StreamEvents],
        *,
        condition: AppendCondition | Iterable[AppendCondition] = (),
        along: Iterable[Action] = (),
        token: ChangeGroupsToken | None = None,
        by: Subscription | None = None,
        timeout: float | None = None,
    ) -> int:
        """Append to several streams as one WAL, all or none; otherwise as `append`.

        Args:
            appends: At least one; each stream once.
            condition: As for `append`, and so all that follows.
            along: Objects in the same WAL.
            token: What the writer saw of some change groups.
            by: The reader of a group that appends.
            timeout: Seconds to wait.
        """
        conditions = _conditions(condition)
        parts = list(_items(appends, "appends", "StreamEvents"))
        for part in parts:
            if not isinstance(part, StreamEvents):
                raise BadRequestError(f"appends are a list of StreamEvents, and {part!r} is none"[:300])
        return self._append(parts, conditions, along, token, by, timeout)

    def mark(self, name: str, position: int) -> Put:
        """Return the action that notes how far a reader has come, for `along`.

        Args:
            name: The reader's.
            position: Everything up to it is dealt with.
        """
        check_name(name, "name")
        if type(position) is not int or position < 0:
            raise BadRequestError(f"a position is 0 or more: {position!r}"[:300])
        self._check_writable()
        if position > self.head:
            self.store.refresh()  # another process may have seen it first
            if position > self.head:
                raise BadRequestError(f"position {position} lies after the newest event, at {self.head}")
        return mark(name, position)

    # Reading

    def read_stream(
        self,
        stream: str,
        *,
        after: int = 0,
        until: int | None = None,
        limit: int | None = None,
        backwards: bool = False,
    ) -> Events:
        """Return the events of a stream, none for one that is not there.

        Args:
            stream: Its name.
            after: Only versions greater than this.
            until: Only versions up to this; None for all.
            limit: The most events; None for all.
            backwards: Whether to begin with the newest.
        """
        self._check_open()
        check_name(stream, "stream")
        _check_range(after, until, limit)
        return read_stream(self.store, stream, after, until, limit, backwards=backwards)

    def read(
        self,
        query: Query = _EVERYTHING,
        *,
        after: int = 0,
        until: int | None = None,
        limit: int | None = None,
        backwards: bool = False,
    ) -> Events:
        """Return the events that a query means, in the order of their positions.

        Args:
            query: The query; all events by default.
            after: Only positions greater than this.
            until: Only positions up to this; None for all.
            limit: The most events; None for all.
            backwards: Whether to begin with the newest.
        """
        self._check_open()
        check_query(query)
        _check_range(after, until, limit)
        return read_query(self.store, query, after, until, limit, backwards=backwards)

    def version(self, stream: str) -> int:
        """Return the version of a stream; 0 for one that has no events."""
        self._check_open()
        check_name(stream, "stream")
        with self.store.event_index() as index:
            return index.version(stream)

    @property
    def head(self) -> int:
        """The position of the newest event that this process knows; 0 for none."""
        self._check_open()
        with self.store.event_index() as index:
            return index.head

    def find(self, event_id: str) -> int:
        """Return the position of the event that was appended with an id; 0 if there is none."""
        self._check_open()
        check_name(event_id, "event id")
        with self.store.event_index() as index:
            return index.find_id(event_id)

    # Subscribing

    def subscribe(self, query: Query = _EVERYTHING, after: int | None = None, *, name: str = "") -> Subscription:
        """Return the events that match a query after a position: first the existing ones, then new ones.

        Args:
            query: The query; all events by default.
            after: The position; 0 for all events. None begins where the named reader's `ack` or `mark` has come to,
                and without a name at the newest event, so that only events to come are returned.
            name: The reader's, for its acknowledged position.
        """
        self._check_writable()
        check_query(query)
        if name:
            check_name(name, "name")
        if after is None:
            after = self.marked(name) if name else self.head
        _check_range(after, None, None)
        return Subscription(self.store, query, after, name)

    def consume(self, name: str, query: Query = _EVERYTHING) -> Consumer:
        """Return a reader of a group: of all with its name, in all processes, one at a time is given events.

        It begins at what the group acknowledged; when it ends, another reader of the group continues from there.

        Args:
            name: The group's.
            query: The query; all events by default.
        """
        self._check_writable()
        check_name(name, "name")
        check_query(query)
        return Consumer(self.store, query, name)

    def marked(self, name: str) -> int:
        """Return the position up to which a reader has acknowledged; 0 for one that is not known."""
        self._check_open()
        check_name(name, "name")
        return marked(self.store, name)

    # Lifecycle

    def close(self) -> None:
        """End it, and close what `open_events` opened; closing twice is harmless."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the event store was closed")

    def _check_writable(self) -> None:
        self._check_open()
        if not self._writable:
            raise ForbiddenError("the events of a past state are only read: nothing is appended, and none will come")

    def __repr__(self) -> str:
        """Return the store."""
        return f"<EventStore{' (closed)' if self._closed else ''} on {self.store!r}>"

    def _append(
        self,
        appends: list[StreamEvents],
        conditions: tuple[AppendCondition, ...],
        along: Iterable[Action],
        token: ChangeGroupsToken | None,
        by: Subscription | None,
        timeout: float | None,
    ) -> int:
        self._check_writable()
        if not appends:
            raise BadRequestError("an append needs at least one event")
        append, batches = prepare(appends, conditions)
        if by is not None and not isinstance(by, Subscription):
            raise BadRequestError(f"by is the reader that `consume` gave, not {type(by).__name__}")
        guards = by.fences() if by is not None else ()
        self.store.append_events(append, batches, along, token, timeout=timeout, guards=guards)
        return append.last


def _conditions(given: AppendCondition | Iterable[AppendCondition]) -> tuple[AppendCondition, ...]:
    if isinstance(given, Query):
        raise BadRequestError("a condition is an AppendCondition: AppendCondition(query, after=position)")
    if isinstance(given, AppendCondition):
        return (given,)
    return _items(given, "conditions", "AppendConditions")


def _listed(events: Iterable[Event]) -> Items[Event]:
    if isinstance(events, Event):
        raise BadRequestError("events are a list, not a single one")
    return events if isinstance(events, (list, tuple)) else _items(events, "events", "Events")


def _items(given: Iterable[T], name: str, kind: str) -> tuple[T, ...]:
    try:
        return tuple(given)
    except TypeError as error:
        raise BadRequestError(f"{name} are a list of {kind}, not {type(given).__name__}") from error


def _check_range(after: int, until: int | None, limit: int | None) -> None:
    for name, value in (("after", after), ("until", until or 0), ("limit", limit or 0)):
        if type(value) is not int or value < 0:
            raise BadRequestError(f"{name} is 0 or more: {value!r}"[:300])
