"""The conflict check: decides which waiting writers may commit, which are refused, and which have committed before.

It decides by the log's head, which every change of a change group moves, so a decision holds while the head stands.
"""

from __future__ import annotations

from agola_core.coordinator.port import GetOp, KeyValue
from agola_core.datamanager.format import keys, records
from agola_core.datamanager.format.records import WalIdRecord
from agola_core.datamanager.log.commit.event_rules import Decision, EventRules
from agola_core.datamanager.log.commit.object_rules import ObjectRules
from agola_core.datamanager.log.commit.pending_wal import PendingWal
from agola_core.datamanager.log.log import Log
from agola_core.datamanager.types import ChangeGroupsToken
from agola_core.errors import BadRequestError, ConflictError, FencedError, TokenExpiredError, UnavailableError
from agola_core.sequence import Sequence


class _Accepted:
    """The WALs that one transaction is to commit.

    Args:
        conditional: Whether any of the writers has conditions on objects.
    """

    def __init__(self, *, conditional: bool) -> None:
        self.wals: list[PendingWal] = []
        self._conditional = conditional
        self._groups: set[str] = set()
        self._ids: set[str] = set()
        self._keys: set[str] = set()
        self._objects: set[tuple[str, str]] = set()

    def delay(self, pending: PendingWal) -> bool:
        """Return whether a WAL depends on one of these, so that it is checked again once they are committed.

        Invariant 5: they may yet lose their race, so only their commit is a conflict. And a transaction writes a key
        once.
        """
        return bool(
            (self._keys and not self._keys.isdisjoint(pending.coordinator_ops.keys()))
            or (pending.remembered and pending.wal_id in self._ids)
            or not self._groups.isdisjoint(pending.groups)
            or (
                pending.conditions
                and any((data_type, object_id) in self._objects for data_type, object_id, _ in pending.conditions)
            )
        )

    def add(self, pending: PendingWal) -> None:
        """Add a WAL."""
        self.wals.append(pending)
        self._groups.update(pending.groups)
        self._keys.update([op.key for op in pending.coordinator_ops.ops])
        if pending.remembered:
            self._ids.add(pending.wal_id)
        if self._conditional:
            self._objects.update((action.data_type, action.id) for action in pending.actions)


