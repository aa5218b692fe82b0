"""Projections: the tables of a readdb, and how actions change them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from agola_core.datamanager import Action, Feed
from agola_core.db import Tx
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

    def snapshot(self) -> AbstractContextManager[SnapshotSource]:
        """Return a consistent state."""

    def watch(self, after: Sequence | str | None = None) -> Feed:
        """Return the feed of the WALs after a sequence."""
