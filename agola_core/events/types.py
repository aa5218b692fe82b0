"""The event store's vocabulary: what is appended, what is read, queries and conditions.

Streams, versions and positions are those of event stores in general; queries and append conditions are those of the
published specification of dynamic consistency boundaries (DCB).
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Items

import msgspec

from agola_core.datamanager.format.events import Event, QueryItem, RecordedEvent
from agola_core.errors import BadRequestError

ANY = None
"""The expected version of a stream that may have any."""

NO_STREAM = 0
"""The expected version of a stream that must not have events yet."""

MAX_NAME_BYTES = 400
"""The longest name of a stream, type, tag, event id or reader, in bytes of UTF-8."""


class Query(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    """Which events: those of one of the types that have all of the tags; queries joined by `|` mean those of either.

    Attributes:
        types: The types; none for all.
        tags: The tags, all of which an event must have; none for no demand.
        alternatives: Other queries, any of which an event may be meant by instead; made by `|`.

    Example:
        >>> Query(types=["Opened"], tags=["account:1"]) | Query(tags=["bank:2"])
        Query(types=['Opened'], tags=['account:1']) | Query(tags=['bank:2'])
    """

    types: Iterable[str] = frozenset()
    tags: Iterable[str] = frozenset()
    alternatives: tuple[Query, ...] = ()

    def __post_init__(self) -> None:
        """Take the names from any collection.

        Raises:
            BadRequestError: One is no name, or an alternative is no query.
        """
        if not isinstance(self.alternatives, tuple):
            raise BadRequestError(f"alternatives are a tuple of queries, not {type(self.alternatives).__name__}")
        for other in self.alternatives:
            check_query(other)
        msgspec.structs.force_setattr(self, "types", _names(self.types, "types"))
        msgspec.structs.force_setattr(self, "tags", _names(self.tags, "tags"))

    @property
    def items(self) -> tuple[QueryItem, ...]:
        """The alternatives as the datamanager takes them; none for all events."""
        item = QueryItem(frozenset(self.types), frozenset(self.tags))
        if not item.types and not item.tags:
            return ()
        return (item, *(found for other in self.alternatives for found in other.items))

    def __or__(self, other: Query) -> Query:
        """Return the query for the events of either.

        Raises:
            BadRequestError: The other is no query.
        """
        check_query(other)
        if not self.items or not other.items:  # whatever is joined to "all" is all
            return Query()
        joined = (*self.alternatives, Query(other.types, other.tags), *other.alternatives)
        return Query(self.types, self.tags, tuple(dict.fromkeys(joined)))

    def matches(self, event: Event | RecordedEvent) -> bool:
        """Return whether an event is meant."""
        items = self.items
        return not items or any(item.matches(event.type, event.tags) for item in items)

    def __repr__(self) -> str:
        """Return the query as it is written."""
        return " | ".join(map(_item_repr, self.items)) or "Query()"


class AppendCondition(msgspec.Struct, frozen=True):
    """Append only if no event after a position matches a query.

    Attributes:
        query: What was decided on.
        after: The position up to which its events were read (`Events.head`); 0 for none: no such event may be there.
            The append refuses one past the newest event, which nobody can have read.
    """

    query: Query
    after: int = 0


class StreamEvents(msgspec.Struct, frozen=True):
    """Events for one stream, to be appended together with those of other streams.

    Attributes:
        events: At least one.
        stream: The stream; None for none.
        expected_version: The version that the stream must have: 0 for `NO_STREAM`, None for `ANY`.
    """

    events: Items[Event]
    stream: str | None = None
    expected_version: int | None = ANY


def _names(given: Iterable[str], what: str) -> frozenset[str]:
    try:
        names = (given,) if isinstance(given, str) else tuple(given)
    except TypeError as error:
        raise BadRequestError(f"{what} are a list of names, not {type(given).__name__}") from error
    for name in names:
        check_name(name, what)
    return frozenset(names)


def check_name(name: object, what: str) -> None:
    """Accept a name of a stream, type, tag, event id or reader.

    Raises:
        BadRequestError: It is no text of 1 to `MAX_NAME_BYTES` bytes without NUL.
    """
    if not is_name(name):
        raise BadRequestError(f"{what}: 1 to {MAX_NAME_BYTES} bytes of text without NUL are expected: {name!r}"[:300])


def check_query(query: object) -> None:
    """Accept a query.

    Raises:
        BadRequestError: It is not one.
    """
    if not isinstance(query, Query):
        raise BadRequestError(f"a query is a Query, such as Query(types=[...], tags=[...]), not {query!r}"[:300])


def is_name(name: object) -> bool:
    """Return whether something may be a name: a text of 1 to `MAX_NAME_BYTES` bytes without NUL."""
    if type(name) is not str:
        return False
    try:
        length = len(name) if name.isascii() else len(name.encode())
    except UnicodeEncodeError:
        return False
    return 0 < length <= MAX_NAME_BYTES and "\0" not in name


def _item_repr(item: QueryItem) -> str:
    parts = [f"{name}={sorted(names)}" for name, names in (("types", item.types), ("tags", item.tags)) if names]
    return f"Query({', '.join(parts)})"
