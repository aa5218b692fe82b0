"""What decides on events: expected versions, conditions and ids, by what the log knows when it commits.

A verdict holds as long as the log's head stands, which the transaction compares: nothing is read before a write, and
nobody is refused but for an event that is there. Those who share a transaction see each other's events: whoever
would be refused because of one of those waits until it is committed, since it may yet lose its race.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence as Items

from agola_core.datamanager.format.events import FIRST, Event, same_event
from agola_core.datamanager.log.log import Log
from agola_core.datamanager.log.pending_wal import EventsAppend, PendingWal, StreamAppend
from agola_core.datamanager.sstable.event_index import EventIndex
from agola_core.datamanager.types import ChangeGroupsToken
from agola_core.errors import BadRequestError, ConflictError
from agola_core.sequence import Sequence

_KNOWN_STREAMS = 100_000


class Verdict(enum.Enum):
    """What becomes of an append."""

    ACCEPTED = enum.auto()
    WAITS = enum.auto()
    """It depends on one that is about to be committed."""
    EARLIER = enum.auto()
    """It was committed before."""
    REFUSED = enum.auto()
    STALE = enum.auto()
    """It would be refused by a state of the log that may lack its own first commit: catch up, judge again."""


class EventRules:
    """Judges appends by a log's events, and gives them their places; the caller holds the log's lock.

    It remembers the versions of streams from commit to commit of its own process; another process's commit, or a
    new checkpoint, makes it look again.

    Args:
        log: The log.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._known_at: tuple[Sequence, int] | None = None
        self._base: EventIndex
        self._versions: dict[str, int] = {}
        self._head = 0
        self._judged_versions: dict[str, int] = {}
        self._judged_events: list[Event] = []
        self._judged_ids: set[str] = set()
        self._placed_versions: dict[str, int] = {}
        self._placed_head = 0
        self._fresh = False

    def begin_judging(self, waiting: Items[PendingWal]) -> bool:
        """Begin the verdicts on those who may share a transaction; catch up when one has seen more than the log.

        Returns:
            Whether anything decides on anybody's events.
        """
        self._judged_versions, self._judged_events, self._judged_ids = {}, [], set()
        checked = False
        for pending in waiting:
            if pending.events is not None and pending.events.checked:
                self._refresh()
                checked = True
                if self._is_behind(pending.events):
                    self._log.catch_up()
                    return True
        return checked

    def judge(self, pending: PendingWal) -> Verdict:
        """Settle a writer whose append is refused or was committed before; return what becomes of it."""
        append = pending.events
        assert append is not None
        self._refresh()
        if append.checked:
            verdict = self._verdict(append)
            if verdict is Verdict.EARLIER:
                view = self._log.view
                token = ChangeGroupsToken(self._log.head_revision, {}, view.lineage.lineage, str(view.sequence))
                pending.settle(token)
            elif isinstance(verdict, Exception):
                if append.ids and not append.retried:
                    append.retried = True
                    return Verdict.STALE
                pending.settle(None, verdict)
                return Verdict.REFUSED
            if verdict is not Verdict.ACCEPTED:
                return verdict
        for part in append.appends:
            if part.stream:
                self._judged_versions[part.stream] = self._judged(part.stream) + len(part.events)
            self._judged_events += part.events
        self._judged_ids.update(append.ids)
        return Verdict.ACCEPTED

    def begin_placing(self) -> None:
        """Begin the places of a transaction's appends."""
        self._placed_versions.clear()
        self._placed_head = -1
        self._fresh = self._known_at == self._now()

    def place(self, append: EventsAppend) -> tuple[int, ...]:
        """Give an append the next places; return the first position, then the first version of each batch."""
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
        """Take in the transaction whose places were given last; the log's view has it."""
        if self._placed_head >= 0:
            self._versions.update(self._placed_versions)
            self._head = self._placed_head
        self._known_at = self._now() if self._fresh else None

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
        if self._known_at != self._now() or len(self._versions) > _KNOWN_STREAMS:
            self._known_at = self._now()
            self._base = EventIndex(self._log.view)
            self._versions.clear()
            self._head = self._base.head

    def _now(self) -> tuple[Sequence, int]:
        view = self._log.view
        return view.sequence, view.manifest.number

    def _version(self, stream: str) -> int:
        """Return a stream's version in the log."""
        version = self._versions.get(stream)
        if version is None:
            version = self._versions[stream] = self._base.version(stream)
        return version

    def _judged(self, stream: str) -> int:
        """Return a stream's version after those who were accepted."""
        version = self._judged_versions.get(stream)
        return self._version(stream) if version is None else version

    def _is_behind(self, append: EventsAppend) -> bool:
        return any(after > self._head for _, after in append.conditions) or any(
            part.expected is not None and part.expected > self._version(part.stream) for part in append.appends
        )

    def _verdict(self, append: EventsAppend) -> Verdict | Exception:
        verdict: Verdict | Exception = self._check_ids(append) if append.ids else Verdict.ACCEPTED
        if verdict is Verdict.ACCEPTED:
            verdict = self._check_versions(append)
        if verdict is Verdict.ACCEPTED and append.conditions:
            verdict = self._check_conditions(append)
        return verdict

    def _check_versions(self, append: EventsAppend) -> Verdict | ConflictError:
        for part in append.appends:
            if part.expected is None:
                continue
            version = self._version(part.stream)
            if self._judged(part.stream) != version:
                if version <= part.expected:
                    return Verdict.WAITS
            elif version == part.expected:
                continue
            return ConflictError(f"stream {part.stream!r} is at version {version}, not {part.expected}: read again")
        return Verdict.ACCEPTED

    def _check_conditions(self, append: EventsAppend) -> Verdict | ConflictError:
        index = EventIndex(self._log.view)
        for items, after in append.conditions:
            for position in index.matching(items, after + 1, index.head, backwards=False):
                return ConflictError(f"the event at position {position} matches the condition: read again")
        for items, _ in append.conditions:
            if any(item.matches(event.type, event.tags) for event in self._judged_events for item in items):
                return Verdict.WAITS
        return Verdict.ACCEPTED

    def _check_ids(self, append: EventsAppend) -> Verdict | ConflictError | BadRequestError:
        if not self._judged_ids.isdisjoint(append.ids):
            return Verdict.WAITS
        index = EventIndex(self._log.view)
        positions = [index.find_id(event_id) for event_id in append.ids]
        if not any(positions):
            return Verdict.ACCEPTED
        if len(append.ids) == append.count and _is_stored(append, positions, index):
            append.last = positions[-1]
            return Verdict.EARLIER
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
