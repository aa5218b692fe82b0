"""Projections: the tables of a readdb, and how actions change them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from agola_core.datamanager import Action, Feed
from agola_core.db import Tx
from agola_core.errors import BadRequestError
from agola_core.sequence import Sequence


class Projection(Protocol):
    """Some tables, and how actions change them. Plain class attributes will do."""

    @property
    def name(self) -> str:
        """Its name in the readdb."""

    @property
    def version(self) -> int:
        """A change of the version rebuilds the readdb."""

    @property
    def schema(self) -> str:
        """Statements that create its tables, in an empty database."""

    @property
    def data_types(self) -> tuple[str, ...]:
        """The types of objects that it is built from."""

    def apply(self, tx: Tx, actions: Iterable[Action]) -> None:
        """Apply actions to the tables, in order; each is of one of `data_types`.

        Called with the actions of one WAL; in a build, with some of the objects, as puts.
        """


class SnapshotSource(Protocol):
    """One consistent state of a store."""

    @property
    def sequence(self) -> Sequence:
        """The newest WAL that it sees."""

    @property
    def lineage(self) -> str:
        """The history it belongs to."""

    def count(self, data_types: Iterable[str]) -> int:
        """Return about how many objects some types have."""

    def scan(self, data_type: str, start_after: str = "") -> Iterator[tuple[str, bytes]]:
        """Yield a type's objects in the byte order of their ids."""


class Source(Protocol):
    """The source of a readdb: a datamanager."""

    @property
    def lineage(self) -> str:
        """The store's current history."""

    def knows(self, data_type: str) -> bool:
        """Return whether the store can have objects of a type."""

    def snapshot(self) -> AbstractContextManager[SnapshotSource]:
        """Return a consistent state."""

    def watch(self, after: Sequence | str | None = None) -> Feed:
        """Return the feed of the WALs after a sequence."""


def check_projections(projections: Iterable[Projection]) -> tuple[Projection, ...]:
    """Return the projections of a readdb.

    Raises:
        BadRequestError: They are none, two have one name, or one of them is no projection; says which.
    """
    if isinstance(projections, type) or not isinstance(projections, Iterable):
        what = "a single one" if hasattr(projections, "apply") else f"a {type(projections).__name__}"
        raise BadRequestError(f"projections are a list, not {what}")
    found = tuple(projections)
    if not found:
        raise BadRequestError("a readdb needs at least one projection")
    names = set()
    for projection in found:
        _check(projection)
        if projection.name in names:
            raise BadRequestError(f"two projections have the name {projection.name!r}")
        names.add(projection.name)
    return found


def check_types(projections: Iterable[Projection], source: Source) -> None:
    """Refuse a projection of a type that the store cannot have: its tables would stay empty.

    Raises:
        BadRequestError: Names the projection and the type.
    """
    for projection in projections:
        for data_type in projection.data_types:
            if not source.knows(data_type):
                raise BadRequestError(f"projection {projection.name!r} wants objects of an unknown type, {data_type!r}")


def _check(projection: object) -> None:
    if isinstance(projection, type):
        raise BadRequestError(f"a projection is an object: {projection.__name__}(), not the class")
    kind = type(projection).__name__
    for attribute, wanted, noun in (("name", str, "a text"), ("version", int, "a number"), ("schema", str, "a text")):
        if not isinstance(getattr(projection, attribute, None), wanted):
            raise BadRequestError(f"projection {kind}: {attribute} must be {noun}")
    types = getattr(projection, "data_types", None)
    if isinstance(types, str) or not isinstance(types, Iterable) or not all(isinstance(one, str) for one in types):
        raise BadRequestError(f"projection {kind}: data_types is a list of types")
    if not callable(getattr(projection, "apply", None)):
        raise BadRequestError(f"projection {kind} has no method apply(tx, actions)")
