"""The conflict check of events: decides on expected versions, append conditions and event ids, by what the log knows.

A decision holds while the log's head stands, which the transaction compares: nothing is read before a write, and an
append is refused only because of a committed event. Appends that share a transaction see each other's events: one that
would be refused because of another waits until the other is committed, because the other may still lose its race.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence as Items

from agola_core.datamanager.format.events import FIRST, Event, same_event
from agola_core.datamanager.log.commit.pending_wal import EventsAppend, PendingWal, StreamAppend
from agola_core.datamanager.log.log import Log
from agola_core.datamanager.sstable.events.index import EventIndex
from agola_core.datamanager.sstable.view import View
from agola_core.datamanager.types import ChangeGroupsToken
from agola_core.errors import BadRequestError, ConflictError

_KNOWN_STREAMS = 100_000


class Decision(enum.Enum):
    """The decision on an append."""

    ACCEPTED = enum.auto()
    WAITS = enum.auto()
    """It depends on another one that is about to be committed."""
    EARLIER = enum.auto()
    """It was committed before: a retry."""
    REFUSED = enum.auto()
    STALE = enum.auto()
    """This state of the log would refuse it, but may lack its own first commit: catch up and check again."""


class EventRules:
    """Checks appends against a log's events, and assigns positions and versions; the caller holds the log's lock.

    It remembers the versions of streams from commit to commit of this process; another process's commit, or a new
    checkpoint, makes it read them again.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._view: View | None = None
        self._base: EventIndex
        self._versions: dict[str, int] = {}
        self._head = 0
        self._accepted_versions: dict[str, int] = {}
        self._accepted_events: list[Event] = []
        self._accepted_ids: set[str] = set()
        self._placed_versions: dict[str, int] = {}
        self._placed_head = 0
        self._fresh = False

    def begin_check(self, waiting: Items[PendingWal]) -> bool:
        """Begin to check WALs that may share a transaction; catch up if one of them has seen more than the log.

        Returns:
            Whether any of them has conditions on events.
        """
        if self._accepted_events:
            self._accepted_versions, self._accepted_events, self._accepted_ids = {}, [], set()
        checked = False
        for pending in waiting:
            if pending.events is not None and pending.events.checked:
                self._refresh()
                checked = True
                if self._is_behind(pending.events):
                    self._log.catch_up()
                    return True
        return checked

    def check(self, pending: PendingWal) -> Decision:
        """Settle a writer whose append is refused or was committed before; return the decision."""
        append = pending.events
        assert append is not None
        self._refresh()
        if append.checked:
            decision = self._decision(append)
            if decision is Decision.EARLIER:
                view = self._log.view
                token = ChangeGroupsToken(self._log.head_revision, {}, view.lineage.lineage, str(view.sequence))
                pending.settle(token)
            elif isinstance(decision, Exception):
                if append.ids and not append.retried:
                    append.retried = True
                    return Decision.STALE
                pending.settle(None, decision)
                return Decision.REFUSED
            if decision is not Decision.ACCEPTED:
                return decision
        for part in append.appends:
            if part.stream:
                self._accepted_versions[part.stream] = self._accepted_version(part.stream) + len(part.events)
            self._accepted_events += part.events
        self._accepted_ids.update(append.ids)
        return Decision.ACCEPTED

    def begin_placing(self) -> None:
        """Begin to assign the positions of a transaction's appends."""
        self._placed_versions.clear()
        self._placed_head = -1
        self._fresh = self._view is self._log.view

    def place(self, append: EventsAppend) -> tuple[int, ...]:
        """Assign an append the next positions; return the first position, then the first version of each batch."""
        if self._placed_head < 0:
            self._refresh()
            self._fresh = True
            self._placed_head = self._head
        placed = [self._placed_head + 1]
        for part in append.appends:
            self._placed_head += len(part.events)
            placed += self._place(part)
        append.last = self._placed_head
        return tuple(placed)

    def committed(self) -> None:
        """Remember the versions after the last transaction, which the log's view now includes."""
        if self._placed_head >= 0:
            self._versions.update(self._placed_versions)
            self._head = self._placed_head
        self._view = self._log.view if self._fresh else None

    def _place(self, part: StreamAppend) -> list[int]:
        if not part.stream:
            return [0] * len(part.sizes)
        version = self._placed_versions.get(part.stream)
        if version is None:
            version = self._version(part.stream)
        placed = []
        for size in part.sizes:
            placed.append(version + FIRST)
            version += size
        self._placed_versions[part.stream] = version
        return placed

    def _refresh(self) -> None:
        view = self._log.view
        if self._view is not view or len(self._versions) > _KNOWN_STREAMS:
            self._view = view
            self._base = EventIndex(view)
            self._versions.clear()
            self._head = self._base.head

    def _version(self, stream: str) -> int:
        """Return a stream's version in the log."""
        version = self._versions.get(stream)
        if version is None:
            version = self._versions[stream] = self._base.version(stream)
        return version

    def _accepted_version(self, stream: str) -> int:
        """Return a stream's version after the accepted appends."""
        version = self._accepted_versions.get(stream)
        return self._version(stream) if version is None else version

    def _is_behind(self, append: EventsAppend) -> bool:
        if append.conditions and any(after > self._head for _, after in append.conditions):
            return True
        return any(part.expected and part.expected > self._version(part.stream) for part in append.appends)

    def _decision(self, append: EventsAppend) -> Decision | Exception:
        decision: Decision | Exception = self._check_ids(append) if append.ids else Decision.ACCEPTED
        if decision is Decision.ACCEPTED:
            decision = self._check_versions(append)
        if decision is Decision.ACCEPTED and append.conditions:
            decision = self._check_conditions(append)
        return decision

    def _check_versions(self, append: EventsAppend) -> Decision | ConflictError:
        for part in append.appends:
            if part.expected is None:
                continue
            version = self._version(part.stream)
            if self._accepted_versions.get(part.stream, version) != version:
                if version <= part.expected:
                    return Decision.WAITS
            elif version == part.expected:
                continue
            return ConflictError(f"stream {part.stream!r} is at version {version}, not {part.expected}: read again")
        return Decision.ACCEPTED

    def _check_conditions(self, append: EventsAppend) -> Decision | ConflictError | BadRequestError:
        index = EventIndex(self._log.view)
        for _, after in append.conditions:
            if after > index.head:  # the log has caught up: nobody has read so far in this history
                return BadRequestError(f"a condition's position, {after}, lies after the newest event, at {index.head}")
        for items, after in append.conditions:
            for position in index.matching(items, after + 1, index.head, backwards=False):
                return ConflictError(f"the event at position {position} matches the condition: read again")
        for items, _ in append.conditions:
            if any(item.matches(event.type, event.tags) for event in self._accepted_events for item in items):
                return Decision.WAITS
        return Decision.ACCEPTED

    def _check_ids(self, append: EventsAppend) -> Decision | ConflictError | BadRequestError:
        if not self._accepted_ids.isdisjoint(append.ids):
            return Decision.WAITS
        index = EventIndex(self._log.view)
        positions = [index.find_id(event_id) for event_id in append.ids]
        if not any(positions):
            return Decision.ACCEPTED
        if len(append.ids) == append.count and _is_stored(append, positions, index):
            append.last = positions[-1]
            return Decision.EARLIER
        known, position = next((one, at) for one, at in zip(append.ids, positions, strict=True) if at)
        return BadRequestError(f"event id {known!r} was used before, at position {position}, in another append")


def _is_stored(append: EventsAppend, positions: list[int], index: EventIndex) -> bool:
    """Return whether just these events stand at some positions."""
    if positions != list(range(positions[0], positions[0] + len(positions))) or not positions[0]:
        return False
    given = [(part.stream, event) for part in append.appends for event in part.events]
    for (stream, event), position in zip(given, positions, strict=True):
        batch = index.batch(position)
        if batch.stream != stream or not same_event(event, batch.events[position - batch.position]):
            return False
    return True
