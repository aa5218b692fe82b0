"""Applies WALs to a readdb's tables, and keeps its position in the log and the actions that a projection refused."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from collections.abc import Sequence as Items
from typing import Any, NamedTuple

from agola_core.datamanager import Action, Event
from agola_core.db import Tx
from agola_core.errors import AgolaError, BadRequestError, CorruptionError, FormatError, NotFoundError
from agola_core.readdb.projection import Projection, check_projections
from agola_core.sequence import Sequence

logger = logging.getLogger(__name__)

SCHEMA = """
CREATE TABLE readdb_position (sequence TEXT NOT NULL, lineage TEXT NOT NULL, boot TEXT NOT NULL);
CREATE TABLE readdb_projection (name TEXT PRIMARY KEY, version INTEGER NOT NULL);
CREATE TABLE readdb_quarantine (projection TEXT, sequence TEXT, data_type TEXT, id TEXT, error TEXT);
"""
_MADE = "SELECT count(*) FROM sqlite_master WHERE name IN ('readdb_position', 'readdb_projection', 'readdb_quarantine')"
_READ = "SELECT sequence, lineage, boot FROM readdb_position"


class Place(NamedTuple):
    """The position of a readdb in the log.

    Attributes:
        sequence: The newest WAL that it includes.
        lineage: The history that the WAL belongs to.
        boot: The boot of the machine in which it was opened; "" once it was closed properly.
    """

    sequence: Sequence
    lineage: str
    boot: str


class Tables:
    """Applies WALs to a readdb's tables.

    Args:
        projections: The projections to keep.
        path: The readdb's path, for errors.
    """

    def __init__(self, projections: Items[Projection], path: str) -> None:
        self.projections = check_projections(projections)
        self.data_types = sorted({name for projection in self.projections for name in projection.data_types})
        self._path = path

    @property
    def schema(self) -> str:
        """The statements that make all tables, in an empty database."""
        return "\n;\n".join((SCHEMA, *(projection.schema for projection in self.projections)))

    def check(self, tx: Tx) -> Place:
        """Return the file's position.

        Raises:
            FormatError: It is unfinished, or has other projections.
        """
        if next(tx.rows(_MADE))[0] != 3:
            raise FormatError("not a readdb")
        row = next(tx.rows(_READ), None)
        versions = dict(tx.rows("SELECT name, version FROM readdb_projection"))
        if row is None or versions != {p.name: p.version for p in self.projections}:
            raise FormatError("the readdb is unfinished or has other projections")
        return Place(Sequence.parse(row[0]), row[1], row[2])

    def finish(self, tx: Tx, place: Place) -> None:
        """Record that a build is complete, and its position."""
        tx.execute("INSERT INTO readdb_position VALUES (?, ?, ?)", (str(place.sequence), place.lineage, place.boot))
        tx.executemany("INSERT INTO readdb_projection VALUES (?, ?)", [(p.name, p.version) for p in self.projections])

    def set_boot(self, tx: Tx, boot: str) -> None:
        """Record that the file is open, or was closed properly."""
        tx.execute("UPDATE readdb_position SET boot = ?", (boot,))

    def set_aside(self, tx: Tx) -> int:
        """Return how many actions projections have refused."""
        count: int = next(tx.rows("SELECT count(*) FROM readdb_quarantine"))[0]
        return count

    def take(self, tx: Tx, events: Items[Event]) -> None:
        """Apply the WALs that follow the file's position, and move the position in the same transaction.

        Raises:
            CorruptionError: A WAL is missing in between.
        """
        stored = Sequence.parse(next(tx.rows(_READ))[0])
        events = [event for event in events if event.sequence > stored]  # another process may share the file
        if not events:
            return
        for event in events:
            if event.previous != stored:
                raise CorruptionError(f"WAL {event.sequence} does not follow {stored}", path=self._path)
            stored = event.sequence
            for projection in self.projections:
                actions = [action for action in event.actions if action.data_type in projection.data_types]
                if actions:
                    self.apply(tx, [projection], actions, str(event.sequence))
        tx.execute("UPDATE readdb_position SET sequence = ?", (str(stored),))

    def apply(self, tx: Tx, projections: Iterable[Projection], actions: Items[Action], sequence: str) -> None:
        """Let projections apply actions; quarantine each action that a projection refuses.

        Args:
            tx: The transaction.
            projections: The projections that want the actions.
            actions: The actions, in order.
            sequence: The WAL's sequence; "" in a build.
        """
        for projection in projections:
            if self._try(tx, projection, actions, sequence, report=len(actions) == 1) or len(actions) == 1:
                continue
            for action in actions:  # one of them is bad: find it, keep the others
                self._try(tx, projection, [action], sequence, report=True)

    def _try(self, tx: Tx, projection: Projection, actions: Items[Action], sequence: str, *, report: bool) -> bool:
        tx.execute("SAVEPOINT projection")
        try:
            projection.apply(tx, actions)
        except Exception as error:  # a projection is the user's code: what it refuses is set aside
            if isinstance(error, AgolaError) and not isinstance(error, BadRequestError | NotFoundError):
                raise  # of the database, not of the action
            tx.context.check()  # an interrupted statement is no refusal
            tx.execute("ROLLBACK TO projection")
            tx.execute("RELEASE projection")
            if report:
                self._quarantine(tx, projection, actions[0], sequence, error)
            return False
        tx.execute("RELEASE projection")
        return True

    def _quarantine(self, tx: Tx, projection: Projection, action: Action, sequence: str, error: Exception) -> None:
        logger.error("projection %s refused %s %s", projection.name, action.data_type, action.id, exc_info=error)
        row: tuple[Any, ...] = (projection.name, sequence, action.data_type, action.id, str(error))
        tx.execute("INSERT INTO readdb_quarantine VALUES (?, ?, ?, ?, ?)", row)