class ConflictCheck:
    """Checks writers against what a log knows; the caller holds the log's lock.

    Args:
        log: The log.
        events: Judges the events of WALs.
    """

    def __init__(self, log: Log, events: EventRules) -> None:
        self._log = log
        self._events = events
        self._objects = ObjectRules(log)
        self._coordinator = log.coordinator

    def accept(self, waiting: list[PendingWal]) -> list[PendingWal]:
        """Settle writers that are refused or committed before, and return those that may commit now, in order.

        The remaining ones are checked again after the returned ones have committed.
        """
        checked = self._events.begin_check(waiting)
        lineage = self._log.view.lineage.lineage
        for pending in waiting:
            if not pending.unconditional or pending.lineage != lineage:
                break
        else:
            return self._accept_events(waiting) if checked else waiting
        head_revision = self._log.head_revision
        if any(
            pending.token.revision > head_revision or (pending.conditions and self._objects.is_behind(pending))
            for pending in waiting
        ):
            self._log.catch_up()  # another process gave the token: what it saw is no conflict
        waiting = _with_payloads(waiting, self._log.collected)
        found = self._look_up(waiting)
        if self._misses_forgotten(waiting):  # groups were cleaned up since the view was taken
            self._log.catch_up()
            found = self._look_up(waiting)
        accepted = _Accepted(conditional=any(pending.conditions for pending in waiting))
        behind = False
        for pending in waiting:
            if accepted.delay(pending):
                if pending.in_order:
                    break
                continue
            if pending.remembered:
                earlier = found[keys.wal_id(pending.wal_id)]
                if earlier is not None and (outcome := self._earlier_outcome(pending, earlier)):
                    pending.settle(*outcome)
                    behind |= outcome[0] is not None and Sequence.parse(outcome[0].sequence) > self._log.view.sequence
                    continue
            error = self._refusal(pending)
            if error is None and pending.conditions:
                error = self._objects.refusal(pending)
                if error is not None and not pending.rechecked:
                    pending.rechecked = behind = True
                    continue
            if error is not None:
                pending.settle(None, error)
                continue
            if pending.events is not None:
                decision = self._events.check(pending)
                behind |= decision is Decision.STALE
                if decision is not Decision.ACCEPTED:
                    continue
            accepted.add(pending)
        if behind:  # a writer reads what it has written; the others are checked against the newer state
            self._log.catch_up()
            return []
        return accepted.wals

    def _accept_events(self, waiting: list[PendingWal]) -> list[PendingWal]:
        """Do the same for writers whom nothing but events decides on."""
        accepted, stale = [], False
        for pending in waiting:
            decision = self._events.check(pending) if pending.events is not None else Decision.ACCEPTED
            if decision is Decision.ACCEPTED:
                accepted.append(pending)
            stale |= decision is Decision.STALE
        if stale:
            self._log.catch_up()
            return []
        return accepted

    def _look_up(self, waiting: list[PendingWal]) -> dict[str, KeyValue | None]:
        """Read the groups that are not known and the idempotency keys, as of the head or later."""
        groups = self._log.groups
        wanted = {keys.group(name) for pending in waiting for name in pending.groups if groups.get(name) is None}
        wanted.update([keys.wal_id(pending.wal_id) for pending in waiting if pending.remembered])
        if not wanted:
            return {}
        if len(wanted) <= 2:
            found = {key: self._coordinator.get(key) for key in wanted}
        else:
            found = {}
            ordered, step = sorted(wanted), self._coordinator.max_txn_ops
            for start in range(0, len(ordered), step):
                part = ordered[start : start + step]
                found.update(zip(part, self._coordinator.txn([], [GetOp(key) for key in part]).reads, strict=True))
        for pending in waiting:
            for name in pending.groups:
                if groups.get(name) is None:
                    item = found[keys.group(name)]
                    groups.learn(name, item.mod_revision if item else 0)
        return found

    def _misses_forgotten(self, waiting: list[PendingWal]) -> bool:
        """Return whether a group was deleted that a token saw above the known floor."""
        revision, floor = self._log.groups.get, self._log.floor
        for pending in waiting:
            for name, seen in pending.token.groups.items():
                if seen > floor and not revision(name):
                    return True
        return False

    def _refusal(self, pending: PendingWal) -> Exception | None:
        log, token = self._log, pending.token
        if pending.lineage != log.lineage.lineage:
            return FencedError("the store was imported or recovered since this write began")
        if token.lineage and token.lineage != log.lineage.lineage:
            return TokenExpiredError(
                "the token is from before an import or a recovery of this store, or of another store: read again"
            )
        if token.groups and token.revision < log.floor:
            return TokenExpiredError(
                f"the token's revision {token.revision} is older than {log.floor}, the oldest retained: read again"
            )
        for name, seen in token.groups.items():
            # A forgotten group has not moved since the floor, and the token is no older.
            found = log.groups.get(name)
            if found != seen and (found or seen > log.floor):
                return ConflictError(f"change group {name!r} was changed by another writer: read again")
        return None

    def _earlier_outcome(
        self, pending: PendingWal, item: KeyValue
    ) -> tuple[ChangeGroupsToken | None, Exception | None] | None:
        earlier = records.decode(WalIdRecord, item.value, item.key)
        if not earlier.counts_in(self._log.lineage.lineage):
            return None
        if earlier.digest != pending.digest:
            return None, BadRequestError(f"WAL id {pending.wal_id!r} was used before with other actions")
        groups = dict.fromkeys(earlier.groups, item.mod_revision)
        return ChangeGroupsToken(item.mod_revision, groups, earlier.lineage, earlier.sequence), None


def refuse_guarded(accepted: list[PendingWal], found: dict[str, KeyValue | None]) -> None:
    """Refuse the writers whose guards do not hold; the others lost a race for the head, and try again."""
    for pending in accepted:
        for guard in pending.coordinator_ops.guards:
            item = found[guard.key]
            if (getattr(item, guard.target.value) if item else 0) != guard.expected:
                pending.settle(None, ConflictError(f"{guard.key} was changed by another writer: read again"))
                break


def _with_payloads(waiting: list[PendingWal], collected: int) -> list[PendingWal]:
    """Settle the WALs whose payloads may have been collected, and those in order after one; return the rest.

    A collection moves the head, and this key with it, before it deletes a payload, so a commit that passed here
    before fails its compare and is checked again. No clock tells which payload is old enough: clocks jump.
    """
    lost_in_order = False
    for pending in waiting:
        lost = pending.payload is not None and pending.collected != collected
        if lost or (lost_in_order and pending.in_order):
            pending.payload_lost = True
            what = "the WAL's payload" if lost else "the payload of a WAL before this one"
            pending.settle(None, UnavailableError(f"collections took {what} each time: nothing was written"))
            lost_in_order |= pending.in_order
    return [pending for pending in waiting if not pending.done]
