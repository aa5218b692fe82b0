"""The verdicts of a group of waiting writers: who commits, who is refused, and who has committed before.

A verdict is by the log's head, which every change of a change group moves: it holds as long as the head stands.
"""

from __future__ import annotations

from agola_core.coordinator.port import GetOp, KeyValue
from agola_core.datamanager.format import keys, records
from agola_core.datamanager.format.records import WalIdRecord
from agola_core.datamanager.log.log import Log
from agola_core.datamanager.log.pending_wal import Commit
from agola_core.datamanager.types import ChangeGroupsToken
from agola_core.errors import BadRequestError, ConflictError, FencedError, TokenExpiredError, UnavailableError
from agola_core.sequence import Sequence


class Judge:
    """Judges writers by what a log knows; the caller holds the log's lock.

    Args:
        log: The log.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._coordinator = log.coordinator

    def accept(self, waiting: list[Commit]) -> list[Commit]:
        """Settle what is refused or was committed before, and return who may commit now, in order.

        Whoever is neither is to be judged again, after a commit of the others.
        """
        head_revision = self._log.head_revision
        if any(commit.token.revision > head_revision for commit in waiting):
            self._log.catch_up()  # another process gave the token: what it saw is no conflict
        lineage = self._log.view.lineage.lineage
        for commit in waiting:
            if not commit.unconditional or commit.lineage != lineage:
                break
        else:
            return waiting
        waiting = _with_payloads(waiting, self._log.collected)
        found = self._look_up(waiting)
        if self._misses_forgotten(waiting):  # the cleaner was here since the view was taken
            self._log.catch_up()
            found = self._look_up(waiting)
        accepted: list[Commit] = []
        moved: set[str] = set()
        ids: set[str] = set()
        written: set[str] = set()
        behind = False
        for commit in waiting:
            if written and not written.isdisjoint(commit.along.keys()):
                continue  # a transaction writes a key once: judged again once the other is committed
            if commit.remembered:
                if commit.wal_id in ids:
                    continue  # twice in one batch: judged again once the first is committed
                ids.add(commit.wal_id)
                earlier = found[keys.wal_id(commit.wal_id)]
                if earlier is not None and (outcome := self._earlier_outcome(commit, earlier)):
                    commit.settle(*outcome)
                    behind |= outcome[0] is not None and Sequence.parse(outcome[0].sequence) > self._log.view.sequence
                    continue
            error = self._refusal(commit)
            if error is not None:
                commit.settle(None, error)
                continue
            if not moved.isdisjoint(commit.groups):
                continue  # invariant 5: the other may yet lose its race, so only its commit is a conflict
            moved.update(commit.groups)
            written.update(op.key for op in commit.along.ops)
            accepted.append(commit)
        if behind:  # a writer reads what it has written; the others are judged by the newer state
            self._log.catch_up()
            return []
        return accepted

    def _look_up(self, waiting: list[Commit]) -> dict[str, KeyValue | None]:
        """Read the groups that are not known and the given ids, as the head stands or newer."""
        groups = self._log.groups
        wanted = {keys.group(name) for commit in waiting for name in commit.groups if name not in groups}
        wanted.update(keys.wal_id(commit.wal_id) for commit in waiting if commit.remembered)
        if len(wanted) <= 2:
            found = {key: self._coordinator.get(key) for key in wanted}
        else:
            found = {}
            ordered, step = sorted(wanted), self._coordinator.max_txn_ops
            for start in range(0, len(ordered), step):
                part = ordered[start : start + step]
                found.update(zip(part, self._coordinator.txn([], [GetOp(key) for key in part]).reads, strict=True))
        for commit in waiting:
            for name in commit.groups:
                if name not in groups:
                    item = found[keys.group(name)]
                    groups[name] = item.mod_revision if item else 0
        return found

    def _misses_forgotten(self, waiting: list[Commit]) -> bool:
        """Return whether a group is gone that was there beyond the floor, as far as that is known here."""
        groups, floor = self._log.groups, self._log.floor
        return any(
            seen > floor and not groups[name] for commit in waiting for name, seen in commit.token.groups.items()
        )

    def _refusal(self, commit: Commit) -> Exception | None:
        log, token = self._log, commit.token
        if commit.lineage != log.lineage.lineage:
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
            if log.groups[name] != seen and (log.groups[name] or seen > log.floor):
                return ConflictError(f"change group {name!r} was changed by another writer: read again")
        return None

    def _earlier_outcome(
        self, commit: Commit, item: KeyValue
    ) -> tuple[ChangeGroupsToken | None, Exception | None] | None:
        earlier = records.decode(WalIdRecord, item.value, item.key)
        if not earlier.counts_in(self._log.lineage.lineage):
            return None
        if earlier.digest != commit.digest:
            return None, BadRequestError(f"WAL id {commit.wal_id!r} was used before with other actions")
        groups = dict.fromkeys(earlier.groups, item.mod_revision)
        return ChangeGroupsToken(item.mod_revision, groups, earlier.lineage, earlier.sequence), None


def refuse_guarded(accepted: list[Commit], found: dict[str, KeyValue | None]) -> None:
    """Settle the commits whose guards do not hold; the others lost a race for the head, and try again."""
    for commit in accepted:
        for guard in commit.along.guards:
            item = found[guard.key]
            if (getattr(item, guard.target.value) if item else 0) != guard.expected:
                commit.settle(None, ConflictError(f"{guard.key} was changed by another writer: read again"))
                break


def _with_payloads(waiting: list[Commit], collected: int) -> list[Commit]:
    """Settle those whose payloads may be gone, and return the rest.

    A collection moves the head, and this key with it, before it deletes a payload, so a commit that was looked at
    here before fails its compare and is looked at again. No clock tells what is old enough: clocks jump.
    """
    for commit in waiting:
        if commit.payload is not None and commit.collected != collected:
            commit.payload_lost = True
            commit.settle(None, UnavailableError("collections took the WAL's payload each time: nothing was written"))
    return [commit for commit in waiting if not commit.done]
